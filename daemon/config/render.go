package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Schema is the JSON Schema of the file (draft 2020-12).
//
//go:embed schema.json
var Schema []byte

// Entry is one key with its value, as YAML in one line. Sections come before their keys
// and have no value; Given is false for a rule that is not set.
type Entry struct {
	Key
	Value   string
	Section bool
	Given   bool
}

// Entries lists the configuration in the file's order. Lists are one entry each.
func (c *Config) Entries() []Entry { return entriesOf(reflect.ValueOf(c).Elem(), "") }

func entriesOf(v reflect.Value, key string) []Entry {
	var entries []Entry
	for _, f := range fieldsOf(v) {
		name := joinKey(key, f.name)
		e := Entry{Key: rowOf(name), Given: f.value.Kind() != reflect.Pointer || !f.value.IsNil()}
		e.Name = name
		if f.value.Kind() == reflect.Struct {
			e.Section = true
			entries = append(append(entries, e), entriesOf(f.value, name)...)
			continue
		}
		if e.Given {
			e.Value = flow(plain(f.value))
		}
		entries = append(entries, e)
	}
	return entries
}

// YAML writes the whole configuration as a file that Load takes back; a password in
// storage.url is left out.
func (c *Config) YAML() []byte {
	var b bytes.Buffer
	for _, e := range c.withoutPassword().Entries() {
		name := e.Name[strings.LastIndex(e.Name, ".")+1:]
		indent := strings.Repeat("  ", strings.Count(e.Name, "."))
		switch {
		case e.Section:
			fmt.Fprintf(&b, "%s%s:\n", indent, name)
		case e.Given:
			fmt.Fprintf(&b, "%s%s: %s\n", indent, name, e.Value)
		}
	}
	return b.Bytes()
}

// MarshalJSON gives the file's keys and values, durations as text, in the file's order.
func (c *Config) MarshalJSON() ([]byte, error) {
	return json.Marshal(plain(reflect.ValueOf(c.withoutPassword()).Elem()))
}

func (c *Config) withoutPassword() *Config {
	copied := *c
	if u, err := url.Parse(c.Storage.URL); err == nil && u.User != nil {
		u.User = url.User(u.User.Username())
		copied.Storage.URL = u.String()
	}
	return &copied
}

// Changed names the keys whose values differ, and those among them that wait for a restart.
func Changed(from, to *Config) (changed, restart []string) {
	before := map[string]string{}
	for _, e := range from.Entries() {
		before[e.Name] = e.Value
	}
	for _, e := range to.Entries() {
		if before[e.Name] == e.Value {
			continue
		}
		changed = append(changed, e.Name)
		if e.Restart {
			restart = append(restart, e.Name)
		}
	}
	return changed, restart
}

// object is a map that keeps its order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(append(append(name, ':'), value...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// plain turns a value into what JSON and YAML share. What is not set is left out.
func plain(v reflect.Value) any {
	switch {
	case v.Type() == durationType:
		return FormatDuration(time.Duration(v.Int()))
	case v.Kind() == reflect.Pointer, v.Kind() == reflect.Interface:
		return plain(v.Elem())
	case v.Kind() == reflect.Struct:
		o := object{}
		for _, f := range fieldsOf(v) {
			empty := (f.value.Kind() == reflect.Pointer || f.value.Kind() == reflect.Map) && f.value.IsNil()
			if !empty {
				o = append(o, member{f.name, plain(f.value)})
			}
		}
		return o
	case v.Kind() == reflect.Map:
		o := object{}
		for _, k := range v.MapKeys() {
			o = append(o, member{k.String(), plain(v.MapIndex(k))})
		}
		slices.SortFunc(o, func(a, b member) int { return strings.Compare(a.name, b.name) })
		return o
	case v.Kind() == reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case v.Kind() == reflect.String:
		return v.String()
	}
	return v.Interface()
}

// Words that are text to YAML 1.2 and to this reader, without quotes.
var plainWord = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]*|[0-9]+(ns|us|ms|s|m|h)([0-9]+(s|m))?([0-9]+s)?)$`)

func flow(value any) string {
	switch v := value.(type) {
	case object:
		parts := make([]string, len(v))
		for i, m := range v {
			parts[i] = flow(m.name) + ": " + flow(m.value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = flow(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		reserved := []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
		if plainWord.MatchString(v) && !slices.Contains(reserved, strings.ToLower(v)) {
			return v
		}
		quoted, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprintf("%q", v) // a string always marshals
		}
		return string(quoted)
	}
	return fmt.Sprint(value)
}

package config

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	watchType    = reflect.TypeFor[checkpoint.Watch]()
	autoType     = reflect.TypeFor[checkpoint.AutoConfig]()

	decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
)

// decoder puts a document onto a Config of defaults. It goes on after a mistake, so that
// one look at its errors is enough.
type decoder struct {
	cfg    *Config
	errors Errors
}

func (d *decoder) failf(n *node, key, format string, args ...any) {
	d.errors = append(d.errors, problem(d.cfg.file, n.line, key, format, args...))
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *node, key, want string) {
	if n.kind == kindNull {
		d.failf(n, key, "has no value: give it %s, or remove the line for the default", want)
		return
	}
	d.failf(n, key, "must be %s, not %s", want, n.describe())
}

func (d *decoder) value(n *node, v reflect.Value, key string) {
	d.cfg.lines[key] = n.line
	switch {
	case v.Type() == durationType:
		d.duration(n, v, key)
	case v.Kind() == reflect.Pointer:
		d.pointer(n, v, key)
	case v.Kind() == reflect.Struct:
		d.object(n, v, key)
	case v.Kind() == reflect.Slice:
		d.list(n, v, key)
	case v.Kind() == reflect.Map:
		d.dictionary(n, v, key)
	case v.Kind() == reflect.Interface:
		d.any(n, v, key)
	default:
		d.scalar(n, v, key)
	}
}

// object fills a struct in the order of its fields, not of the file: what sessions take
// over from auto must be there first.
func (d *decoder) object(n *node, v reflect.Value, key string) {
	if n.kind != kindMap {
		d.wrong(n, key, "a map of keys")
		return
	}
	given := d.keysOf(n, key)
	names := make([]string, 0, v.NumField())
	for _, f := range fieldsOf(v) {
		names = append(names, f.name)
		if child, ok := given[f.name]; ok {
			d.value(child, f.value, joinKey(key, f.name))
		}
	}
	for _, k := range n.keys {
		if k.kind == kindString && !slices.Contains(names, k.text) {
			d.failf(k, joinKey(key, k.text), "unknown key: %s", hint(k.text, names))
		}
	}
}

// keysOf indexes a map's values by key and reports keys that are not text or come twice.
func (d *decoder) keysOf(n *node, key string) map[string]*node {
	given, first := make(map[string]*node, len(n.keys)), make(map[string]int, len(n.keys))
	for i, k := range n.keys {
		if k.text == "<<" && k.kind == kindOther {
			d.failf(k, key, "<< merges another map in, which is not taken here: write the keys out")
			continue
		}
		if k.kind != kindString {
			d.failf(k, key, "a key must be text, not %s: put it in quotes", k.describe())
			continue
		}
		if line, again := first[k.text]; again {
			d.failf(k, joinKey(key, k.text), "given twice, first on line %d: remove one", line)
			continue
		}
		given[k.text], first[k.text] = n.values[i], k.line
	}
	return given
}

type field struct {
	name  string
	value reflect.Value
}

// fieldsOf lists a struct's keys, those of inlined structs among them.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			fields = append(fields, fieldsOf(v.Field(i))...)
		case name != "":
			fields = append(fields, field{name, v.Field(i)})
		}
	}
	return fields
}

// pointer fills a value of its own, from the defaults that belong to its type.
func (d *decoder) pointer(n *node, v reflect.Value, key string) {
	fresh := reflect.New(v.Type().Elem())
	if fresh.Elem().Type() == autoType {
		fresh.Elem().Set(reflect.ValueOf(cloneAuto(d.cfg.Auto)))
	}
	before := len(d.errors)
	d.value(n, fresh.Elem(), key)
	if len(d.errors) == before {
		v.Set(fresh)
	}
}

func (d *decoder) list(n *node, v reflect.Value, key string) {
	if n.kind != kindList {
		d.wrong(n, key, "a list, as in [a, b]")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.values), len(n.values))
	for i, child := range n.values {
		if list.Index(i).Type() == watchType {
			list.Index(i).Set(reflect.ValueOf(checkpoint.DefaultWatch()))
		}
		d.value(child, list.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
	v.Set(list)
}

func (d *decoder) dictionary(n *node, v reflect.Value, key string) {
	if n.kind != kindMap {
		d.wrong(n, key, "a map of keys")
		return
	}
	m := reflect.MakeMap(v.Type())
	for name, child := range d.keysOf(n, key) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(child, item, joinKey(key, name))
		m.SetMapIndex(reflect.ValueOf(name), item)
	}
	v.Set(m)
}

// any takes JSON's types: what a transcript's member is compared with.
func (d *decoder) any(n *node, v reflect.Value, key string) {
	switch {
	case n.kind == kindString:
		v.Set(reflect.ValueOf(n.text))
	case n.text == "true" || n.text == "false":
		v.Set(reflect.ValueOf(n.text == "true"))
	case n.kind == kindInt && decimal.MatchString(n.text), n.kind == kindFloat:
		f, err := strconv.ParseFloat(n.text, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			d.failf(n, key, "%.60s is no JSON number", n.text)
			return
		}
		v.Set(reflect.ValueOf(f))
	default:
		d.wrong(n, key, "text, a number, or true or false")
	}
}

func (d *decoder) scalar(n *node, v reflect.Value, key string) {
	row := rowOf(key)
	switch v.Kind() {
	case reflect.Bool:
		if n.text != "true" && n.text != "false" || n.kind != kindBool {
			d.wrong(n, key, "true or false")
			return
		}
		v.SetBool(n.text == "true")
	case reflect.String:
		if n.kind != kindString {
			want := row.wantText()
			if n.kind != kindMap && n.kind != kindList && n.kind != kindNull {
				want = fmt.Sprintf("text in quotes, as in %q", n.text)
			}
			d.wrong(n, key, want)
			return
		}
		if text := row.checkText(n.text); text != "" {
			d.failf(n, key, "%s", text)
			return
		}
		v.SetString(n.text)
	default:
		d.integer(n, v, key, row)
	}
}

func (d *decoder) integer(n *node, v reflect.Value, key string, row Key) {
	want := row.wantNumber()
	if n.kind != kindInt || !decimal.MatchString(n.text) {
		d.wrong(n, key, want)
		return
	}
	i, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil || i < row.Min || i > row.Max {
		d.wrong(n, key, want)
		return
	}
	if v.CanUint() {
		v.SetUint(uint64(i))
		return
	}
	v.SetInt(i)
}

func (d *decoder) duration(n *node, v reflect.Value, key string) {
	row := rowOf(key)
	if n.kind != kindString {
		d.wrong(n, key, row.wantDuration())
		return
	}
	span, err := time.ParseDuration(n.text)
	if err != nil || int64(span) < row.Min || int64(span) > row.Max {
		d.wrong(n, key, row.wantDuration())
		return
	}
	v.SetInt(int64(span))
}

func cloneAuto(a checkpoint.AutoConfig) checkpoint.AutoConfig {
	a.Causes, a.Watch = slices.Clone(a.Causes), slices.Clone(a.Watch)
	a.Capture.Env, a.Capture.Files = slices.Clone(a.Capture.Env), slices.Clone(a.Capture.Files)
	if a.Retention != nil {
		rules := *a.Retention
		a.Retention = &rules
	}
	return a
}

func joinKey(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// parentKey of "a.b[2]" is "a.b", of "a.b" is "a", of "a" is "".
func parentKey(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// fields are the members that a params struct takes.
type fields struct {
	byName   map[string]field
	names    []string // in order
	required []string
	session  []int // index of an embedded SessionRef
}

type field struct {
	index    []int
	typ      reflect.Type
	required bool
}

func fieldsOf(t reflect.Type) *fields {
	fs := &fields{byName: map[string]field{}}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			if f.Type == reflect.TypeFor[SessionRef]() {
				fs.session = f.Index
			}
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			panic("rpc: no json name: " + t.Name() + "." + f.Name)
		}
		required := options == ""
		fs.byName[name] = field{index: f.Index, typ: f.Type, required: required}
		fs.names = append(fs.names, name)
		if required {
			fs.required = append(fs.required, name)
		}
	}
	return fs
}

var rawType = reflect.TypeFor[json.RawMessage]()

// decode reads params strictly. raw is a compact object, or nil for none; raw members of
// the result are parts of it. members, if not nil, are those of raw.
func (l *Limits) decode(m *method, raw []byte, members []member) (any, error) {
	p := reflect.New(m.params)
	var given []string
	if raw != nil {
		if raw[0] != '{' {
			return nil, checkpoint.Invalid("params", "params must be an object with named members")
		}
		err := each(raw, members, func(name string, value []byte) error {
			f, ok := m.fields.byName[name]
			if !ok {
				return checkpoint.Invalid(cut(name), "%s takes no such member; it takes %s", m.name, orNone(m.fields.names))
			}
			for _, g := range given {
				if g == name {
					return checkpoint.Invalid(name, "the member is there twice")
				}
			}
			given = append(given, name)
			if err := l.set(p.Elem().FieldByIndex(f.index), value, name); err != nil {
				return err
			}
			return l.checkSize(name, value)
		})
		if err != nil {
			return nil, err
		}
	}
	has := func(name string) bool {
		for _, g := range given {
			if g == name {
				return true
			}
		}
		return false
	}
	for _, name := range m.fields.required {
		if !has(name) {
			return nil, checkpoint.Invalid(name, "%s needs this member", m.name)
		}
	}
	if m.fields.session != nil {
		switch id, key := has("session_id"), has("key"); {
		case id && key:
			return nil, checkpoint.Invalid("key", "give session_id or key, not both")
		case !id && !key && m.naming == bySession:
			return nil, checkpoint.Invalid("session_id", "%s needs session_id, or key in its place", m.name)
		}
	}
	if err := l.check(p.Interface(), has); err != nil {
		return nil, err
	}
	return p.Interface(), nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// cut keeps what a client sent short where it is told back.
func cut(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// set stores one value; name is its path for the error.
func (l *Limits) set(v reflect.Value, raw []byte, name string) error {
	if v.Type() == rawType {
		v.SetBytes(raw)
		return nil
	}
	switch p := v.Addr().Interface().(type) {
	case *checkpoint.ID:
		s, err := text(raw, name)
		if err != nil {
			return err
		}
		if *p, err = checkpoint.ParseID(s); err == nil && p.IsZero() {
			err = errors.New("the nil UUID names nothing")
		}
		if err != nil {
			return checkpoint.Invalid(name, "%s", err.Error())
		}
		return nil
	case **NullableID:
		*p = &NullableID{}
		if string(raw) == "null" {
			return nil
		}
		return l.set(reflect.ValueOf(*p).Elem().Field(0), raw, name)
	case *time.Time:
		s, err := text(raw, name)
		if err != nil {
			return err
		}
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return checkpoint.Invalid(name, "must be a time in RFC 3339 form, like 2026-11-23T10:00:00Z")
		}
		*p = t.UTC()
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return l.set(v.Elem(), raw, name)
	case reflect.String:
		s, err := text(raw, name)
		if err != nil {
			return err
		}
		v.SetString(s)
		return oneOf(v, name)
	case reflect.Bool:
		if string(raw) != "true" && string(raw) != "false" {
			return checkpoint.Invalid(name, "must be true or false")
		}
		v.SetBool(raw[0] == 't')
		return nil
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || v.OverflowInt(n) || raw[0] == '+' {
			return checkpoint.Invalid(name, "must be an integer")
		}
		v.SetInt(n)
		return nil
	case reflect.Uint64:
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			return checkpoint.Invalid(name, "must be an integer that is not negative")
		}
		v.SetUint(n)
		return nil
	case reflect.Slice:
		if raw[0] != '[' {
			return checkpoint.Invalid(name, "must be an array")
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 4))
		return rawjson.Elements(raw, func(i int, value []byte) error {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := l.set(e, value, name+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
			return nil
		})
	case reflect.Map:
		if raw[0] != '{' {
			return checkpoint.Invalid(name, "must be an object of strings")
		}
		labels := map[string]string{}
		err := rawjson.RawMembers(raw, func(rawKey, value []byte) error {
			key, err := text(rawKey, name)
			if err != nil {
				return err
			}
			if _, twice := labels[key]; twice {
				return checkpoint.Invalid(name+"."+cut(key), "the member is there twice")
			}
			labels[key], err = text(value, name+"."+cut(key))
			return err
		})
		v.Set(reflect.ValueOf(labels))
		return err
	}
	return fmt.Errorf("rpc: no decoding for %v", v.Type())
}

// text is a string's value; half a character is refused.
func text(raw []byte, name string) (string, error) {
	s, err := rawjson.Unquote(raw)
	switch {
	case errors.Is(err, rawjson.ErrSurrogate):
		return "", checkpoint.Invalid(name, "a lone surrogate escape stands for no character")
	case err != nil:
		return "", checkpoint.Invalid(name, "must be a string")
	}
	return s, nil
}

// enums are the string types of which only some values exist.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[checkpoint.Status]():    {string(checkpoint.Active), string(checkpoint.Closed)},
	reflect.TypeFor[checkpoint.Trigger]():   {string(checkpoint.Manual), string(checkpoint.Scheduled), string(checkpoint.Automatic)},
	reflect.TypeFor[checkpoint.Severity]():  {string(checkpoint.Info), string(checkpoint.Warning), string(checkpoint.Critical)},
	reflect.TypeFor[checkpoint.Cause]():     strs(checkpoint.Causes),
	reflect.TypeFor[checkpoint.EventType](): strs(checkpoint.EventTypes),
	reflect.TypeFor[checkpoint.StateSource](): {
		string(checkpoint.StateGiven), string(checkpoint.StateAttached), string(checkpoint.StatePut),
		string(checkpoint.StateFiles), string(checkpoint.StateNone),
	},
}

func strs[S ~string](in []S) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

func oneOf(v reflect.Value, name string) error {
	values, ok := enums[v.Type()]
	if !ok {
		return nil
	}
	for _, known := range values {
		if v.String() == known {
			return nil
		}
	}
	return checkpoint.Invalid(name, "must be one of %s", strings.Join(values, ", "))
}

package autotrigger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Decode reads a partial AutoConfig onto base and validates the whole. Members that raw
// does not name keep base's values; lists replace base's. An unknown or doubled member, a
// wrong type and a value out of range are a *checkpoint.Error of kind invalid_params whose
// Field is prefix and the member: with prefix "config.", "config.watch[0].path". An empty
// raw is {}.
func Decode(base checkpoint.AutoConfig, raw json.RawMessage, prefix string) (checkpoint.AutoConfig, error) {
	cfg := base
	if len(bytes.TrimSpace(raw)) > 0 {
		err := object(raw, strings.TrimSuffix(prefix, "."), prefix, map[string]func(json.RawMessage, string) error{
			"interval_seconds": into(&cfg.IntervalSeconds, "a number of seconds"),
			"cron":             into(&cfg.Cron, "a string"),
			"on_error":         into(&cfg.OnError, "true or false"),
			"on_tool_call":     into(&cfg.OnToolCall, "true or false"),
			"causes":           into(&cfg.Causes, "a list of causes"),
			"min_gap_seconds":  into(&cfg.MinGapSeconds, "a number of seconds"),
			"skip_unchanged":   into(&cfg.SkipUnchanged, "true or false"),
			"watch":            list(&cfg.Watch, decodeWatch),
			"capture":          func(v json.RawMessage, field string) error { return decodeCapture(&cfg.Capture, v, field) },
			"retention":        optional(&cfg.Retention, decodeRetention),
		})
		if err != nil {
			return checkpoint.AutoConfig{}, err
		}
	}
	if err := Validate(cfg, prefix); err != nil {
		return checkpoint.AutoConfig{}, err
	}
	return cfg, nil
}

func decodeWatch(v json.RawMessage, field string) (checkpoint.Watch, error) {
	w := checkpoint.DefaultWatch()
	err := object(v, field, field+".", map[string]func(json.RawMessage, string) error{
		"path":        into(&w.Path, "a string"),
		"recursive":   into(&w.Recursive, "true or false"),
		"ignore":      list(&w.Ignore, decodeString),
		"debounce_ms": into(&w.DebounceMS, "a number of milliseconds"),
		"max_wait_ms": into(&w.MaxWaitMS, "a number of milliseconds"),
		"cause":       into(&w.Cause, "a cause"),
		"format":      into(&w.Format, "a string"),
		"from_start":  into(&w.FromStart, "true or false"),
		"match":       optional(&w.Match, decodeMatch),
	})
	return w, err
}

func decodeMatch(v json.RawMessage, field string) (checkpoint.Match, error) {
	var m checkpoint.Match
	err := object(v, field, field+".", map[string]func(json.RawMessage, string) error{
		"tool_call": into(&m.ToolCall, "an object of dotted members and their values"),
		"error":     into(&m.Error, "an object of dotted members and their values"),
	})
	return m, err
}

func decodeCapture(c *checkpoint.Capture, v json.RawMessage, field string) error {
	return object(v, field, field+".", map[string]func(json.RawMessage, string) error{
		"env":   list(&c.Env, decodeString),
		"files": list(&c.Files, decodeString),
		"git":   into(&c.Git, "true or false"),
	})
}

func decodeRetention(v json.RawMessage, field string) (checkpoint.Retention, error) {
	var r checkpoint.Retention
	err := object(v, field, field+".", map[string]func(json.RawMessage, string) error{
		"keep_recent":     into(&r.KeepRecent, "a number"),
		"preserve_tags":   list(&r.PreserveTags, decodeString),
		"keep_manual":     into(&r.KeepManual, "true or false"),
		"keep_tagged":     into(&r.KeepTagged, "true or false"),
		"max_age_seconds": into(&r.MaxAgeSeconds, "a number of seconds"),
		"keep_hourly":     into(&r.KeepHourly, "a number"),
		"keep_daily":      into(&r.KeepDaily, "a number"),
	})
	return r, err
}

func decodeString(v json.RawMessage, field string) (string, error) {
	var s string
	return s, into(&s, "a string")(v, field)
}

// into decodes one value; JSON's null is a wrong type, which encoding/json would let pass.
func into[T any](to *T, want string) func(json.RawMessage, string) error {
	return func(v json.RawMessage, field string) error {
		var fresh T
		if string(v) == "null" || json.Unmarshal(v, &fresh) != nil {
			return checkpoint.Invalid(field, "give %s", want)
		}
		*to = fresh
		return nil
	}
}

// optional decodes a value that null takes away.
func optional[T any](to **T, one func(json.RawMessage, string) (T, error)) func(json.RawMessage, string) error {
	return func(v json.RawMessage, field string) error {
		*to = nil
		if string(v) == "null" {
			return nil
		}
		t, err := one(v, field)
		if err == nil {
			*to = &t
		}
		return err
	}
}

// list decodes each element, naming it field[i] in errors.
func list[T any](to *[]T, one func(json.RawMessage, string) (T, error)) func(json.RawMessage, string) error {
	return func(v json.RawMessage, field string) error {
		var raws []json.RawMessage
		if string(v) == "null" || json.Unmarshal(v, &raws) != nil {
			return checkpoint.Invalid(field, "give a list")
		}
		out := make([]T, 0, len(raws))
		for i, raw := range raws {
			t, err := one(raw, fmt.Sprintf("%s[%d]", field, i))
			if err != nil {
				return err
			}
			out = append(out, t)
		}
		*to = out
		return nil
	}
}

// object calls the known member's function for each member; self names the object in errors.
func object(raw json.RawMessage, self, prefix string, known map[string]func(json.RawMessage, string) error) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return checkpoint.Invalid(self, "give an object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return checkpoint.Invalid(self, "give an object")
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return checkpoint.Invalid(prefix+name, "no JSON value: %v", err)
		}
		decode := known[name]
		switch {
		case decode == nil:
			return checkpoint.Invalid(prefix+name, "unknown member; known are %s", names(known))
		case seen[name]:
			return checkpoint.Invalid(prefix+name, "given twice")
		}
		seen[name] = true
		if err := decode(v, prefix+name); err != nil {
			return err
		}
	}
	return nil
}

func names[T any](m map[string]T) string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

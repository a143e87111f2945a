package transcript

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// jsonlParser tells calls by members that equal given values. An error line is a failed
// call when the tool_call rule matches it too, else an error of its own.
type jsonlParser struct {
	toolCall, failure []condition
}

type condition struct {
	path  []string
	value any
}

func newJSONL(match *checkpoint.Match) (Parser, error) {
	if match == nil || len(match.ToolCall) == 0 && len(match.Error) == 0 {
		return nil, checkpoint.Invalid("match", "format jsonl needs match.tool_call or match.error: {member: value}, members of members with dots")
	}
	p := &jsonlParser{}
	for field, rule := range map[string]map[string]any{"match.tool_call": match.ToolCall, "match.error": match.Error} {
		for member, value := range rule {
			text, err := json.Marshal(value) // one spelling for what came by YAML and by JSON
			if err != nil || member == "" {
				return nil, checkpoint.Invalid(field, "%.64q needs a value that JSON can hold", member)
			}
			c := condition{strings.Split(member, "."), number(text)}
			if field == "match.tool_call" {
				p.toolCall = append(p.toolCall, c)
			} else {
				p.failure = append(p.failure, c)
			}
		}
	}
	return p, nil
}

// number decodes with number literals kept, so that ids over 2^53 stay apart.
func number(b []byte) any {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func (p *jsonlParser) Line(_ int, b []byte) []Call {
	line, ok := number(b).(map[string]any)
	if !ok {
		return nil
	}
	call, failed := matches(line, p.toolCall), matches(line, p.failure)
	if !call && !failed {
		return nil
	}
	c := Call{Cause: checkpoint.CauseToolCall, Tool: first(line, "tool", "tool_name", "name"), ID: first(line, "tool_use_id", "call_id", "tool_call_id", "id")}
	if failed {
		c.Cause, c.Plain = checkpoint.CauseError, !call && c.Tool == ""
	}
	return []Call{c}
}

// matches holds when every condition does; no condition matches nothing.
func matches(line map[string]any, rule []condition) bool {
	for _, c := range rule {
		if v, ok := member(line, c.path); !ok || !equal(v, c.value) {
			return false
		}
	}
	return len(rule) > 0
}

// member follows dotted members; a member whose own name has dots is found too.
func member(v any, path []string) (any, bool) {
	if len(path) == 0 {
		return v, true
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	for n := 1; n <= len(path); n++ {
		if inner, ok := object[strings.Join(path[:n], ".")]; ok {
			if found, ok := member(inner, path[n:]); ok {
				return found, true
			}
		}
	}
	return nil, false
}

func equal(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && (a == b || sameNumber(a.String(), b.String()))
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			if v, ok := b[k]; !ok || !equal(a[k], v) {
				return false
			}
		}
		return true
	}
	return a == b
}

// sameNumber: 1 equals 1.0 and 1e0. An exponent of more than three digits is not worked
// out, since 1e999999999 would take the memory it asks for.
func sameNumber(a, b string) bool {
	for _, s := range []string{a, b} {
		if at := strings.IndexAny(s, "eE"); len(s) > 400 || at >= 0 && len(s)-at > 5 {
			return false
		}
	}
	x, okX := new(big.Rat).SetString(a)
	y, okY := new(big.Rat).SetString(b)
	return okX && okY && x.Cmp(y) == 0
}

func first(line map[string]any, names ...string) string {
	for _, n := range names {
		switch v := line[n].(type) {
		case string:
			return v
		case json.Number:
			return v.String()
		}
	}
	return ""
}

// Package transcript reads agents' transcripts: the JSON lines that they append as they
// work. A Parser tells which tool calls a line finishes, Cut where a copy can be resumed
// from, WithSession gives such a copy a session id of its own, and Read what was done in
// it, in a few words.
//
// The formats belong to others and change: an unknown line, member or type is never an
// error, it only tells nothing.
package transcript

import (
	"encoding/json"
	"errors"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// The formats of a watch.
const (
	ClaudeCode = "claude-code"
	Codex      = "codex"
	Gemini     = "gemini"
	JSONL      = "jsonl" // any log of JSON lines, told apart by checkpoint.Match
)

// Call is a tool call that a line shows to be finished.
type Call struct {
	Cause checkpoint.Cause // tool_call, or error when the call failed
	Tool  string           // its name, "" when no line told it
	ID    string           // the agent's id of the call, "" when it has none
	// Plain is an error that belongs to no tool call, such as a refused model request: with
	// on_error off it fires nothing.
	Plain bool
}

// Parser takes a transcript's lines in order and remembers what later ones refer to, such
// as the names of calls. It is not safe for concurrent use.
//
// The parsers of this package are json.Marshaler and json.Unmarshaler: what they remember
// (open calls, the last finished ids; at most a few hundred KB) can be kept over a restart.
type Parser interface {
	// Line takes line n, counted from 1, without its line feed, and returns the calls that
	// it finishes. A line that is no JSON, or of an unknown type, finishes none. b is only
	// valid during the call.
	Line(n int, b []byte) []Call
}

// Bounds of what a parser remembers: no agent has that many calls open at once, and a
// transcript that repeats a result does so within a few lines. The oldest go first.
const (
	maxOpen = 4096
	maxDone = 1024
)

// New makes the parser of a format. match is for jsonl, which needs it. An unknown format
// or a match that matches nothing is invalid_params.
func New(format string, match *checkpoint.Match) (Parser, error) {
	if format == JSONL {
		return newJSONL(match)
	}
	decode := decoders[format]
	if decode == nil {
		return nil, checkpoint.Invalid("format", "%.64q is not a transcript format: use claude-code, codex, gemini or jsonl", format)
	}
	return newAgentParser(decode), nil
}

var decoders = map[string]func([]byte) entry{ClaudeCode: decodeClaude, Codex: decodeCodex, Gemini: decodeGemini}

// entry is what one line of any agent's transcript says, in common words.
type entry struct {
	opened  []opened
	done    []result
	failure string // an error that is no tool call's
	prompt  string // the user's words
	said    string // the agent's words
	cwd     string
	session string
}

type opened struct {
	id, name string
	input    json.RawMessage
}

type result struct {
	id, name string // name "": only the opening line tells
	failed   bool
	text     string
}

// decode is json.Unmarshal that forgives a member of another type than expected: what
// fits is taken. It reports false only when b is no JSON.
func decode(b []byte, into any) bool {
	err := json.Unmarshal(b, into)
	var other *json.UnmarshalTypeError
	return err == nil || errors.As(err, &other)
}

// agentParser follows the calls of one transcript.
type agentParser struct {
	decode func([]byte) entry
	names  *recent // open calls: id to name
	done   *recent // finished ids
}

func newAgentParser(decode func([]byte) entry) *agentParser {
	return &agentParser{decode: decode, names: newRecent(maxOpen), done: newRecent(maxDone)}
}

func (p *agentParser) Line(_ int, b []byte) []Call {
	e := p.decode(b)
	for _, o := range e.opened {
		p.names.put(o.id, o.name)
	}
	var calls []Call
	for _, r := range e.done {
		if _, again := p.done.get(r.id); again {
			continue
		}
		p.done.put(r.id, "")
		c := Call{Cause: checkpoint.CauseToolCall, Tool: r.name, ID: r.id}
		if name, ok := p.names.take(r.id); ok && c.Tool == "" {
			c.Tool = name
		}
		if r.failed {
			c.Cause = checkpoint.CauseError
		}
		calls = append(calls, c)
	}
	if e.failure != "" {
		calls = append(calls, Call{Cause: checkpoint.CauseError, Plain: true})
	}
	return calls
}

// memory is what a parser keeps over a restart.
type memory struct {
	Open [][2]string `json:"open,omitempty"`
	Done [][2]string `json:"done,omitempty"`
}

// MarshalJSON gives what the parser remembers.
func (p *agentParser) MarshalJSON() ([]byte, error) {
	return json.Marshal(memory{Open: p.names.all(), Done: p.done.all()})
}

// UnmarshalJSON takes it back.
func (p *agentParser) UnmarshalJSON(b []byte) error {
	var m memory
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	p.names, p.done = newRecent(maxOpen), newRecent(maxDone)
	for _, o := range m.Open {
		p.names.put(o[0], o[1])
	}
	for _, d := range m.Done {
		p.done.put(d[0], d[1])
	}
	return nil
}

// recent is a map that forgets its oldest entry when it is full.
type recent struct {
	limit int
	value map[string]string
	order []string // may hold ids that were taken; compacted in put
}

func newRecent(limit int) *recent { return &recent{limit: limit, value: map[string]string{}} }

func (r *recent) get(id string) (string, bool) { v, ok := r.value[id]; return v, ok }

func (r *recent) take(id string) (string, bool) {
	v, ok := r.value[id]
	delete(r.value, id)
	return v, ok
}

func (r *recent) put(id, value string) {
	if _, ok := r.value[id]; !ok {
		if len(r.order) >= 2*r.limit {
			r.compact()
		}
		r.order = append(r.order, id)
	}
	r.value[id] = value
	for len(r.value) > r.limit {
		delete(r.value, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recent) compact() {
	kept := make([]string, 0, len(r.value))
	seen := make(map[string]bool, len(r.value))
	for _, id := range r.order {
		if _, ok := r.value[id]; ok && !seen[id] {
			kept, seen[id] = append(kept, id), true
		}
	}
	r.order = kept
}

func (r *recent) all() [][2]string {
	r.compact()
	out := make([][2]string, len(r.order))
	for i, id := range r.order {
		out[i] = [2]string{id, r.value[id]}
	}
	return out
}

package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// render turns a result into pieces of JSON. What is JSON already is not copied.
func render(m *method, result any) ([][]byte, error) {
	switch r := result.(type) {
	case Stored:
		if r == nil {
			return [][]byte{[]byte("null")}, nil
		}
		if m.name == "checkpoint.restore" {
			return renderRestore(r)
		}
		tail, err := checkpointTail(r)
		if err != nil {
			return nil, err
		}
		return [][]byte{r.Raw[:len(r.Raw)-1], append(tail, '}')}, nil
	case RawResult:
		return [][]byte{r}, nil
	case *CheckpointListResult:
		return renderList(r), nil
	}
	b, err := marshal(result)
	return [][]byte{b}, err
}

// marshal is json.Marshal that leaves <, > and & alone, so that raw members stay as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// checkpointTail is what is not under the checksum: `,"checksum":…,"annotations":[…]`.
func checkpointTail(s Stored) ([]byte, error) {
	if len(s.Raw) < 2 || s.Raw[len(s.Raw)-1] != '}' {
		return nil, fmt.Errorf("rpc: the stored checkpoint does not end with a bracket")
	}
	tail := rawjson.AppendQuote([]byte(`,"checksum":`), s.Checksum)
	tail = append(tail, `,"annotations":`...)
	if len(s.Annotations) == 0 {
		return append(tail, "[]"...), nil
	}
	notes, err := marshal(s.Annotations)
	return append(tail, notes...), err
}

// renderRestore is `{"checkpoint":{all but the state},"state":…}`.
func renderRestore(s Stored) ([][]byte, error) {
	tail, err := checkpointTail(s)
	if err != nil {
		return nil, err
	}
	at := stateOffset(s)
	const name = `"state":`
	if at < len(name)+1 || string(s.Raw[at-len(name):at]) != name {
		return nil, fmt.Errorf("rpc: the stored checkpoint has no state")
	}
	head, rest := s.Raw[:at-len(name)], s.Raw[at+len(s.State):len(s.Raw)-1]
	if head[len(head)-1] == ',' {
		head = head[:len(head)-1]
	} else if len(rest) > 0 {
		rest = rest[1:]
	} else {
		tail = tail[1:]
	}
	return [][]byte{[]byte(`{"checkpoint":`), head, rest, append(tail, `},"state":`...), s.State, []byte("}")}, nil
}

// stateOffset is where State stands in Raw, of which it is a part; -1 when it does not.
func stateOffset(s Stored) int {
	if at := cap(s.Raw) - cap(s.State); len(s.State) > 0 && at >= 0 && at+len(s.State) <= len(s.Raw) && &s.Raw[at] == &s.State[0] {
		return at
	}
	at, next := -1, 1 // Raw is compact: a member is its name, a colon, its value and a comma
	if err := rawjson.RawMembers(s.Raw, func(key, value []byte) error {
		if string(key) == `"state"` {
			at = next + len(key) + 1
		}
		next += len(key) + 1 + len(value) + 1
		return nil
	}); err != nil || at < 0 || !bytes.HasPrefix(s.Raw[at:], s.State) {
		return -1
	}
	return at
}

func renderList(r *CheckpointListResult) [][]byte {
	n := len(`{"checkpoints":[],"next_cursor":}`) + len(r.NextCursor) + 16
	for _, s := range r.Checkpoints {
		n += len(s) + 1
	}
	b := append(make([]byte, 0, n), `{"checkpoints":[`...)
	for i, s := range r.Checkpoints {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, s...)
	}
	b = append(b, ']')
	if r.NextCursor != "" {
		b = rawjson.AppendQuote(append(b, `,"next_cursor":`...), r.NextCursor)
	}
	return [][]byte{append(b, '}')}
}

// replyHead is the envelope up to the result.
func replyHead(id []byte) []byte {
	b := make([]byte, 0, len(id)+64)
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	b = append(b, id...)
	return append(b, `,"result":`...)
}

// errorReply is a whole reply that tells an error. A nil id is null.
func errorReply(id []byte, e *jsonrpc2.Error) []byte {
	if id == nil {
		id = []byte("null")
	}
	b := append(make([]byte, 0, 256), `{"jsonrpc":"2.0","id":`...)
	b = append(b, id...)
	b = append(b, `,"error":{"code":`...)
	b = fmt.Appendf(b, "%d", e.Code)
	b = rawjson.AppendQuote(append(b, `,"message":`...), e.Message)
	if e.Data != nil {
		b = append(append(b, `,"data":`...), *e.Data...)
	}
	return append(b, "}}"...)
}

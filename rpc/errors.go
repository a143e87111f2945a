package rpc

import (
	"encoding/json"
	"errors"
	"maps"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// codes is the one place where kinds and the wire's numbers meet.
var codes = map[checkpoint.Kind]int64{
	checkpoint.KindParse:            -32700,
	checkpoint.KindInvalidRequest:   -32600,
	checkpoint.KindMethodNotFound:   -32601,
	checkpoint.KindInvalidParams:    -32602,
	checkpoint.KindInternal:         -32603,
	checkpoint.KindNotFound:         -32001,
	checkpoint.KindConflict:         -32002,
	checkpoint.KindInvalidState:     -32003,
	checkpoint.KindCorrupt:          -32004,
	checkpoint.KindTooLarge:         -32005,
	checkpoint.KindPermissionDenied: -32006,
	checkpoint.KindStorage:          -32007,
	checkpoint.KindOverloaded:       -32008,
}

// Code is the wire's number for a kind; an unknown kind is internal.
func Code(kind checkpoint.Kind) int64 {
	if code, ok := codes[kind]; ok {
		return code
	}
	return codes[checkpoint.KindInternal]
}

// ToWire renders an error for a client. One that is no *checkpoint.Error tells nothing of
// its text: it may hold what the client must not see.
func ToWire(err error) *jsonrpc2.Error {
	var e *checkpoint.Error
	if !errors.As(err, &e) {
		e = checkpoint.Errorf(checkpoint.KindInternal, "internal error: the daemon's log says more")
	}
	data := map[string]any{}
	maps.Copy(data, e.Data)
	data["kind"] = e.Kind
	if e.Field != "" {
		data["field"] = e.Field
	}
	if e.Retry || e.Kind == checkpoint.KindStorage {
		data["retry"] = e.Retry
	}
	raw, merr := json.Marshal(data)
	if merr != nil {
		raw, _ = json.Marshal(map[string]any{"kind": e.Kind})
	}
	return &jsonrpc2.Error{Code: Code(e.Kind), Message: e.Message, Data: (*json.RawMessage)(&raw)}
}

// FromWire is ToWire's other end: a *checkpoint.Error, so that errors.Is tells the sentinels
// apart in a client as it does in the daemon. A number that this package does not know
// becomes internal, with the number in Data["code"].
func FromWire(w *jsonrpc2.Error) error {
	e := &checkpoint.Error{Kind: checkpoint.KindInternal, Message: w.Message}
	known := false
	for kind, code := range codes {
		if code == w.Code {
			e.Kind, known = kind, true
		}
	}
	var data map[string]any
	if w.Data != nil {
		if err := json.Unmarshal(*w.Data, &data); err != nil {
			data = map[string]any{"data": string(*w.Data)}
		}
	}
	if !known {
		if data == nil {
			data = map[string]any{}
		}
		data["code"] = w.Code
	}
	e.Field, _ = data["field"].(string)
	e.Retry, _ = data["retry"].(bool)
	for _, taken := range []string{"kind", "field", "retry"} {
		delete(data, taken)
	}
	if len(data) > 0 {
		e.Data = data
	}
	return e
}

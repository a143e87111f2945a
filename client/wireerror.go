package client

import (
	"errors"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// wireError is JSON-RPC's error object.
type wireError struct {
	Code    int            `json:"code"`
	Message string         `json:"message"`
	Data    map[string]any `json:"data,omitempty"`
}

func (e *wireError) Error() string { return e.Message }

// toError gives what errors.Is understands.
func (e *wireError) toError() *checkpoint.Error {
	out := &checkpoint.Error{Message: e.Message, Data: map[string]any{}}
	for name, v := range e.Data {
		switch name {
		case "kind":
			s, _ := v.(string)
			out.Kind = checkpoint.Kind(s)
		case "field":
			out.Field, _ = v.(string)
		case "retry":
			out.Retry, _ = v.(bool)
		default:
			out.Data[name] = v
		}
	}
	return out
}

func toWire(err error) *wireError {
	var w *wireError
	if errors.As(err, &w) {
		return w
	}
	var e *checkpoint.Error
	if errors.As(err, &e) {
		return &wireError{Code: -32603, Message: e.Message, Data: map[string]any{"kind": e.Kind}}
	}
	return &wireError{Code: -32603, Message: err.Error(), Data: map[string]any{"kind": checkpoint.KindInternal}}
}

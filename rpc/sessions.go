package rpc

import (
	"encoding/json"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// SessionCreateParams of session.create. Auto is partial: it is decoded onto the defaults.
type SessionCreateParams struct {
	Name      string            `json:"name"`
	Key       string            `json:"key,omitempty"`
	SessionID checkpoint.ID     `json:"session_id,omitzero"`
	Labels    map[string]string `json:"labels,omitempty"`
	Auto      json.RawMessage   `json:"auto,omitempty"`
}

// SessionCreateResult is the session, and whether it was there before.
type SessionCreateResult struct {
	checkpoint.Session
	Existing bool `json:"existing"`
}

// SessionListParams of session.list.
type SessionListParams struct {
	Status checkpoint.Status `json:"status,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Limit  int               `json:"limit,omitempty"` // default 100
	Cursor string            `json:"cursor,omitempty"`
}

// SessionListResult of session.list.
type SessionListResult struct {
	Sessions   []checkpoint.Session `json:"sessions"`
	NextCursor string               `json:"next_cursor,omitempty"`
}

// SessionDeleteResult says how many checkpoints went with the session.
type SessionDeleteResult struct {
	Deleted int `json:"deleted"`
}

// PutStateParams of session.put_state.
type PutStateParams struct {
	SessionRef
	State json.RawMessage `json:"state"`
}

// PutStateResult counts a session's put_states since the daemon's start.
type PutStateResult struct {
	Revision uint64 `json:"revision"`
}

// AttachParams of session.attach.
type AttachParams struct {
	SessionRef
	ProvidesState bool `json:"provides_state,omitempty"`
}

// AttachResult of session.attach.
type AttachResult struct {
	Attached bool `json:"attached"`
}

// DetachResult of session.detach.
type DetachResult struct {
	Detached bool `json:"detached"`
}

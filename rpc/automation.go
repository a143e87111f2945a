package rpc

import (
	"encoding/json"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// AutoEnableParams of auto.enable. Config is partial: it is decoded onto the defaults.
type AutoEnableParams struct {
	SessionRef
	Config json.RawMessage `json:"config,omitempty"`
}

// AutoDisableResult of auto.disable.
type AutoDisableResult struct {
	Disabled bool `json:"disabled"`
}

// AutoGetResult of auto.get.
type AutoGetResult struct {
	Config    *checkpoint.AutoConfig `json:"config,omitempty"`
	NextRun   *time.Time             `json:"next_run,omitempty"`
	NextRuns  []time.Time            `json:"next_runs"`
	LastRun   *time.Time             `json:"last_run,omitempty"`
	LastError string                 `json:"last_error,omitempty"`
	Taken     uint64                 `json:"taken"`
	Skipped   uint64                 `json:"skipped"`
}

// AutoTriggerParams of auto.trigger.
type AutoTriggerParams struct {
	SessionRef
	Cause   checkpoint.Cause `json:"cause"`
	Message string           `json:"message,omitempty"`
	Detail  json.RawMessage  `json:"detail,omitempty"`
	State   json.RawMessage  `json:"state,omitempty"`
}

// AutoTriggerResult of auto.trigger: a checkpoint, or why there is none.
type AutoTriggerResult struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id,omitzero"`
	Sequence     uint64        `json:"sequence_number,omitempty"`
	Skipped      string        `json:"skipped,omitempty"` // not_enabled, throttled, unchanged
}

// ExportParams of store.export.
type ExportParams struct {
	SessionRef
	Cursor   string `json:"cursor,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"` // default 8 MiB
}

// ImportParams of store.import: one page of an export, kept as bytes.
type ImportParams struct {
	Data json.RawMessage `json:"data"`
}

// ImportResult of store.import.
type ImportResult struct {
	Imported   int        `json:"imported"`
	Skipped    int        `json:"skipped"`
	Renumbered int        `json:"renumbered"`
	Rejected   []Rejected `json:"rejected"`
}

// Rejected is an entry that was not taken, and why.
type Rejected struct {
	CheckpointID string `json:"checkpoint_id,omitempty"`
	Problem      string `json:"problem"`
}

// SubscribeParams of events.subscribe. No session is all of them, no types is every type.
type SubscribeParams struct {
	SessionRef
	Types       []checkpoint.EventType `json:"types,omitempty"`
	SinceCursor *string                `json:"since_cursor,omitempty"`
}

// SubscribeResult of events.subscribe.
type SubscribeResult struct {
	SubscriptionID string `json:"subscription_id"`
	Cursor         string `json:"cursor"`
	Fresh          bool   `json:"fresh"`
}

// UnsubscribeParams of events.unsubscribe.
type UnsubscribeParams struct {
	SubscriptionID string `json:"subscription_id"`
}

// UnsubscribeResult of events.unsubscribe.
type UnsubscribeResult struct {
	Unsubscribed bool `json:"unsubscribed"`
}

// EventNotification is the params of the notification "event".
type EventNotification struct {
	SubscriptionID string           `json:"subscription_id"`
	Cursor         string           `json:"cursor"`
	Event          checkpoint.Event `json:"event"`
}

// OverflowNotification is the params of the notification "overflow".
type OverflowNotification struct {
	SubscriptionID string `json:"subscription_id"`
	Cursor         string `json:"cursor"`
}

// CaptureRequest is the params of state.capture, which the daemon asks of an agent.
type CaptureRequest struct {
	SessionID checkpoint.ID    `json:"session_id"`
	Cause     checkpoint.Cause `json:"cause"`
}

// CaptureReply is what the agent answers.
type CaptureReply struct {
	State json.RawMessage `json:"state"`
}

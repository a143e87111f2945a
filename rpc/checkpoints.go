package rpc

import (
	"encoding/json"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// CheckpointCreateParams of checkpoint.create. A State of nil was left out; one that is
// `null` is a value. ExpectedHeadID tells left out (nil), null (zero id) and an id apart.
type CheckpointCreateParams struct {
	SessionRef
	Message        string          `json:"message"`
	Tags           []string        `json:"tags,omitempty"`
	State          json.RawMessage `json:"state,omitempty"`
	Metadata       json.RawMessage `json:"metadata,omitempty"`
	ParentID       checkpoint.ID   `json:"parent_id,omitzero"`
	ExpectedHeadID *NullableID     `json:"expected_head_id,omitempty"`
	CheckpointID   checkpoint.ID   `json:"checkpoint_id,omitzero"`
}

// NullableID is an id or JSON's null (zero).
type NullableID struct{ ID checkpoint.ID }

// MarshalJSON writes null for the zero id.
func (n NullableID) MarshalJSON() ([]byte, error) {
	if n.ID.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(n.ID)
}

// UnmarshalJSON takes an id or null.
func (n *NullableID) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		n.ID = checkpoint.ID{}
		return nil
	}
	return json.Unmarshal(b, &n.ID)
}

// CheckpointParams names a checkpoint.
type CheckpointParams struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id"`
}

// CheckpointFileParams of checkpoint.file.
type CheckpointFileParams struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id"`
	Path         string        `json:"path"`
}

// CheckpointFileResult holds Content when it is valid UTF-8, else ContentBase64.
type CheckpointFileResult struct {
	Path          string  `json:"path"`
	Mode          string  `json:"mode"`
	Bytes         int64   `json:"bytes"`
	SHA256        string  `json:"sha256"`
	Content       *string `json:"content,omitempty"`
	ContentBase64 *[]byte `json:"content_base64,omitempty"`
}

// CheckpointAtParams of checkpoint.at: exactly one of Time and Sequence.
type CheckpointAtParams struct {
	SessionRef
	Time     *time.Time `json:"time,omitempty"`
	Sequence *uint64    `json:"sequence_number,omitempty"`
}

// CheckpointListParams of checkpoint.list.
type CheckpointListParams struct {
	SessionRef
	Tags         []string           `json:"tags,omitempty"`
	AnyTag       bool               `json:"any_tag,omitempty"`
	Trigger      checkpoint.Trigger `json:"trigger,omitempty"`
	Cause        checkpoint.Cause   `json:"cause,omitempty"`
	FromSequence *uint64            `json:"from_sequence,omitempty"`
	ToSequence   *uint64            `json:"to_sequence,omitempty"`
	Since        *time.Time         `json:"since,omitempty"`
	Until        *time.Time         `json:"until,omitempty"`
	Text         string             `json:"text,omitempty"`
	Metadata     json.RawMessage    `json:"metadata,omitempty"`
	Order        string             `json:"order,omitempty"` // asc (default), desc
	Limit        int                `json:"limit,omitempty"` // default 100, 1 to 1000
	Cursor       string             `json:"cursor,omitempty"`
}

// CheckpointListResult holds summaries as rendered by the store: checkpoint.Summary each.
type CheckpointListResult struct {
	Checkpoints []json.RawMessage `json:"checkpoints"`
	NextCursor  string            `json:"next_cursor,omitempty"`
}

// RestoreParams of checkpoint.restore. MoveHead left out is true.
type RestoreParams struct {
	SessionRef
	CheckpointID checkpoint.ID `json:"checkpoint_id"`
	MoveHead     *bool         `json:"move_head,omitempty"`
}

// ForkParams of checkpoint.fork.
type ForkParams struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id"`
	Name         string        `json:"name"`
	Key          string        `json:"key,omitempty"`
}

// DiffParams of checkpoint.diff. Path is a JSON Pointer.
type DiffParams struct {
	From checkpoint.ID `json:"from"`
	To   checkpoint.ID `json:"to"`
	Path string        `json:"path,omitempty"`
}

// DiffResult is an RFC 6902 patch and its count of operations.
type DiffResult struct {
	Patch     json.RawMessage `json:"patch"`
	Summary   DiffSummary     `json:"summary"`
	Identical bool            `json:"identical"`
}

// DiffSummary counts add, remove and replace.
type DiffSummary struct {
	Added   int `json:"added"`
	Removed int `json:"removed"`
	Changed int `json:"changed"`
}

// DeleteResult of checkpoint.delete.
type DeleteResult struct {
	Deleted bool `json:"deleted"`
}

// CompactParams of checkpoint.compact.
type CompactParams struct {
	SessionRef
	checkpoint.Retention
	DryRun bool `json:"dry_run,omitempty"`
}

// CompactResult of checkpoint.compact.
type CompactResult struct {
	Deleted    int             `json:"deleted"`
	Remaining  int             `json:"remaining"`
	DeletedIDs []checkpoint.ID `json:"deleted_ids"`
}

// AnnotateParams of checkpoint.annotate.
type AnnotateParams struct {
	CheckpointID checkpoint.ID       `json:"checkpoint_id"`
	Note         string              `json:"note"`
	Severity     checkpoint.Severity `json:"severity,omitempty"` // default info
}

// ValidateResult of checkpoint.validate.
type ValidateResult struct {
	Valid    bool   `json:"valid"`
	Checksum string `json:"checksum"`
	Problem  string `json:"problem,omitempty"`
}

// ValidateAllParams of checkpoint.validate_all; no session is the whole store.
type ValidateAllParams struct{ SessionRef }

// ValidateAllResult of checkpoint.validate_all.
type ValidateAllResult struct {
	Valid     int       `json:"valid"`
	Invalid   int       `json:"invalid"`
	Skipped   int       `json:"skipped"`
	Total     int       `json:"total"`
	AllValid  bool      `json:"all_valid"`
	Problems  []Problem `json:"problems"`
	CheckedAt time.Time `json:"checked_at"`
}

// Problem is one piece of damage; Path is relative to the data directory.
type Problem struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id,omitzero"`
	Path         string        `json:"path"`
	Problem      string        `json:"problem"`
}

// HypothesisStateResult is state.hypothesis_state, or null.
type HypothesisStateResult struct {
	HypothesisState json.RawMessage `json:"hypothesis_state"`
}

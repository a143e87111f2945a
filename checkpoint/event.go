package checkpoint

import "time"

// EventType names what happened.
type EventType string

// The event types of the wire contract.
const (
	EventCreated         EventType = "created"
	EventRestored        EventType = "restored"
	EventDeleted         EventType = "deleted"
	EventCompacted       EventType = "compacted"
	EventAnnotated       EventType = "annotated"
	EventSessionCreated  EventType = "session_created"
	EventSessionClosed   EventType = "session_closed"
	EventSessionDeleted  EventType = "session_deleted"
	EventSessionReopened EventType = "session_reopened"
	EventAutoFailed      EventType = "auto_failed"
	EventCorrupt         EventType = "corrupt"
)

// EventTypes are all of them.
var EventTypes = []EventType{
	EventCreated, EventRestored, EventDeleted, EventCompacted, EventAnnotated, EventSessionCreated,
	EventSessionClosed, EventSessionDeleted, EventSessionReopened, EventAutoFailed, EventCorrupt,
}

// Event tells of one durable change. The members below Timestamp belong to single types.
type Event struct {
	Type         EventType `json:"type"`
	SessionID    ID        `json:"session_id,omitzero"` // zero only for damage that belongs to no session
	CheckpointID ID        `json:"checkpoint_id,omitzero"`
	Sequence     uint64    `json:"sequence_number,omitempty"`
	Timestamp    time.Time `json:"timestamp"`

	Trigger    Trigger `json:"trigger,omitempty"`     // created
	Cause      Cause   `json:"cause,omitempty"`       // created, auto_failed
	Deleted    int     `json:"deleted,omitempty"`     // compacted, session_deleted
	DeletedIDs []ID    `json:"deleted_ids,omitempty"` // compacted; the first 1,000
	Remaining  *int    `json:"remaining,omitempty"`   // compacted
	Problem    string  `json:"problem,omitempty"`     // auto_failed, corrupt
	Path       string  `json:"path,omitempty"`        // corrupt: relative to the data directory
	OwnerUID   *uint32 `json:"owner_uid,omitempty"`   // session_created, session_deleted
}

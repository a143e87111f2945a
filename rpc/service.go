package rpc

import (
	"context"
	"encoding/json"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Service is what the wire calls: one method for each row of the method table. Every
// error is a *checkpoint.Error. The peer is in the context: PeerFrom(ctx).
//
// A handler that changes a session calls Admit(ctx) as soon as the order of its effect is
// fixed, when that is before it returns; the next request for that session starts then.
// On a connection's end the context is not cancelled: a change that was received is made.
type Service interface {
	Info(context.Context, NoParams) (*Info, error)
	Health(context.Context, *HealthParams) (*Health, error)
	Metrics(context.Context, NoParams) (*Metrics, error)
	Prometheus(context.Context, NoParams) (*Prometheus, error)
	Sync(context.Context, NoParams) (*SyncResult, error)
	Reload(context.Context, NoParams) (*ReloadResult, error)
	Shutdown(context.Context, NoParams) (*ShutdownResult, error)

	SessionCreate(context.Context, *SessionCreateParams) (*SessionCreateResult, error)
	SessionGet(context.Context, *SessionParams) (*checkpoint.Session, error)
	SessionList(context.Context, *SessionListParams) (*SessionListResult, error)
	SessionClose(context.Context, *SessionParams) (*checkpoint.Session, error)
	SessionReopen(context.Context, *SessionParams) (*checkpoint.Session, error)
	SessionDelete(context.Context, *SessionParams) (*SessionDeleteResult, error)
	SessionPutState(context.Context, *PutStateParams) (*PutStateResult, error)
	SessionAttach(context.Context, *AttachParams) (*AttachResult, error)
	SessionDetach(context.Context, *SessionParams) (*DetachResult, error)

	CheckpointCreate(context.Context, *CheckpointCreateParams) (*checkpoint.Receipt, error)
	CheckpointGet(context.Context, *CheckpointParams) (Stored, error)
	CheckpointFile(context.Context, *CheckpointFileParams) (*CheckpointFileResult, error)
	CheckpointLatest(context.Context, *SessionParams) (Stored, error) // nil: null
	CheckpointAt(context.Context, *CheckpointAtParams) (Stored, error)
	CheckpointList(context.Context, *CheckpointListParams) (*CheckpointListResult, error)
	CheckpointRestore(context.Context, *RestoreParams) (Stored, error)
	CheckpointFork(context.Context, *ForkParams) (*checkpoint.Session, error)
	CheckpointDiff(context.Context, *DiffParams) (*DiffResult, error)
	CheckpointDelete(context.Context, *CheckpointParams) (*DeleteResult, error)
	CheckpointCompact(context.Context, *CompactParams) (*CompactResult, error)
	CheckpointAnnotate(context.Context, *AnnotateParams) (*checkpoint.Annotation, error)
	CheckpointValidate(context.Context, *CheckpointParams) (*ValidateResult, error)
	CheckpointValidateAll(context.Context, *ValidateAllParams) (*ValidateAllResult, error)
	CheckpointHypothesisState(context.Context, *CheckpointParams) (*HypothesisStateResult, error)

	AutoEnable(context.Context, *AutoEnableParams) (*checkpoint.AutoConfig, error)
	AutoDisable(context.Context, *SessionParams) (*AutoDisableResult, error)
	AutoGet(context.Context, *SessionParams) (*AutoGetResult, error)
	AutoTrigger(context.Context, *AutoTriggerParams) (*AutoTriggerResult, error)

	StoreExport(context.Context, *ExportParams) (RawResult, error)
	StoreImport(context.Context, *ImportParams) (*ImportResult, error)

	EventsSubscribe(context.Context, *SubscribeParams) (*SubscribeResult, error)
	EventsUnsubscribe(context.Context, *UnsubscribeParams) (*UnsubscribeResult, error)

	// Disconnected is called once after a connection's last request was answered or given up.
	Disconnected(Peer)
}

// Stored is a checkpoint as the store verified it. The server writes Raw, which is the
// wire's Checkpoint less checksum and annotations, with no copy through Go values; the
// client decodes into checkpoint.Checkpoint. A nil *StoredCheckpoint is null.
type Stored = *StoredCheckpoint

// StoredCheckpoint holds the bytes of one verified checkpoint.
type StoredCheckpoint struct {
	Raw         []byte // the stored JSON object
	State       []byte // the part of Raw that is the state
	Checksum    string
	Annotations []checkpoint.Annotation
}

// RawResult is a result that is JSON already.
type RawResult []byte

// NoParams is for methods that take none.
type NoParams struct{}

// SessionRef names a session by exactly one of its members.
type SessionRef struct {
	SessionID checkpoint.ID `json:"session_id,omitzero"`
	Key       string        `json:"key,omitempty"`
}

// SessionParams names a session and nothing else.
type SessionParams struct{ SessionRef }

// Info answers daemon.info.
type Info struct {
	Name         string    `json:"name"`
	Version      string    `json:"version"`
	API          API       `json:"api"`
	StoreFormat  int       `json:"store_format"`
	PID          int       `json:"pid"`
	StartedAt    time.Time `json:"started_at"`
	Socket       string    `json:"socket"`
	Driver       string    `json:"driver"`
	DataDir      string    `json:"data_dir"`
	Capabilities []string  `json:"capabilities"`
}

// API is the version of the wire: another major does not understand this one.
type API struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
}

// APIVersion is the one that this package speaks.
var APIVersion = API{Major: 1, Minor: 0}

// HealthParams of daemon.health.
type HealthParams struct {
	Validate bool `json:"validate,omitempty"`
	Recent   int  `json:"recent,omitempty"` // default 5
}

// Health answers daemon.health.
type Health struct {
	Healthy bool          `json:"healthy"`
	Message string        `json:"message"`
	Checked int           `json:"checked"`
	Invalid int           `json:"invalid"`
	Checks  []HealthCheck `json:"checks"`
}

// HealthCheck is one line of it.
type HealthCheck struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
}

// Metrics answers daemon.metrics.
type Metrics struct {
	TotalCheckpoints     int              `json:"total_checkpoints"`
	ActiveSessions       int              `json:"active_sessions"`
	TotalSessionsCreated uint64           `json:"total_sessions_created"`
	GlobalSequence       uint64           `json:"global_sequence"`
	StoreBytes           int64            `json:"store_bytes"`
	Subscribers          int              `json:"subscribers"`
	Connections          int              `json:"connections"`
	Automatic            AutomaticMetrics `json:"automatic"`
	UptimeSeconds        float64          `json:"uptime_seconds"`
	CreatesTotal         uint64           `json:"creates_total"`
	RestoresTotal        uint64           `json:"restores_total"`
	RedactedTotal        uint64           `json:"redacted_total"`
	OverflowsTotal       uint64           `json:"overflows_total"`
	ErrorsTotal          uint64           `json:"errors_total"`
	UnpublishedRecords   int              `json:"unpublished_records"`
	QuarantinedFiles     int              `json:"quarantined_files"`
	JournalBytes         int64            `json:"journal_bytes"`
	BlobBytes            int64            `json:"blob_bytes"`
	InFlightBytes        int64            `json:"in_flight_bytes"`
}

// AutomaticMetrics counts what the triggers did, since the store was made.
type AutomaticMetrics struct {
	Taken   uint64 `json:"taken"`
	Skipped uint64 `json:"skipped"`
	Failed  uint64 `json:"failed"`
}

// Prometheus answers daemon.prometheus with OpenMetrics text.
type Prometheus struct {
	Text string `json:"text"`
}

// SyncResult of daemon.sync.
type SyncResult struct {
	Sequence uint64 `json:"sequence_number"`
}

// ReloadResult of daemon.reload.
type ReloadResult struct {
	Reloaded   bool     `json:"reloaded"`
	Config     string   `json:"config"`           // the file, or "" for the defaults
	Generation int      `json:"generation"`       // counts reloads
	NeedsStart []string `json:"restart_to_apply"` // keys that changed and wait for a restart
}

// ShutdownResult of daemon.shutdown.
type ShutdownResult struct {
	Draining bool `json:"draining"`
}

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
	// AfterSequence leaves out the checkpoints up to this number; it goes with the first page.
	AfterSequence uint64 `json:"after_sequence,omitempty"`
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

// Peer is the program at the other end of a connection, as the kernel names it.
type Peer interface {
	// UID, GID and PID are the socket's peer credentials.
	UID() uint32
	GID() uint32
	PID() int
	// ConnID is unique in this process.
	ConnID() uint64
	// Call sends the peer a request and decodes its result.
	Call(ctx context.Context, method string, params, result any) error
	// Alive reports that the process PID still runs and is the one that connected: what
	// was read from /proc/PID before a true answer is that process's (SO_PEERPIDFD).
	Alive() bool
	// Notify queues a notification and never waits. It reports false, and queues nothing,
	// when the peer has not read enough of those before it.
	Notify(method string, params any) bool
	// NotifyWait is Notify that waits for room, until ctx or the connection ends.
	NotifyWait(ctx context.Context, method string, params any) error
	// Done is closed when the connection ends.
	Done() <-chan struct{}
}

type ctxKey int

const (
	peerKey ctxKey = iota
	admitKey
	receivedKey
	afterKey
)

// PeerFrom returns the caller.
func PeerFrom(ctx context.Context) Peer { p, _ := ctx.Value(peerKey).(Peer); return p }

// WithPeer is for servers and tests.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey, p)
}

// Admit says that the caller's place in the session's order is fixed: the connection's
// next request for the session may start. It may be called more than once, and need not be.
func Admit(ctx context.Context) {
	if f, ok := ctx.Value(admitKey).(func()); ok {
		f()
	}
}

// WithAdmit is for servers and tests.
func WithAdmit(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, admitKey, f)
}

// Received is when the request's last byte was read: while draining, creates received
// before the drain began are still made. Zero when the context is no request's.
func Received(ctx context.Context) time.Time {
	t, _ := ctx.Value(receivedKey).(time.Time)
	return t
}

// WithReceived is for servers and tests.
func WithReceived(ctx context.Context, t time.Time) context.Context {
	return context.WithValue(ctx, receivedKey, t)
}

// AfterReply runs f as soon as the reply to this request has its place in the connection's
// output, so that what f sends comes after it; not at all when the connection is gone.
// f must not block. Outside a server f runs at once.
func AfterReply(ctx context.Context, f func()) {
	if after, ok := ctx.Value(afterKey).(func(func())); ok {
		after(f)
		return
	}
	f()
}

// WithAfterReply is for servers and tests: after is handed each f.
func WithAfterReply(ctx context.Context, after func(f func())) context.Context {
	return context.WithValue(ctx, afterKey, after)
}

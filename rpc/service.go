package rpc

import (
	"context"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Service is what the wire calls: one method for each row of the method table. Every
// error is a *checkpoint.Error. The peer is in the context: PeerFrom(ctx).
//
// A handler that changes a session calls Admit(ctx) as soon as the order of its effect is
// fixed, when that is before it returns; the next request for that session starts then.
// On a connection's end the context is not cancelled: a change that was received is made.
//
// Raw params are parts of the message that was received. Once CheckpointCreate has returned
// without an error its params are used for the next one: what is kept must be a copy.
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

// HealthCheck is one line of it. Path is where the checked thing is, when it is a file.
type HealthCheck struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
	Path    string `json:"path,omitempty"`
}

// FileSystemCheck is the check whose path is the store's directory.
const FileSystemCheck = "file_system"

// DataDir is the directory of the daemon's store, "" when it keeps none.
func (h *Health) DataDir() string {
	for _, c := range h.Checks {
		if c.Name == FileSystemCheck {
			return c.Path
		}
	}
	return ""
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
	// Sessions are those of newest activity, at most 20, that the caller may see.
	Sessions []SessionUsage `json:"sessions"`
}

// SessionUsage is what a session holds and costs on disk.
type SessionUsage struct {
	SessionID   checkpoint.ID `json:"session_id"`
	Key         string        `json:"key,omitempty"`
	Name        string        `json:"name"`
	Checkpoints int           `json:"checkpoints"`
	Bytes       int64         `json:"bytes"` // its own files and the chunks of captured files that it names
	// BlobBytes are the chunks among Bytes; those that another session names too count for both.
	BlobBytes int64 `json:"blob_bytes"`
	Partial   bool  `json:"partial,omitempty"` // counting took too long: it is at least so much
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

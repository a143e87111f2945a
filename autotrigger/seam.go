package autotrigger

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Request asks for one checkpoint. It has passed the gate: only content can still skip it.
type Request struct {
	Session checkpoint.ID
	Cause   checkpoint.Cause
	Message string          // never empty
	Detail  json.RawMessage // nil: none
	State   json.RawMessage // nil: the taker finds one
	// ToolCallID is the agent's id of the finished call that cause tool_call or error is
	// about, or the id of a hook's event; "" when there is none. A taker that derives the checkpoint's id from session
	// and ToolCallID, and answers an id that is there already with its receipt, makes a
	// call that is seen again after a crash one checkpoint still.
	ToolCallID string
	// SkipUnchanged asks the taker to compare state and Files with the newest checkpoint
	// and to answer Unchanged when they are equal.
	SkipUnchanged bool
	// Files are the watched and captured files, read already; contents are shared, not to be written to.
	Files []File
	// Problems tell which files could not be captured, and why. The checkpoint is taken
	// without them; the taker reports them in an auto_failed event.
	Problems []string
	// AutoState is what Save would be given once this checkpoint is taken. A taker that
	// keeps it in one step with the checkpoint says so in Outcome.Saved: then the place in a
	// followed transcript and its newest checkpoint cannot part, and nothing is saved again.
	AutoState json.RawMessage
}

// File is one captured file.
type File struct {
	Path       string // absolute, as configured or matched
	Mode       uint32 // permission bits
	ModifiedAt time.Time
	Content    []byte
}

// Skipped says why a trigger took no checkpoint; the wire sends it as it is.
type Skipped string

// The reasons.
const (
	NotEnabled Skipped = "not_enabled"
	Throttled  Skipped = "throttled"
	Unchanged  Skipped = "unchanged"
)

// Outcome is a checkpoint, or why there is none.
type Outcome struct {
	CheckpointID checkpoint.ID
	Sequence     uint64
	Timestamp    time.Time // of the checkpoint
	Skipped      Skipped
	Existing     bool // the tool call had its checkpoint already
	Saved        bool // Request.AutoState was kept with it
}

// Options of New. Take is required; zero limits are the defaults.
type Options struct {
	// Take makes a checkpoint durable. It is never called twice at once for one session.
	// The context ends only with the engine (or with Trigger's caller). An error that is a
	// *checkpoint.Error with Retry set, or of kind invalid_state, makes a followed
	// transcript wait and try the same call again.
	Take func(context.Context, Request) (Outcome, error)
	// Save keeps a session's opaque state; the next Set of the session hands it back.
	Save func(context.Context, checkpoint.ID, json.RawMessage) error
	// Load reads what Save was last given, for a Trigger of a session that was never Set; nil: none.
	Load func(context.Context, checkpoint.ID) (json.RawMessage, error)
	// Report, when not nil, is told of each trigger after it was decided: skipped ones,
	// failed ones (err) and taken ones. It must not call the engine.
	Report func(Trigger, Outcome, error)
	// Parser makes the reader of a watch's format; nil: transcript.New.
	Parser NewParser
	Logger *slog.Logger // nil: discard
	// StoreDir must not be watched: every checkpoint would cause the next. "" for none.
	StoreDir string

	Workers       int           // checkpoints made at once by timers and watches; default 16
	StartsPerSec  int           // timers that may start in one second, so that 10,000 due ones do not come at once; default 500
	FileBytes     int64         // the largest file captured; default 16 MiB
	TotalBytes    int64         // captured in one checkpoint; default 64 MiB
	LineBytes     int           // the longest transcript line that is parsed, longer ones are skipped; default 16 MiB
	MaxFiles      int           // files captured in one checkpoint; default 10,000
	LockWait      time.Duration // how long .git/index.lock holds a change back; default 30 s
	VerifyEvery   time.Duration // looks for changes that the kernel did not tell; default 30 s
	SaveEvery     time.Duration // state is saved this long after it changed; default 5 s
	SaveCounts    time.Duration // counts alone wait longer; default 1 min
	RetryEvery    time.Duration // the first pause after a failed Take or a failed watch; doubles to 1 min; default 1 s
	DefaultWindow time.Duration // throttles significant_time_passed where no interval is set; default 300 s
}

// Trigger is something that happened in a session.
type Trigger struct {
	Session checkpoint.ID
	Cause   checkpoint.Cause
	Message string          // "": one is made from the cause
	Detail  json.RawMessage // its member "id" names the tool call of tool_call and error
	State   json.RawMessage
	// Newest is the time of the session's newest checkpoint as far as the caller knows; it
	// matters only for a session that was never Set.
	Newest time.Time
	// Always takes it whatever the session's configuration says: the daemon's own
	// disconnect and the last checkpoint of unsaved state.
	Always bool
}

// Status is what auto.get tells beside the configuration.
type Status struct {
	NextRuns               []time.Time // up to three
	LastRun                time.Time   // the last trigger that was taken, skipped as unchanged, or failed
	LastError              string      // of the newest failure; "" after the next success
	Taken, Skipped, Failed uint64
}

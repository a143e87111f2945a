// Package storage keeps checkpoints so that nothing acknowledged is lost and nothing
// damaged is returned. Store is the contract; Open gives the driver that is a directory
// of checksummed JSON files, or the same in memory. storage/storagetest proves a driver
// against the contract, and FORMAT.md describes every byte on disk.
package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Store is one store, opened by one process. A method that changes something returns when
// the change is on stable storage; one that fails has changed nothing, or says so by
// making the store read-only. Every error is a *checkpoint.Error. Safe for concurrent use.
type Store interface {
	// CreateSession makes a session, or returns the existing one with that id or key
	// unchanged and true. A known key with another id: conflict.
	CreateSession(ctx context.Context, s NewSession) (checkpoint.Session, bool, error)
	// Session finds by id or key: not_found.
	Session(ctx context.Context, ref Ref) (checkpoint.Session, error)
	// Sessions lists, newest activity first.
	Sessions(ctx context.Context, q SessionQuery) (SessionPage, error)
	// ChangeSession applies the members of c that are set, as one change.
	ChangeSession(ctx context.Context, id checkpoint.ID, c SessionChange) (checkpoint.Session, error)
	// DeleteSession removes a session and its checkpoints, and says how many those were.
	DeleteSession(ctx context.Context, id checkpoint.ID) (int, error)
	// AutoState returns what the last SessionChange.AutoState held, or nil.
	AutoState(ctx context.Context, id checkpoint.ID) (json.RawMessage, error)
	// Usage says what a session holds and costs on disk. It reads the checkpoints that captured
	// files; when ctx ends meanwhile, what was counted until then is the answer.
	Usage(ctx context.Context, id checkpoint.ID) (Usage, error)

	// Submit queues a create and returns as soon as its place in the session's order is
	// fixed: creates of one session take rising numbers in the order of their Submit calls,
	// and a change to that session called after Submit returned comes after it. done is
	// called once, from another goroutine, when the create is durable or refused; it must
	// not block. c belongs to the store until then. Cancelling ctx does not undo a submitted create.
	Submit(ctx context.Context, c *NewCheckpoint, done func(checkpoint.Receipt, error))
	// Get reads and verifies one checkpoint: not_found, corrupt.
	Get(ctx context.Context, id checkpoint.ID) (*Stored, error)
	// Summary is what List would show of one checkpoint, from the index; damage is not looked for.
	Summary(ctx context.Context, id checkpoint.ID) (checkpoint.Summary, error)
	// Latest reads the session's newest checkpoint; nil when it has none. A damaged newest
	// one is corrupt, with Data["previous"] the id of the newest sound one.
	Latest(ctx context.Context, session checkpoint.ID) (*Stored, error)
	// At reads the checkpoint with the highest number among those not after the time or number; nil for none.
	At(ctx context.Context, session checkpoint.ID, p Point) (*Stored, error)
	// List shows summaries in sequence order.
	List(ctx context.Context, q Query) (Page, error)
	// Restore reads, verifies and, with moveHead, makes it the session's head.
	// One of another session: not_found.
	Restore(ctx context.Context, session, id checkpoint.ID, moveHead bool) (*Stored, error)
	// Fork makes a session whose first checkpoint is a copy of id, as one change.
	Fork(ctx context.Context, id checkpoint.ID, s NewSession) (checkpoint.Session, error)
	// Delete removes one checkpoint.
	Delete(ctx context.Context, id checkpoint.ID) error
	// Compact removes what no rule keeps, as one change; dryRun only tells.
	Compact(ctx context.Context, session checkpoint.ID, rules checkpoint.Retention, opts CompactOptions) (Compaction, error)
	// Annotate adds a note for good.
	Annotate(ctx context.Context, id checkpoint.ID, note string, severity checkpoint.Severity) (checkpoint.Annotation, error)
	// ReadFile returns one file of Context.Files, verified.
	ReadFile(ctx context.Context, id checkpoint.ID, path string) (checkpoint.File, []byte, error)

	// Validate reads the stored bytes again.
	Validate(ctx context.Context, id checkpoint.ID) (Verdict, error)
	// Inspect is Validate that changes nothing: damage stays where it is, unmarked.
	Inspect(ctx context.Context, id checkpoint.ID) (Verdict, error)
	// ValidateAll reads everything again, of one session or (zero id) of the whole store,
	// bookkeeping files included. pace, if not nil, is told of bytes before they are read.
	ValidateAll(ctx context.Context, session checkpoint.ID, pace func(bytes int64) error) (Report, error)

	// Export renders one page, at most maxBytes long, in the wire's shape.
	Export(ctx context.Context, q ExportQuery) (ExportPage, error)
	// Import takes one page of this store's export or of forge-reasoning 0.1.
	Import(ctx context.Context, page []byte, owner uint32) (ImportResult, error)

	// Events returns durable events after a cursor, in order. An empty cursor is "from now on".
	Events(ctx context.Context, cursor string, limit int) (EventPage, error)
	// EventsChanged is closed when there are newer events than at the time of the call.
	EventsChanged() <-chan struct{}
	// LogEvent adds an event that is no change of the store's own (auto_failed, corrupt).
	LogEvent(e checkpoint.Event)

	// Sync returns when all that was acknowledged is durable and published as its own file.
	Sync(ctx context.Context) (sequence uint64, err error)
	// Stats counts, without reading bodies.
	Stats(ctx context.Context) (Stats, error)
	// Health says what is wrong, if anything. It costs no I/O beyond a statfs.
	Health() Health
	// Close finishes what is queued, publishes it and releases the lock.
	Close() error
}

// Create is Submit for callers that wait.
func Create(ctx context.Context, s Store, c *NewCheckpoint) (checkpoint.Receipt, error) {
	type result struct {
		r   checkpoint.Receipt
		err error
	}
	ch := make(chan result, 1)
	s.Submit(ctx, c, func(r checkpoint.Receipt, err error) { ch <- result{r, err} })
	r := <-ch
	return r.r, r.err
}

// Ref names a session by id or, where the id is zero, by key.
type Ref struct {
	ID  checkpoint.ID
	Key string
}

// NewSession is what a client may choose. A zero ID gets a version 7 one.
type NewSession struct {
	ID       checkpoint.ID
	Key      string
	Name     string
	Labels   map[string]string
	OwnerUID uint32
	Auto     *checkpoint.AutoConfig
}

// SessionChange changes the members that are not nil.
type SessionChange struct {
	Status *checkpoint.Status // sends session_closed, session_reopened; the same again changes nothing
	// Auto points at the new configuration; a pointer to nil takes it away.
	Auto **checkpoint.AutoConfig
	// AutoState is opaque to the store; it is kept with the session and never sent.
	AutoState json.RawMessage
	// Name and Labels are for sessions that a configuration file names.
	Name   *string
	Labels *map[string]string
}

// SessionQuery selects sessions; zero members select all.
type SessionQuery struct {
	Status checkpoint.Status
	Labels map[string]string
	Owner  *uint32
	Limit  int
	Cursor string
}

// SessionPage is one page; an empty Next is the last.
type SessionPage struct {
	Sessions []checkpoint.Session
	Next     string
}

// NewCheckpoint is a create. State, Metadata and Context.Detail are JSON with no new line
// and no white space between tokens, as package rawjson leaves them.
type NewCheckpoint struct {
	ID        checkpoint.ID // zero: a new one
	SessionID checkpoint.ID
	Message   string
	Tags      []string
	Trigger   checkpoint.Trigger
	Cause     checkpoint.Cause
	ParentID  checkpoint.ID // zero: the session's head at that moment
	// ExpectedHead, when not nil, must be the session's head (zero: none): conflict with Data["head_id"].
	ExpectedHead *checkpoint.ID
	Metadata     json.RawMessage // nil: absent
	State        json.RawMessage
	Context      checkpoint.Context // Files is filled in from Files
	Files        []FileContent
	// AutoState, when not nil, becomes the session's with the checkpoint or not at all, as
	// SessionChange.AutoState would. A create whose id is there already leaves it.
	AutoState json.RawMessage
}

// FileContent is a captured file.
type FileContent struct {
	Path       string
	Mode       uint32
	ModifiedAt time.Time
	Content    []byte
}

// Stored is a checkpoint read back and verified.
type Stored struct {
	Summary checkpoint.Summary
	// Raw is the JSON object that the checksum is over, exactly as stored: the wire's
	// Checkpoint less its checksum and annotations.
	Raw []byte
	// State is the part of Raw that is the client's state.
	State       []byte
	Annotations []checkpoint.Annotation
}

// Point is a time or, where the time is zero, a sequence number.
type Point struct {
	Time     time.Time
	Sequence uint64
}

// Query selects checkpoints; zero members select all. Ranges are inclusive.
type Query struct {
	SessionID  checkpoint.ID
	Owner      *uint32 // only sessions of this uid
	Tags       []string
	AnyTag     bool
	Trigger    checkpoint.Trigger
	Cause      checkpoint.Cause
	From, To   uint64
	Since      time.Time
	Until      time.Time
	Text       string
	Metadata   json.RawMessage // an object whose members must be equal
	Descending bool
	Limit      int
	Cursor     string
}

// Page holds summaries rendered as the wire's JSON; an empty Next is the last page.
type Page struct {
	Summaries []json.RawMessage
	Next      string
}

// CompactOptions go with the rules.
type CompactOptions struct {
	DryRun bool
	// KeepNewest keeps the newest checkpoint whatever the rules say: retention by itself never removes it.
	KeepNewest bool
	Now        time.Time
}

// Compaction is what went and what stayed.
type Compaction struct {
	Deleted    int
	Remaining  int
	DeletedIDs []checkpoint.ID
}

// Verdict is the outcome of reading one checkpoint's bytes again.
type Verdict struct {
	Valid    bool
	Checksum string
	Problem  string
}

// Problem is one piece of damage. Path is relative to the data directory.
type Problem struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id,omitzero"`
	Path         string        `json:"path"`
	Problem      string        `json:"problem"`
}

// Report is the outcome of ValidateAll and Fsck. Skipped counts what an I/O error kept from
// being read. Newest, from Fsck only, is the latest time of any checkpoint.
type Report struct {
	Valid, Invalid, Skipped, Total int
	Problems                       []Problem
	Newest                         time.Time
}

// ExportQuery asks for one page; zero SessionID is the whole store.
type ExportQuery struct {
	SessionID checkpoint.ID
	Owner     *uint32
	Cursor    string
	MaxBytes  int
}

// ExportAfter is the Cursor of an export that leaves out the checkpoints up to a number.
func ExportAfter(number uint64) string { return fmt.Sprintf("%s%d", exportAfter, number) }

// ExportPage is a page's JSON object and the cursor of the next one (also inside it).
type ExportPage struct {
	JSON []byte
	Next string
}

// ImportResult counts what a page brought.
type ImportResult struct {
	Imported   int        `json:"imported"`
	Skipped    int        `json:"skipped"`
	Renumbered int        `json:"renumbered"`
	Rejected   []Rejected `json:"rejected"`
}

// Rejected is an entry that was not taken, and why.
type Rejected struct {
	CheckpointID string `json:"checkpoint_id,omitempty"` // as written in the page, cut at 64 bytes
	Problem      string `json:"problem"`
}

// EventRecord is an event and the cursor that resumes after it.
type EventRecord struct {
	Cursor string
	Event  checkpoint.Event
}

// EventPage is what came after a cursor. Fresh says that the cursor is too old (or was
// empty): events may be missing before Events, and Cursor is where to go on.
type EventPage struct {
	Events []EventRecord
	Cursor string
	Fresh  bool
}

// Usage is what a session holds and costs on disk, in the files' lengths.
type Usage struct {
	Checkpoints int
	Bytes       int64 // its own files
	// BlobBytes are the chunks of captured files that it names, each once. Those that
	// another session names too count for both.
	BlobBytes int64
	Partial   bool // ctx ended before all was counted
}

// Stats are the store's counters.
type Stats struct {
	Checkpoints     int
	Sessions        int
	ActiveSessions  int
	SessionsCreated uint64 // since the store was made
	Sequence        uint64 // the highest number given
	Bytes           int64
	JournalBytes    int64
	Unpublished     int // records that are only in the journal yet
	Quarantined     int
	BlobBytes       int64
}

// Check is one line of a health report.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
}

// Health is the store's own view. ReadOnly is set after a failure whose outcome is
// unknown, until restart, and while the medium refuses writes.
type Health struct {
	ReadOnly bool
	Checks   []Check
}

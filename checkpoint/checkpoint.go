package checkpoint

import (
	"encoding/json"
	"time"
)

// Trigger says who asked for a checkpoint.
type Trigger string

// The triggers of the wire contract.
const (
	Manual    Trigger = "manual"    // a client's checkpoint.create
	Scheduled Trigger = "scheduled" // a timer: cause interval or cron
	Automatic Trigger = "automatic" // anything else that was seen to happen
)

// Cause says what made the daemon take a checkpoint by itself.
type Cause string

// The causes of the wire contract; the last eight are those of forge-reasoning.
const (
	CauseInterval   Cause = "interval"
	CauseCron       Cause = "cron"
	CauseError      Cause = "error"
	CauseToolCall   Cause = "tool_call"
	CauseFileChange Cause = "file_change"
	CausePrompt     Cause = "prompt"
	CauseDisconnect Cause = "disconnect"

	CauseHypothesisStatusChange   Cause = "hypothesis_status_change"
	CauseNewContradictionDetected Cause = "new_contradiction_detected"
	CauseVerificationComplete     Cause = "verification_complete"
	CauseBranchSwitch             Cause = "branch_switch"
	CauseGapFilled                Cause = "gap_filled"
	CauseCodeModified             Cause = "code_modified"
	CauseSignificantTimePassed    Cause = "significant_time_passed"
	CauseContextCompactionWarning Cause = "context_compaction_warning"
)

// SeedCauses are the eight that every session takes unless its AutoConfig says otherwise.
var SeedCauses = []Cause{
	CauseHypothesisStatusChange, CauseNewContradictionDetected, CauseVerificationComplete, CauseBranchSwitch,
	CauseGapFilled, CauseCodeModified, CauseSignificantTimePassed, CauseContextCompactionWarning,
}

// Causes are all of them.
var Causes = append([]Cause{
	CauseInterval, CauseCron, CauseError, CauseToolCall, CauseFileChange, CausePrompt, CauseDisconnect,
}, SeedCauses...)

// Trigger is the trigger that belongs to a cause; no cause means a client asked.
func (c Cause) Trigger() Trigger {
	switch c {
	case "":
		return Manual
	case CauseInterval, CauseCron:
		return Scheduled
	}
	return Automatic
}

// Checkpoint is one kept state, whole. State and Metadata are the client's own bytes.
type Checkpoint struct {
	ID          ID              `json:"id"`
	SessionID   ID              `json:"session_id"`
	Sequence    uint64          `json:"sequence_number"`
	Timestamp   time.Time       `json:"timestamp"`
	Message     string          `json:"message"`
	Tags        []string        `json:"tags"`
	Trigger     Trigger         `json:"trigger"`
	Cause       Cause           `json:"cause,omitempty"`
	ParentID    ID              `json:"parent_id,omitzero"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	State       json.RawMessage `json:"state"`
	Context     Context         `json:"context"`
	Checksum    string          `json:"checksum"`
	Annotations []Annotation    `json:"annotations,omitempty"`
}

// Summary is a checkpoint without its state, context and annotations.
type Summary struct {
	ID              ID              `json:"id"`
	SessionID       ID              `json:"session_id"`
	Sequence        uint64          `json:"sequence_number"`
	Timestamp       time.Time       `json:"timestamp"`
	Message         string          `json:"message"`
	Tags            []string        `json:"tags"`
	Trigger         Trigger         `json:"trigger"`
	Cause           Cause           `json:"cause,omitempty"`
	ParentID        ID              `json:"parent_id,omitzero"`
	Metadata        json.RawMessage `json:"metadata,omitempty"`
	Checksum        string          `json:"checksum"`
	StateBytes      int64           `json:"state_bytes"`
	HasNotes        bool            `json:"has_notes"`
	AnnotationCount int             `json:"annotation_count"`
	Corrupt         bool            `json:"corrupt,omitempty"`
}

// Receipt acknowledges a create: what it tells is on stable storage.
type Receipt struct {
	CheckpointID ID        `json:"checkpoint_id"`
	SessionID    ID        `json:"session_id"`
	Sequence     uint64    `json:"sequence_number"`
	Timestamp    time.Time `json:"timestamp"`
	Checksum     string    `json:"checksum"`
	Existing     bool      `json:"existing"`
}

// StateSource says where an automatic checkpoint's state came from.
type StateSource string

// The sources, in the order in which they are tried.
const (
	StateGiven    StateSource = "given"     // the request held it
	StateAttached StateSource = "attached"  // the attached agent answered state.capture
	StatePut      StateSource = "put_state" // the last session.put_state
	StateFiles    StateSource = "files"     // the watched and captured files
	StateNone     StateSource = "none"      // there was none: {}
)

// Context is what the daemon itself saw when the checkpoint was made. WorkingDir and
// EnvVars are the agent's, read from its process.
type Context struct {
	CapturedAt  time.Time         `json:"captured_at"`
	StartedAt   time.Time         `json:"started_at"`
	PID         int               `json:"pid,omitempty"`
	UID         *uint32           `json:"uid,omitempty"`
	WorkingDir  string            `json:"working_dir,omitempty"`
	EnvVars     map[string]string `json:"env_vars"`
	Hostname    string            `json:"hostname"`
	Git         *Git              `json:"git,omitempty"`
	Files       []File            `json:"files,omitempty"`
	StateSource StateSource       `json:"state_source"`
	Metrics     map[string]uint64 `json:"metrics"`
	Detail      json.RawMessage   `json:"trigger_detail,omitempty"`
	// ImportedSequence is the number that an imported checkpoint had where it came from,
	// kept when that number was taken here.
	ImportedSequence uint64 `json:"imported_sequence_number,omitempty"`
}

// Git is the state of the agent's work tree.
type Git struct {
	Head   string `json:"head"`
	Branch string `json:"branch"`
	Dirty  bool   `json:"dirty"`
}

// File names one captured file; its content is kept apart, by its SHA-256.
type File struct {
	Path       string    `json:"path"`
	Mode       string    `json:"mode"` // four octal digits: "0644"
	Bytes      int64     `json:"bytes"`
	SHA256     string    `json:"sha256"` // 64 lower-case hex digits
	ModifiedAt time.Time `json:"modified_at"`
}

// Severity grades an annotation.
type Severity string

// The severities of the wire contract.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Annotation is a note added to a checkpoint after it was made.
type Annotation struct {
	ID        ID        `json:"id"`
	Note      string    `json:"note"`
	Severity  Severity  `json:"severity"`
	Timestamp time.Time `json:"timestamp"`
}

package checkpoint

import "time"

// Status of a session.
type Status string

// The statuses of the wire contract.
const (
	Active Status = "active"
	Closed Status = "closed"
)

// Session groups the checkpoints of one agent's run.
type Session struct {
	ID              ID                `json:"id"`
	Key             string            `json:"key,omitempty"`
	Name            string            `json:"name"`
	Labels          map[string]string `json:"labels"`
	OwnerUID        uint32            `json:"owner_uid"`
	Status          Status            `json:"status"`
	HeadID          ID                `json:"head_id,omitzero"`
	CreatedAt       time.Time         `json:"created_at"`
	UpdatedAt       time.Time         `json:"updated_at"`
	Parent          *Parent           `json:"parent,omitempty"`
	Auto            *AutoConfig       `json:"auto,omitempty"`
	CheckpointCount int               `json:"checkpoint_count"`
	Last            *Last             `json:"last_checkpoint,omitempty"`
}

// Parent is where a forked session comes from.
type Parent struct {
	SessionID    ID `json:"session_id"`
	CheckpointID ID `json:"checkpoint_id"`
}

// Last points at a session's newest checkpoint.
type Last struct {
	ID        ID        `json:"id"`
	Sequence  uint64    `json:"sequence_number"`
	Timestamp time.Time `json:"timestamp"`
}

// AutoConfig says when the daemon takes checkpoints of a session by itself. A zero
// value is not the default: decode onto DefaultAuto().
type AutoConfig struct {
	IntervalSeconds int64      `json:"interval_seconds" yaml:"interval_seconds"` // 0: off
	Cron            string     `json:"cron" yaml:"cron"`
	OnError         bool       `json:"on_error" yaml:"on_error"`
	OnToolCall      bool       `json:"on_tool_call" yaml:"on_tool_call"`
	Causes          []Cause    `json:"causes" yaml:"causes"` // among SeedCauses
	MinGapSeconds   int64      `json:"min_gap_seconds" yaml:"min_gap_seconds"`
	SkipUnchanged   bool       `json:"skip_unchanged" yaml:"skip_unchanged"`
	Watch           []Watch    `json:"watch" yaml:"watch"`
	Capture         Capture    `json:"capture" yaml:"capture"`
	Retention       *Retention `json:"retention,omitempty" yaml:"retention"`
}

// Watch is one file, glob or tree whose changes take checkpoints, or with Format a
// transcript that is followed as it grows. A zero value is not the default: DefaultWatch().
type Watch struct {
	Path       string   `json:"path" yaml:"path"`
	Recursive  bool     `json:"recursive,omitempty" yaml:"recursive"`
	Ignore     []string `json:"ignore" yaml:"ignore"`
	DebounceMS int64    `json:"debounce_ms" yaml:"debounce_ms"`
	MaxWaitMS  int64    `json:"max_wait_ms" yaml:"max_wait_ms"`
	Cause      Cause    `json:"cause" yaml:"cause"`
	Format     string   `json:"format,omitempty" yaml:"format"` // claude-code, codex, gemini, jsonl
	FromStart  bool     `json:"from_start" yaml:"from_start"`
	Match      *Match   `json:"match,omitempty" yaml:"match"` // for format jsonl
}

// Match tells tool calls and errors of a jsonl log: every dotted member equals its value.
type Match struct {
	ToolCall map[string]any `json:"tool_call,omitempty" yaml:"tool_call"`
	Error    map[string]any `json:"error,omitempty" yaml:"error"`
}

// Capture adds to what an automatic checkpoint holds.
type Capture struct {
	Env   []string `json:"env" yaml:"env"`
	Files []string `json:"files" yaml:"files"`
	Git   bool     `json:"git" yaml:"git"`
}

// Retention is a set of rules; a checkpoint is kept when any given rule keeps it.
// A nil pointer is no rule, a pointer to 0 is one.
type Retention struct {
	KeepRecent    *int64   `json:"keep_recent,omitempty" yaml:"keep_recent"`
	PreserveTags  []string `json:"preserve_tags,omitempty" yaml:"preserve_tags"`
	KeepManual    bool     `json:"keep_manual,omitempty" yaml:"keep_manual"`
	KeepTagged    bool     `json:"keep_tagged,omitempty" yaml:"keep_tagged"`
	MaxAgeSeconds *int64   `json:"max_age_seconds,omitempty" yaml:"max_age_seconds"`
	KeepHourly    *int64   `json:"keep_hourly,omitempty" yaml:"keep_hourly"`
	KeepDaily     *int64   `json:"keep_daily,omitempty" yaml:"keep_daily"`
}

// IsZero says that no rule is given.
func (r Retention) IsZero() bool {
	return r.KeepRecent == nil && len(r.PreserveTags) == 0 && !r.KeepManual && !r.KeepTagged &&
		r.MaxAgeSeconds == nil && r.KeepHourly == nil && r.KeepDaily == nil
}

// DefaultAuto is what auto.enable {} gives where the configuration says nothing.
func DefaultAuto() AutoConfig {
	return AutoConfig{
		IntervalSeconds: 300, OnError: true, Causes: append([]Cause(nil), SeedCauses...), SkipUnchanged: true,
		Watch: []Watch{}, Capture: Capture{Env: []string{}, Files: []string{}},
	}
}

// DefaultWatch is a watch without its path.
func DefaultWatch() Watch {
	return Watch{Ignore: []string{}, DebounceMS: 500, MaxWaitMS: 10000, Cause: CauseFileChange}
}

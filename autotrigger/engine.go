package autotrigger

import (
	"context"
	"encoding/json"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Automation is what the daemon calls on an Engine. All methods are safe for concurrent use.
type Automation interface {
	// Run works until ctx ends: it arms watches, starts what is due, saves state, and
	// returns after the last goroutine it started. It runs once.
	Run(ctx context.Context) error
	// Ready is closed when Run has armed the watches of every session that was Set before it.
	Ready() <-chan struct{}
	// Set starts or changes a session's automation; a nil cfg ends it and keeps its counts.
	// newest is the time of its newest checkpoint (zero: none) and saved what Save was last
	// given. While Run runs, Set returns when the watches are armed: a change made after it
	// is seen. An error names a watch that could not be armed; timers run all the same, and
	// arming is tried again.
	Set(ctx context.Context, session checkpoint.ID, cfg *checkpoint.AutoConfig, newest time.Time, saved json.RawMessage) error
	// Remove forgets a session (closed or deleted), after its running checkpoint.
	Remove(session checkpoint.ID)
	// Note tells of a checkpoint that was taken without the engine.
	Note(session checkpoint.ID, at time.Time)
	// Trigger decides about t and takes its checkpoint. A session that was never Set is one without automation.
	Trigger(ctx context.Context, t Trigger) (Outcome, error)
	// Status of a session.
	Status(session checkpoint.ID) Status
}

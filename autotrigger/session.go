package autotrigger

import (
	"encoding/json"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// session is one session's automation. The engine's mu guards it, but for busy.
type session struct {
	id     checkpoint.ID
	busy   chan struct{} // holds one token while a trigger is being decided: never two at once
	policy *policy       // nil: no automation
	files  *files        // nil: nothing to watch or capture

	newest   time.Time // checkpoint of any kind
	lastAuto time.Time // checkpoint that was not manual
	lastRun  time.Time
	anchor   time.Time // the interval counts from here or newest, whichever is later
	started  bool      // anchor is set

	nextCron time.Time
	every    time.Time // @every counts from here: its last run, or when it was first set
	due      time.Time // the earlier of interval and cron
	index    int       // in the queue of timers, -1: not there
	running  bool      // a timer's run is under way: it queues the session again
	removed  bool

	taken, skipped, failed uint64
	lastError              string
	touched                uint64 // how often touch was called
	rendered               uint64 // and state
	calls                  *calls // nil until there is one
}

func newSession(id checkpoint.ID, st saved) *session {
	return &session{
		id: id, busy: make(chan struct{}, 1), index: -1,
		taken: st.Taken, skipped: st.Skipped, failed: st.Failed, lastError: st.LastError,
		lastRun: st.LastRun, lastAuto: st.LastAuto, every: st.Every, anchor: st.Anchor, started: !st.Anchor.IsZero(),
	}
}

func (s *session) remember(c knownCall) {
	if s.calls == nil {
		s.calls = &calls{byID: map[string]knownCall{}}
	}
	s.calls.add(c)
}

// state renders what a restart needs. Called with the engine's mu held.
func (s *session) state() (json.RawMessage, error) { return s.render(s.saved()) }

func (s *session) render(st saved) (json.RawMessage, error) {
	s.rendered++
	return json.Marshal(st)
}

func (s *session) saved() saved {
	st := saved{
		Version: savedVersion, Taken: s.taken, Skipped: s.skipped, Failed: s.failed,
		LastRun: s.lastRun, LastAuto: s.lastAuto, Anchor: s.anchor, Every: s.every, LastError: s.lastError,
	}
	if s.files != nil {
		st.Follow = s.files.save()
	}
	return st
}

// stateAfter renders what a restart needs once a checkpoint is taken now, which is about
// the line of a followed file that o names, if any.
func (s *session) stateAfter(now time.Time, o *origin) (json.RawMessage, error) {
	st := s.saved()
	st.Taken++
	st.LastRun, st.LastError = now, ""
	if now.After(st.LastAuto) {
		st.LastAuto = now
	}
	if o != nil && o.after != nil {
		st.Follow[o.key].move(*o.after)
	}
	return s.render(st)
}

// intervalAt is the interval's next run; zero when it is off.
func (s *session) intervalAt(now time.Time) time.Time {
	if s.policy == nil || s.policy.interval == 0 {
		return time.Time{}
	}
	from := s.anchor
	if s.newest.After(from) {
		from = s.newest
	}
	if from.After(now) {
		from = now // the clock was set back
	}
	return from.Add(s.policy.interval)
}

// cronAfter gives the next n runs of the cron spec.
func (s *session) cronAfter(now time.Time, n int) []time.Time {
	switch {
	case s.policy == nil:
		return nil
	case s.policy.cron != nil:
		return runs(s.policy.cron, now, n)
	case s.policy.every == 0:
		return nil
	}
	return every(s.every, s.policy.every, now, n)
}

// every gives the next n times of something that is done each d, last at from. One that is
// late is due now, once.
func every(from time.Time, d time.Duration, now time.Time, n int) []time.Time {
	if from.After(now) {
		from = now // the clock was set back
	}
	at := from.Add(d)
	if at.Before(now) {
		at = now
	}
	out := make([]time.Time, n)
	for i := range out {
		out[i], at = at, at.Add(d)
	}
	return out
}

// schedule sets due from interval and cron, and the cause that is then due.
func (s *session) schedule(now time.Time) (due time.Time, cause checkpoint.Cause) {
	due, cause = s.intervalAt(now), checkpoint.CauseInterval
	if at := s.nextCron; !at.IsZero() && (due.IsZero() || at.Before(due)) {
		due, cause = at, checkpoint.CauseCron
	}
	s.due = due
	return due, cause
}

// note takes a checkpoint's time.
func (s *session) note(at time.Time) {
	if at.After(s.newest) {
		s.newest = at
	}
}

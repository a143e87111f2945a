package autotrigger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/internal/watch"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Engine runs the automation of all sessions. Its methods are safe for concurrent use.
type Engine struct {
	opts    Options
	watcher *watch.Watcher
	ready   chan struct{}
	wake    chan struct{} // the heap of timers changed
	slots   chan struct{} // one token for each worker
	wg      sync.WaitGroup

	// setting orders Set, Remove and the end of Run; it is taken before mu.
	setting sync.Mutex

	mu       sync.Mutex // guards what follows, and every session
	sessions map[checkpoint.ID]*session
	timers   timers
	unsaved  map[*session]time.Time     // when its state is to be saved
	parted   map[checkpoint.ID]*session // removed, with a state that is not saved yet
	run      context.Context            // Run's; nil before it
	armed    bool                       // Run has started the watcher and not yet ended it
}

// New makes an Engine that does nothing until Run; Trigger works without it.
func New(o Options) *Engine {
	o = o.withDefaults()
	return &Engine{
		opts:    o,
		watcher: watch.New(watch.Options{Logger: o.Logger, LockWait: o.LockWait, VerifyEvery: o.VerifyEvery}),
		ready:   make(chan struct{}), wake: make(chan struct{}, 1), slots: make(chan struct{}, o.Workers),
		sessions: map[checkpoint.ID]*session{}, unsaved: map[*session]time.Time{}, parted: map[checkpoint.ID]*session{},
	}
}

// Ready is closed when Run has armed the watches of every session that was Set before it.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Run works until ctx ends: it arms watches, starts what is due, saves state, and returns
// after the last goroutine that it started. It runs once.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.watcher.Start(); err != nil {
		// Timers and clients' triggers need no watcher.
		e.opts.Logger.Error("no file is watched for now; trying again", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan error, 1)
	go func() {
		defer cancel()
		watching <- e.watcher.Run(ctx)
	}()
	e.armAll(ctx)
	close(e.ready)
	e.wg.Go(func() { e.saveLoop(ctx) })
	e.runTimers(ctx)
	err := <-watching
	e.setting.Lock()
	e.mu.Lock()
	e.armed = false
	e.mu.Unlock()
	e.setting.Unlock()
	e.wg.Wait()
	e.saveAll(context.WithoutCancel(ctx))
	return err
}

// armAll arms what was Set before Run.
func (e *Engine) armAll(ctx context.Context) {
	e.setting.Lock()
	defer e.setting.Unlock()
	e.mu.Lock()
	e.run, e.armed = ctx, true
	var with []*session
	for _, s := range e.sessions {
		if s.files != nil {
			with = append(with, s)
		}
	}
	e.mu.Unlock()
	for _, s := range with {
		if err := s.files.arm(ctx); err != nil {
			e.failed(s, Trigger{Session: s.id, Cause: checkpoint.CauseFileChange}, err)
		}
		e.saveBeginning(ctx, s, s.files)
	}
}

// Set starts or changes a session's automation; a nil cfg ends it and keeps its counts.
// newest is the time of its newest checkpoint (zero: none), saved what Save was last
// given (used only the first time). While Run runs, Set returns when the watches are
// armed: a change made after it is seen. An error names what is refused or could not be
// armed; the rest works all the same, and arming is tried again.
func (e *Engine) Set(ctx context.Context, id checkpoint.ID, cfg *checkpoint.AutoConfig, newest time.Time, raw json.RawMessage) error {
	e.setting.Lock()
	defer e.setting.Unlock()
	var p *policy
	if cfg != nil {
		var err error
		if p, err = newPolicy(*cfg, time.Now()); err != nil {
			return err
		}
	}
	e.mu.Lock()
	s := e.sessions[id]
	var st saved
	if s == nil {
		st = e.savedState(id, raw)
		s = newSession(id, st)
		e.sessions[id] = s
	}
	s.note(newest.Round(0))
	old := s.files
	s.policy, s.nextCron = p, time.Time{}
	if p != nil && !s.started {
		s.anchor, s.started = cmp.Or(newest, wall()).Round(0), true
	}
	e.requeue(s)
	armed := e.armed
	e.mu.Unlock()

	fresh, refused := e.newFiles(s, cfg, old, st.Follow)
	var armErr error
	if armed && fresh != nil {
		armErr = fresh.arm(ctx)
	}
	e.mu.Lock()
	s.files = fresh
	err := errors.Join(refused, armErr)
	if err != nil {
		s.lastError = err.Error()
	}
	e.touch(s, e.opts.SaveEvery)
	e.mu.Unlock()
	if armed && fresh != nil {
		e.saveBeginning(ctx, s, fresh)
	}
	return err
}

// savedState decodes what was saved of a session, or takes what is not saved yet from its
// removed predecessor. Called with mu held.
func (e *Engine) savedState(id checkpoint.ID, raw json.RawMessage) saved {
	if old := e.parted[id]; old != nil {
		delete(e.parted, id)
		delete(e.unsaved, old)
		if later, err := old.state(); err == nil {
			raw = later
		}
	}
	st, err := decodeSaved(raw)
	if err != nil {
		e.opts.Logger.Warn("automation", "session", id, "error", err)
	}
	return st
}

// Remove forgets a session that was closed or deleted. A checkpoint that is being made is
// not waited for. What is not saved yet is saved, as a closed session may come back.
func (e *Engine) Remove(id checkpoint.ID) {
	e.setting.Lock()
	defer e.setting.Unlock()
	e.mu.Lock()
	s := e.sessions[id]
	if s == nil {
		e.mu.Unlock()
		return
	}
	delete(e.sessions, id)
	s.removed = true
	if _, unsaved := e.unsaved[s]; unsaved {
		e.parted[id] = s
	}
	e.requeue(s)
	e.mu.Unlock()
	if s.files != nil {
		s.files.closeAllBut(nil)
	}
}

// Note tells of a checkpoint that was taken without the engine.
func (e *Engine) Note(id checkpoint.ID, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sessions[id]; s != nil {
		s.note(at.Round(0)) // the heap notices when the old time comes
	}
}

// Status of a session.
func (e *Engine) Status(id checkpoint.ID) Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sessions[id]
	if s == nil {
		return Status{}
	}
	st := Status{NextRuns: []time.Time{}, Taken: s.taken, Skipped: s.skipped, Failed: s.failed, LastRun: s.lastRun, LastError: s.lastError}
	now := wall()
	if at := s.intervalAt(now); !at.IsZero() {
		if at.Before(now) {
			at = now
		}
		for range 3 {
			st.NextRuns = append(st.NextRuns, at)
			at = at.Add(s.policy.interval)
		}
	}
	if s.policy != nil && s.policy.cron != nil {
		st.NextRuns = append(st.NextRuns, runs(s.policy.cron, now, 3)...)
		slices.SortFunc(st.NextRuns, time.Time.Compare)
	}
	st.NextRuns = st.NextRuns[:min(3, len(st.NextRuns))]
	return st
}

// Automated says that a session was Set with a configuration.
func (e *Engine) Automated(id checkpoint.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sessions[id]
	return s != nil && s.policy != nil
}

// Trigger decides about t and takes its checkpoint. A session that was never Set is one
// without automation.
func (e *Engine) Trigger(ctx context.Context, t Trigger) (Outcome, error) {
	if !slices.Contains(checkpoint.Causes, t.Cause) {
		return Outcome{}, checkpoint.Invalid("cause", "unknown cause %q; known are %s", t.Cause, joined(checkpoint.Causes))
	}
	s, err := e.session(ctx, t)
	if err != nil {
		return Outcome{}, err
	}
	return e.decide(ctx, s, t, nil)
}

// session finds the session, or makes one without automation.
func (e *Engine) session(ctx context.Context, t Trigger) (*session, error) {
	e.mu.Lock()
	s := e.sessions[t.Session]
	e.mu.Unlock()
	if s != nil {
		return s, nil
	}
	var raw json.RawMessage
	if e.opts.Load != nil {
		var err error
		if raw, err = e.opts.Load(ctx, t.Session); err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sessions[t.Session]; s != nil {
		return s, nil
	}
	s = newSession(t.Session, e.savedState(t.Session, raw))
	s.note(t.Newest.Round(0))
	e.sessions[t.Session] = s
	return s, nil
}

// decide waits for the session to be free and decides about t. own, if not nil, is a file
// that the caller has read, in place of what is on disk.
func (e *Engine) decide(ctx context.Context, s *session, t Trigger, own given) (Outcome, error) {
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
	defer func() { <-s.busy }()
	return e.decideHeld(ctx, s, t, own)
}

func (e *Engine) decideHeld(ctx context.Context, s *session, t Trigger, own given) (Outcome, error) {
	e.mu.Lock()
	p, fs := s.policy, s.files
	skipped := p.gate(t, wall(), s.newest, s.lastAuto, e.opts.DefaultWindow)
	tool := toolCallID(t)
	call, known := s.calls.find(tool)
	e.mu.Unlock()
	switch {
	case skipped != "":
		return e.account(s, t, tool, Outcome{Skipped: skipped}, nil)
	case known && tool != "":
		return Outcome{CheckpointID: call.CheckpointID, Sequence: call.Sequence, Existing: true}, nil
	}
	req := Request{
		Session: t.Session, Cause: t.Cause, Message: cmp.Or(t.Message, defaultMessage(t.Cause)), Detail: t.Detail, State: t.State, ToolCallID: tool,
		SkipUnchanged: p != nil && p.skipUnchanged && t.Cause.Trigger() == checkpoint.Scheduled,
	}
	req.Files, req.Problems = e.capture(fs, own)
	out, err := e.take(ctx, req)
	return e.account(s, t, tool, out, err)
}

// take survives a panic: one bad checkpoint must not end the automation of all sessions.
func (e *Engine) take(ctx context.Context, r Request) (out Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.opts.Logger.Error("panic while taking a checkpoint", "session", r.Session, "cause", r.Cause, "panic", p, "stack", string(debug.Stack()))
			err = checkpoint.Errorf(checkpoint.KindInternal, "taking the checkpoint failed inside the daemon; its log has the details")
		}
	}()
	return e.opts.Take(ctx, r)
}

// account counts what became of a trigger.
func (e *Engine) account(s *session, t Trigger, tool string, out Outcome, err error) (Outcome, error) {
	if err != nil {
		e.failed(s, t, err)
		return Outcome{}, err
	}
	e.mu.Lock()
	now := wall()
	if out.Skipped == "" || out.Skipped == Unchanged {
		s.lastRun, s.lastError = now, ""
	}
	if out.Skipped != "" {
		s.skipped++
	} else {
		at := cmp.Or(out.Timestamp.Round(0), now)
		s.note(at)
		if at.After(s.lastAuto) {
			s.lastAuto = at
		}
		if tool != "" {
			s.remember(savedCall{Tool: tool, CheckpointID: out.CheckpointID, Sequence: out.Sequence})
		}
		if !out.Existing {
			s.taken++
		}
	}
	if tool != "" && out.Skipped == "" {
		e.touch(s, e.opts.SaveEvery)
	} else {
		e.touch(s, e.opts.SaveCounts)
	}
	e.mu.Unlock()
	if e.opts.Report != nil {
		e.opts.Report(t, out, nil)
	}
	return out, nil
}

func (e *Engine) failed(s *session, t Trigger, err error) {
	if errors.Is(err, context.Canceled) {
		return // the engine or its caller stopped: nothing went wrong
	}
	e.mu.Lock()
	s.lastRun, s.lastError = wall(), err.Error()
	s.failed++
	e.touch(s, e.opts.SaveCounts)
	e.mu.Unlock()
	if e.opts.Report != nil {
		e.opts.Report(t, Outcome{}, err)
	}
}

// toolCallID is the member "id" of a tool call's detail. Without one it is the member
// "hook_event_id", of any cause: a hook that could not wait for the answer tells its event
// again later.
func toolCallID(t Trigger) string {
	if len(t.Detail) == 0 {
		return ""
	}
	var d struct {
		ID    string `json:"id"`
		Event string `json:"hook_event_id"`
	}
	if json.Unmarshal(t.Detail, &d) != nil {
		return "" // a detail of another shape names no call
	}
	if t.Cause == checkpoint.CauseToolCall || t.Cause == checkpoint.CauseError {
		return cmp.Or(d.ID, d.Event)
	}
	return d.Event
}

func (e *Engine) takesErrors(s *session) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return s.policy.enabled(checkpoint.CauseError)
}

func defaultMessage(c checkpoint.Cause) string {
	switch c {
	case checkpoint.CauseInterval, checkpoint.CauseCron:
		return fmt.Sprintf("scheduled (%s)", c)
	}
	return fmt.Sprintf("automatic (%s)", c)
}

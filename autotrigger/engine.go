package autotrigger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	if p != nil && p.every > 0 && s.every.IsZero() {
		s.every = wall()
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
		st.NextRuns = every(at.Add(-s.policy.interval), s.policy.interval, now, 3)
	}
	st.NextRuns = append(st.NextRuns, s.cronAfter(now, 3)...)
	slices.SortFunc(st.NextRuns, time.Time.Compare)
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

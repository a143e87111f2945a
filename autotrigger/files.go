package autotrigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/internal/watch"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// files is what a session watches and captures. It does not change once it is made, but
// for what its watchings guard themselves.
type files struct {
	watches []*watching
	capture []watch.Spec
	// former are the saved followings that no watch has now; kept, as a session's
	// configuration may come back.
	former map[string]*savedFollow
}

// watching is one Watch of a session at work.
type watching struct {
	e      *Engine
	s      *session
	cfg    checkpoint.Watch
	spec   watch.Spec
	follow *follower // nil: a settled change fires the cause

	armMu  sync.Mutex
	target *watch.Target

	mu      sync.Mutex
	changed map[string]struct{} // told, not yet taken
	active  bool
	closed  bool
	ended   chan struct{} // closed with it
}

// CheckPaths refuses watches and captures that reach into the store, for callers that
// want to refuse the configuration before they keep it; Field is prefix and the member.
func (e *Engine) CheckPaths(cfg checkpoint.AutoConfig, prefix string) error {
	for i, w := range cfg.Watch {
		if err := e.allowed(specOf(w), fmt.Sprintf("%swatch[%d].path", prefix, i)); err != nil {
			return err
		}
	}
	for i, p := range cfg.Capture.Files {
		if err := e.allowed(watch.Spec{Path: p}, fmt.Sprintf("%scapture.files[%d]", prefix, i)); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) allowed(s watch.Spec, field string) error {
	if e.opts.StoreDir == "" || !watch.Reaches(s, e.opts.StoreDir) {
		return nil
	}
	return checkpoint.Invalid(field, "%s takes in the store at %s, where every checkpoint would cause the next; name a path beside it", s.Path, e.opts.StoreDir)
}

func specOf(w checkpoint.Watch) watch.Spec {
	return watch.Spec{Path: w.Path, Recursive: w.Recursive, Ignore: w.Ignore}
}

// newFiles makes what cfg asks for; watches that old has already go on undisturbed. What
// is refused is left out and told.
func (e *Engine) newFiles(s *session, cfg *checkpoint.AutoConfig, old *files, st map[string]*savedFollow) (*files, error) {
	if old != nil {
		// A watch whose configuration changed goes on where it was: the old one stops first.
		old.closeAllBut(cfg)
		st = old.save()
	}
	if cfg == nil || len(cfg.Watch)+len(cfg.Capture.Files) == 0 {
		return nil, nil
	}
	f := &files{former: maps.Clone(st)}
	for _, w := range cfg.Watch {
		if same := old.find(w); same != nil && w.Format != "" {
			delete(f.former, followKey(w))
		}
	}
	var refused []error
	for i, w := range cfg.Watch {
		if err := e.allowed(specOf(w), fmt.Sprintf("watch[%d].path", i)); err != nil {
			refused = append(refused, err)
			continue
		}
		if same := old.find(w); same != nil {
			f.watches = append(f.watches, same)
			continue
		}
		made := &watching{e: e, s: s, cfg: w, spec: specOf(w), changed: map[string]struct{}{}, ended: make(chan struct{})}
		if w.Format != "" {
			key := followKey(w)
			made.follow = newFollower(made, st[key])
			delete(f.former, key)
		}
		f.watches = append(f.watches, made)
	}
	for i, p := range cfg.Capture.Files {
		if err := e.allowed(watch.Spec{Path: p}, fmt.Sprintf("capture.files[%d]", i)); err != nil {
			refused = append(refused, err)
			continue
		}
		f.capture = append(f.capture, watch.Spec{Path: p})
	}
	return f, errors.Join(refused...)
}

func (f *files) find(w checkpoint.Watch) *watching {
	if f == nil {
		return nil
	}
	for _, have := range f.watches {
		if reflect.DeepEqual(have.cfg, w) {
			return have
		}
	}
	return nil
}

// arm starts the watches that are not armed yet.
func (f *files) arm(ctx context.Context) error {
	var errs []error
	for _, w := range f.watches {
		errs = append(errs, w.arm(ctx))
	}
	return errors.Join(errs...)
}

// closeAllBut ends the watches that cfg, if any, does not name as they are.
func (f *files) closeAllBut(cfg *checkpoint.AutoConfig) {
	for _, w := range f.watches {
		if cfg == nil || !slices.ContainsFunc(cfg.Watch, func(c checkpoint.Watch) bool { return reflect.DeepEqual(c, w.cfg) }) {
			w.close()
		}
	}
}

// each calls spec for what is captured whole, and path for the files that are followed.
func (f *files) each(spec func(watch.Spec), path func(string)) {
	for _, w := range f.watches {
		if w.follow == nil {
			spec(w.spec)
			continue
		}
		for _, p := range w.follow.captured() {
			path(p)
		}
	}
	for _, s := range f.capture {
		spec(s)
	}
}

// save returns where the followed files were left.
func (f *files) save() map[string]*savedFollow {
	out := maps.Clone(f.former)
	for _, w := range f.watches {
		if w.follow == nil {
			continue
		}
		if out == nil {
			out = map[string]*savedFollow{}
		}
		out[followKey(w.cfg)] = w.follow.save()
	}
	return out
}

// began tells whether a transcript is followed that was not before.
func (f *files) began() bool {
	any := false
	for _, w := range f.watches {
		if w.follow != nil && w.follow.first {
			w.follow.first, any = false, true
		}
	}
	return any
}

func followKey(w checkpoint.Watch) string { return w.Format + ":" + w.Path }

// arm watches. Called while setting is held, so the watcher runs or is yet to.
func (w *watching) arm(ctx context.Context) error {
	w.armMu.Lock()
	defer w.armMu.Unlock()
	if w.target != nil {
		return nil
	}
	timing := watch.Timing{
		Debounce: time.Duration(w.cfg.DebounceMS) * time.Millisecond,
		MaxWait:  time.Duration(w.cfg.MaxWaitMS) * time.Millisecond, HoldGit: true,
	}
	if w.follow != nil {
		// Each line counts by itself: there is nothing to wait for.
		timing = watch.Timing{}
		w.follow.reading.Lock()
		defer w.follow.reading.Unlock()
	}
	target, err := w.e.watcher.Add(w.spec, timing, w.told)
	w.target = target
	if w.follow != nil {
		if startErr := w.follow.start(); startErr != nil {
			return errors.Join(err, startErr)
		}
		w.told(nil) // what was written while nobody looked
	}
	return err
}

func (w *watching) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.ended)
	}
	w.mu.Unlock()
	w.armMu.Lock()
	defer w.armMu.Unlock()
	if w.target != nil {
		w.target.Close()
	}
}

// told takes changed paths and works on them in a goroutine of its own, one a watch.
func (w *watching) told(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	for _, p := range paths {
		w.changed[p] = struct{}{}
	}
	if w.active {
		return
	}
	w.active = true
	ctx := w.e.runContext()
	w.e.wg.Go(func() { w.work(ctx) })
}

func (e *Engine) runContext() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run
}

// work takes changes until there are none left.
func (w *watching) work(ctx context.Context) {
	pause := w.e.opts.RetryEvery
	for first := true; ; first = false {
		w.mu.Lock()
		paths := slices.Sorted(maps.Keys(w.changed))
		clear(w.changed)
		if w.closed || ctx.Err() != nil || len(paths) == 0 && !first {
			w.active = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		if !w.e.slot(ctx) {
			continue
		}
		var again []string
		if w.follow != nil {
			again = w.follow.read(ctx, paths)
		} else if len(paths) > 0 {
			w.change(ctx, paths)
		}
		w.e.free()
		if len(again) == 0 {
			pause = w.e.opts.RetryEvery
			continue
		}
		w.wait(ctx, pause)
		pause = min(2*pause, time.Minute)
		w.mu.Lock()
		for _, p := range again {
			w.changed[p] = struct{}{}
		}
		w.mu.Unlock()
	}
}

// wait pauses before the same call is tried again.
func (w *watching) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w.ended:
	case <-timer.C:
	}
}

func (w *watching) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// maxNamed bounds how many changed files a detail names.
const maxNamed = 20

// change takes one checkpoint for a settled change.
func (w *watching) change(ctx context.Context, paths []string) {
	message := "changed: " + filepath.Base(paths[0])
	if len(paths) > 1 {
		message = fmt.Sprintf("changed: %s and %d more", filepath.Base(paths[0]), len(paths)-1)
	}
	detail, err := json.Marshal(struct {
		Path  string   `json:"path"`
		Paths []string `json:"paths"`
		Count int      `json:"count"`
	}{paths[0], paths[:min(len(paths), maxNamed)], len(paths)})
	if err != nil {
		w.e.failed(w.s, Trigger{Session: w.s.id, Cause: w.cfg.Cause}, err)
		return
	}
	// account has told of an error already.
	_, _ = w.e.decide(ctx, w.s, Trigger{Session: w.s.id, Cause: w.cfg.Cause, Message: message, Detail: detail}, nil)
}

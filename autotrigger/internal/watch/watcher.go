package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options of New; all are required but Open.
type Options struct {
	Logger      *slog.Logger
	LockWait    time.Duration // how long .git/index.lock holds a change back
	VerifyEvery time.Duration // looks for what the kernel did not tell
	Open        func() (Source, error)
}

// movedWait bounds how often a target is looked at anew while directories are renamed.
const movedWait = 100 * time.Millisecond

// lockPoll is how often a held change looks for the end of the lock.
const lockPoll = 100 * time.Millisecond

// Watcher watches Targets while Run runs.
type Watcher struct {
	log  *slog.Logger
	opts Options

	mu      sync.Mutex // guards what follows and every Target
	source  *Source    // nil while Run does not run
	broken  error      // why Start failed
	dirs    map[string]map[*Target]struct{}
	targets map[*Target]struct{}
	pending map[*Target]struct{} // those with changes to tell
	// moved are the targets to look at anew, and when: a directory of theirs was renamed. A
	// watch belongs to the directory and not to its name, so if the new name was found before
	// the old one's end was told, the watch went with the old name.
	moved map[*Target]time.Time
}

// New makes a Watcher that watches nothing yet.
func New(o Options) *Watcher {
	if o.Open == nil {
		o.Open = open
	}
	return &Watcher{
		log: o.Logger, opts: o, dirs: map[string]map[*Target]struct{}{}, targets: map[*Target]struct{}{}, pending: map[*Target]struct{}{},
		moved: map[*Target]time.Time{},
	}
}

// Start opens the inotify instance; Run does the work and closes it. When it fails, the
// targets that are added fail with the same error, and Run tries again.
func (w *Watcher) Start() error {
	s, err := w.opts.Open()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.broken = err
		return err
	}
	w.source, w.broken = &s, nil
	return nil
}

// Add watches a Spec. fire is told of changed paths from Run's goroutine, one call at a
// time, and must not block. The target is there even with an error, which says what is
// not watched yet; arming is tried again every VerifyEvery.
func (w *Watcher) Add(s Spec, timing Timing, fire func(paths []string)) (*Target, error) {
	t := &Target{w: w, spec: s, timing: timing, fire: fire, dirs: map[string]string{}, seen: map[string]stamp{}, dirty: map[string]struct{}{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets[t] = struct{}{}
	return t, t.arm()
}

// Close ends a target; its fire may be running still, and is not called again.
func (t *Target) Close() {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	delete(t.w.targets, t)
	delete(t.w.pending, t)
	delete(t.w.moved, t)
	for key := range t.dirs {
		t.w.release(key, t)
	}
	clear(t.dirs)
}

// acquire counts a target on a directory and watches it. That is asked of the kernel each
// time: the name may have come to mean another directory, or have lost its watch to the
// news of a directory that had it before. Called with mu held.
func (w *Watcher) acquire(key string, t *Target) error {
	if w.source == nil {
		if w.broken != nil {
			return w.broken
		}
		return errors.New("the watcher does not run")
	}
	if err := w.source.Add(key); err != nil {
		return err
	}
	users := w.dirs[key]
	if users == nil {
		users = map[*Target]struct{}{}
		w.dirs[key] = users
	}
	users[t] = struct{}{}
	return nil
}

func (w *Watcher) release(key string, t *Target) {
	users := w.dirs[key]
	delete(users, t)
	if len(users) > 0 || users == nil {
		return
	}
	delete(w.dirs, key)
	if w.source == nil {
		return
	}
	if err := w.source.Remove(key); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
		w.log.Debug("stop watching", "path", key, "error", err) // it was deleted: the kernel dropped it first
	}
}

// Run tells of changes until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	source := w.current()
	verify := time.NewTicker(w.opts.VerifyEvery)
	defer verify.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer w.stop()
	for {
		timer.Reset(w.tell())
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-source.Events:
			if !ok {
				return errors.New("the file watcher ended by itself")
			}
			w.handle(e)
		case err, ok := <-source.Errors:
			if !ok {
				return errors.New("the file watcher ended by itself")
			}
			w.trouble(err)
		case <-verify.C:
			if source.Notifier == nil && w.Start() == nil {
				source = w.current()
			}
			w.verify()
		case <-timer.C:
		}
	}
}

// current is the open source; without one its channels are never ready.
func (w *Watcher) current() Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.source == nil {
		return Source{}
	}
	return *w.source
}

// stop closes the inotify instance. fsnotify's reader may be waiting for someone to take
// its last event, which Close interrupts.
func (w *Watcher) stop() {
	w.mu.Lock()
	source := w.source
	w.source = nil
	clear(w.dirs)
	for t := range w.targets {
		clear(t.dirs)
	}
	w.mu.Unlock()
	if source == nil {
		return
	}
	if err := source.Close(); err != nil {
		w.log.Warn("stop watching files", "error", err)
	}
}

// handle takes one event of the kernel's.
func (w *Watcher) handle(e fsnotify.Event) {
	if e.Name == "" || e.Op == fsnotify.Chmod {
		return
	}
	name := filepath.Clean(e.Name)
	gone := e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)
	w.mu.Lock()
	defer w.mu.Unlock()
	if users := w.dirs[name]; gone && users != nil {
		for _, t := range keys(users) {
			w.lost(t, name, e.Has(fsnotify.Rename))
		}
	}
	dir, base := filepath.Dir(name), filepath.Base(name)
	for _, t := range keys(w.dirs[dir]) {
		shown, ok := t.dirs[dir]
		if !ok {
			continue // an earlier target's change let go of it
		}
		w.concerns(t, filepath.Join(shown, base), e, gone)
	}
}

// lost takes the end of a watched directory or of its name.
func (w *Watcher) lost(t *Target, key string, renamed bool) {
	shown, ok := t.dirs[key]
	if !ok {
		return
	}
	if shown == t.match.base || t.waiting != "" {
		delete(t.dirs, key)
		w.release(key, t)
		w.rearm(t)
		return
	}
	t.vanished(shown)
	if _, soon := w.moved[t]; renamed && !soon {
		w.moved[t] = time.Now().Add(movedWait)
	}
	if info, err := os.Lstat(shown); err == nil && info.IsDir() && t.match.descend(shown) {
		t.appeared(shown) // another one has the name, and its own news may be read already
	}
}

func (w *Watcher) rearm(t *Target) {
	if err := t.arm(); err != nil {
		w.log.Warn("watch again", "path", t.spec.Path, "error", err)
	}
}

// concerns takes an event at path for one target.
func (w *Watcher) concerns(t *Target, path string, e fsnotify.Event, gone bool) {
	if t.waiting != "" {
		if path == t.waiting && e.Has(fsnotify.Create) {
			w.rearm(t)
		}
		return
	}
	if filepath.Base(path) == ".gitignore" && t.match.ignore.git {
		t.match.ignore.forget()
		w.rearm(t)
	}
	if gone {
		t.vanished(path)
		if path == t.match.base {
			w.rearm(t)
			return
		}
	}
	if e.Has(fsnotify.Create) {
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			if t.match.kind == oneFile && path == filepath.Clean(t.spec.Path) {
				w.rearm(t) // the file that was waited for is a directory
			} else if t.match.descend(path) {
				t.appeared(path)
			}
			return
		}
	}
	t.touched(path, e.Has(fsnotify.Write))
}

func (w *Watcher) trouble(err error) {
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		w.log.Warn("file watcher", "error", err)
		return
	}
	w.log.Warn("too many file changes at once for the kernel to tell apart: all watched files count as changed; fs.inotify.max_queued_events is the limit")
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.targets {
		t.everything()
	}
}

// verify finds what no event told: ancestors that were renamed, file systems without
// inotify, watches that could not be had before.
func (w *Watcher) verify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.targets {
		info, err := os.Stat(t.match.base)
		moved := err != nil && t.waiting == "" || err == nil && (t.waiting != "" || identify(info) != t.root)
		if t.failed == nil && !moved && t.match.kind == tree {
			continue // too much to look at for nothing
		}
		if moved {
			// The kernel's watches are on the directories that were moved away.
			for key := range t.dirs {
				w.release(key, t)
			}
			clear(t.dirs)
		}
		before := t.failed
		if err := t.arm(); err != nil && (before == nil || before.Error() != err.Error()) {
			w.log.Warn("watch", "path", t.spec.Path, "error", err)
		}
	}
}

// tell fires what is due and returns the time until the next is.
func (w *Watcher) tell() time.Duration {
	type firing struct {
		t     *Target
		paths []string
	}
	var ready []firing
	next := time.Hour
	now := time.Now()
	w.mu.Lock()
	for t, at := range w.moved {
		if wait := at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		delete(w.moved, t)
		w.rearm(t)
	}
	for t := range w.pending {
		if wait := t.due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if w.hold(t, now) {
			next = min(next, lockPoll)
			continue
		}
		ready = append(ready, firing{t, sorted(t.dirty)})
		clear(t.dirty)
		t.held = time.Time{}
		delete(w.pending, t)
	}
	w.mu.Unlock()
	for _, f := range ready {
		f.t.fire(f.paths)
	}
	return next
}

// hold tells whether git is at work where the changes are: it writes many files, and what
// lies between them is nobody's state.
func (w *Watcher) hold(t *Target, now time.Time) bool {
	if !t.timing.HoldGit {
		return false
	}
	if !t.held.IsZero() && now.Sub(t.held) >= w.opts.LockWait {
		return false
	}
	asked := map[string]bool{}
	for path := range t.dirty {
		dir := filepath.Dir(path)
		if asked[dir] {
			continue
		}
		asked[dir] = true
		if locked(path) {
			if t.held.IsZero() {
				t.held = now
			}
			t.due = now.Add(lockPoll)
			return true
		}
	}
	return false
}

// Err says what a target could not watch.
func (t *Target) Err() error {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.failed != nil {
		return fmt.Errorf("watch %s: %w", t.spec.Path, t.failed)
	}
	return nil
}

func sorted(set map[string]struct{}) []string {
	out := keys(set)
	slices.Sort(out)
	return out
}

func keys[K comparable](m map[K]struct{}) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

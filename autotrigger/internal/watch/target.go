package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

var errEnough = errors.New("enough")

// Timing says when a target's changes are told.
type Timing struct {
	Debounce time.Duration // of quiet after the last change; 0 tells at once
	MaxWait  time.Duration // after the first change, however busy it stays
	HoldGit  bool          // while .git/index.lock exists, LockWait at most
}

// Target is one Spec that is being watched.
type Target struct {
	w      *Watcher
	spec   Spec
	timing Timing
	fire   func(paths []string)

	// What follows is guarded by w.mu.
	match *matcher
	root  fileID // of match.base when it was armed
	// waiting is the path whose appearance makes base reachable; "" when base is there.
	waiting string
	dirs    map[string]string // watched directory, links resolved: the path it has for this target
	seen    map[string]stamp
	dirty   map[string]struct{}
	first   time.Time // of the changes in dirty
	due     time.Time
	held    time.Time // since when git holds them back
	failed  error     // arming is tried again
	armed   bool      // it once succeeded: what is new from then on is a change
}

// stamp tells one content of a file from the next. The mode is not in it: a chmod changes nothing.
type stamp struct {
	id    fileID
	size  int64
	mtime int64
}

type fileID struct{ dev, ino uint64 }

func identify(info fs.FileInfo) fileID {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev is 32 bits on some systems
	}
	return fileID{}
}

func stampOf(info fs.FileInfo) stamp {
	return stamp{id: identify(info), size: info.Size(), mtime: info.ModTime().UnixNano()}
}

// arm watches what the Spec now needs, from scratch, and marks as changed what differs
// from what was seen before.
func (t *Target) arm() error {
	t.match = newMatcher(t.spec)
	t.waiting = ""
	old := t.dirs
	t.dirs = map[string]string{}
	before := t.seen
	t.seen = map[string]stamp{}
	err := t.armBase()
	for key := range old {
		if _, still := t.dirs[key]; !still {
			t.w.release(key, t)
		}
	}
	switch {
	case err != nil:
		t.seen = before // nothing is known: keep what was, to compare with later
	case !t.armed:
		t.armed = true
	default:
		for path, s := range t.seen {
			if before[path] != s {
				t.mark(path)
			}
		}
		for path := range before {
			if _, still := t.seen[path]; !still {
				t.mark(path)
			}
		}
	}
	t.failed = err
	return err
}

// armBase arms base and all below it, or waits for base at its nearest ancestor. Looking
// again after the ancestor is watched closes the gap between the two.
func (t *Target) armBase() error {
	for range 100 {
		info, err := os.Stat(t.match.base)
		if err == nil && info.IsDir() {
			t.waiting, t.root = "", identify(info)
			if err := t.scan(t.match.base); err != nil {
				return err
			}
			if info, err := os.Stat(t.match.base); err == nil && identify(info) == t.root && t.holds(t.match.base) {
				return nil
			}
			continue // it went while it was looked at
		}
		ancestor, next := nearest(t.match.base)
		t.waiting = next
		if err := t.hold(ancestor); err != nil {
			return err
		}
		if !t.holds(ancestor) {
			continue
		}
		if _, err := os.Stat(next); err != nil {
			return nil //nolint:nilerr // still missing, and now watched for
		}
		if info, err := os.Stat(next); err == nil && !info.IsDir() {
			return nil // something else has the name
		}
	}
	return errors.New("the directories above " + t.match.base + " change too fast to be watched")
}

// nearest returns the closest existing directory above path, and the name below it that is missing.
func nearest(path string) (ancestor, next string) {
	for {
		up := filepath.Dir(path)
		if info, err := os.Stat(up); up == path || err == nil && info.IsDir() {
			return up, path
		}
		path = up
	}
}

// scan watches from and the directories below it, and takes the stamps of their files. A
// directory is watched before it is read, so that nothing falls between.
func (t *Target) scan(from string) error {
	return t.match.walk(from, t.hold, func(path string, info os.FileInfo) error {
		t.seen[path] = stampOf(info)
		return nil
	})
}

// hold watches one directory for this target. One that vanished is no error.
func (t *Target) hold(dir string) error {
	key, err := filepath.EvalSymlinks(dir)
	if err == nil {
		err = t.w.acquire(key, t)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return explain(dir, err)
	}
	t.dirs[key] = dir
	return nil
}

func (t *Target) holds(dir string) bool {
	for _, shown := range t.dirs {
		if shown == dir {
			return true
		}
	}
	return false
}

// appeared looks at a directory that came into being: what is in it may be older than its watch.
func (t *Target) appeared(dir string) {
	if err := t.match.walk(dir, t.hold, func(path string, info os.FileInfo) error {
		if s := stampOf(info); t.seen[path] != s {
			t.seen[path] = s
			t.mark(path)
		}
		return nil
	}); err != nil {
		t.failed = err
		t.w.log.Warn("watch a new directory", "path", dir, "error", err)
	}
}

// vanished drops a directory and all below it.
func (t *Target) vanished(dir string) {
	for key, shown := range t.dirs {
		if shown == dir || below(dir, shown) {
			delete(t.dirs, key)
			t.w.release(key, t)
		}
	}
	for path := range t.seen {
		if below(dir, path) {
			delete(t.seen, path)
			t.mark(path)
		}
	}
}

// touched looks at a path that the kernel named. Only what belongs to the target and
// differs from what was seen counts, so a chmod or a temporary file's life is nothing.
func (t *Target) touched(path string, written bool) {
	if !t.match.file(path) {
		return
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		if _, was := t.seen[path]; was {
			delete(t.seen, path)
			t.mark(path)
		}
		return
	}
	// A write within one tick of the file system's clock can leave size and time alone.
	if s := stampOf(info); t.seen[path] != s || written {
		t.seen[path] = s
		t.mark(path)
	}
}

// everything marks all files: the kernel lost count.
func (t *Target) everything() {
	if err := t.arm(); err != nil {
		t.w.log.Warn("watch again after an overflow", "path", t.spec.Path, "error", err)
	}
	for path := range t.seen {
		t.mark(path)
	}
	if len(t.dirty) == 0 {
		t.mark(t.spec.Path)
	}
}

// maxDirty bounds what is remembered of one burst; the names are only for messages.
const maxDirty = 4096

func (t *Target) mark(path string) {
	now := time.Now()
	if len(t.dirty) == 0 {
		t.first = now
	}
	if len(t.dirty) < maxDirty {
		t.dirty[path] = struct{}{}
	}
	t.due = now.Add(t.timing.Debounce)
	if latest := t.first.Add(t.timing.MaxWait); t.timing.MaxWait > 0 && t.due.After(latest) {
		t.due = latest
	}
	t.w.pending[t] = struct{}{}
}

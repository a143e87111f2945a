package autotrigger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/internal/watch"
	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// NewParser makes a parser of a watch's format; for jsonl with the watch's match.
type NewParser func(format string, match *checkpoint.Match) (transcript.Parser, error)

// follower reads the transcripts of one watch as they grow. One call at a time of start
// and read, which reading orders.
type follower struct {
	w       *watching
	literal string // the watch's path when it is no glob: always captured

	reading sync.Mutex
	first   bool // nothing was saved of it yet; guarded by the engine's setting
	loose   bool // calls were passed whose checkpoint did not keep the place behind them; guarded by reading

	mu    sync.Mutex // guards what follows; never held while a checkpoint is taken
	since time.Time
	files map[string]*followed
}

func newFollower(w *watching, st *savedFollow) *follower {
	f := &follower{w: w, files: map[string]*followed{}}
	if watch.Literal(w.spec) {
		f.literal = filepath.Clean(w.spec.Path)
	}
	if st != nil {
		f.since = st.Since
		for _, file := range st.Files {
			f.files[file.Path] = &followed{savedFile: file}
		}
	}
	return f
}

func (f *follower) save() *savedFollow {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := &savedFollow{Since: f.since, Files: make([]savedFile, 0, len(f.files))}
	for _, path := range slices.Sorted(maps.Keys(f.files)) {
		st.Files = append(st.Files, f.files[path].savedFile)
	}
	return st
}

// captured are the files that belong into every checkpoint: of a glob only those that
// grew, the latest first, as it may match every transcript that there ever was.
func (f *follower) captured() []string {
	if f.literal != "" {
		return []string{f.literal}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*followed
	for _, file := range f.files {
		if file.Active {
			out = append(out, file)
		}
	}
	slices.SortFunc(out, func(a, b *followed) int { return b.grown.Compare(a.grown) })
	paths := make([]string, len(out))
	for i, file := range out {
		paths[i] = file.Path
	}
	return paths
}

// fileClock is how far a file's time may lie behind the clock that was read before it was
// written: kernels stamp files with the time of their last tick, some file systems in steps
// of two seconds.
const fileClock = 2 * time.Second

// start finds the place to go on from in each file that is there. Called with reading
// held, after the watch was armed: what grows later is told.
func (f *follower) start() error {
	if _, err := f.w.e.opts.Parser(f.w.cfg.Format, f.w.cfg.Match); err != nil {
		return err
	}
	first := f.since.IsZero()
	f.first = first
	if first {
		f.mu.Lock()
		f.since = wall()
		f.mu.Unlock()
	}
	paths, more := watch.List(f.w.spec, f.w.e.opts.MaxFiles)
	if more {
		f.w.e.opts.Logger.Warn("too many transcripts to follow: the others count as new when they grow", "path", f.w.cfg.Path, "followed", len(paths))
	}
	for _, path := range paths {
		if f.at(path) != nil || f.w.cfg.FromStart {
			continue
		}
		info, err := os.Lstat(path)
		if err != nil || !first && info.ModTime().After(f.since.Add(-fileClock)) {
			continue // it appeared while nobody looked
		}
		place, err := fromEnd(path)
		if err != nil {
			f.w.e.opts.Logger.Warn("follow a transcript", "path", path, "error", err)
			continue
		}
		f.put(path, place)
	}
	return nil
}

func (f *follower) at(path string) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[path]
}

func (f *follower) put(path string, file *followed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[path] = file
}

// read takes what the named files (none: all) have more than before. It returns those
// that must be tried again.
func (f *follower) read(ctx context.Context, paths []string) (again []string) {
	f.reading.Lock()
	defer f.reading.Unlock()
	if len(paths) == 0 {
		paths, _ = watch.List(f.w.spec, f.w.e.opts.MaxFiles)
	}
	for _, path := range paths {
		err := f.readPath(ctx, path)
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
		case ctx.Err() != nil:
			return nil
		case tryAgain(err):
			again = append(again, path)
		default:
			f.w.e.failed(f.w.s, Trigger{Session: f.w.s.id, Cause: f.w.cfg.Cause}, fmt.Errorf("follow %s: %w", path, err))
		}
	}
	// Lines without a call may be read again after a crash: they alone are not worth saving.
	within := time.Duration(atEnd)
	if f.loose {
		within, f.loose = f.w.e.opts.SaveEvery, false
	}
	f.w.e.mu.Lock()
	f.w.e.touch(f.w.s, within)
	f.w.e.mu.Unlock()
	return again
}

// takeError is what Take said of a call; it was counted and told already.
type takeError struct{ error }

func (e takeError) Unwrap() error { return e.error }

var errRewritten = errors.New("the file changed while it was read")

// tryAgain tells whether the same call may be taken later: the store is full or closing,
// the session is closed. What is wrong with the call itself stays wrong.
func tryAgain(err error) bool {
	var e *checkpoint.Error
	if errors.As(err, &e) {
		return e.Retry || e.Kind == checkpoint.KindInvalidState || e.Kind == checkpoint.KindStorage || e.Kind == checkpoint.KindOverloaded
	}
	return errors.Is(err, errRewritten)
}

// readPath finds the file's place and reads on from there. A file that was renamed away
// while it had unread lines is finished under its new name first.
func (f *follower) readPath(ctx context.Context, path string) error {
	file, info, err := openRegular(path)
	if err != nil {
		return err
	}
	defer file.Close()
	place := f.at(path)
	switch {
	case place == nil:
		if place = f.renamed(file, info); place == nil {
			if place, err = fromStart(path, info); err != nil {
				return err
			}
		}
		f.put(path, place)
	case !place.is(info):
		if err := f.finish(ctx, place); err != nil {
			return err
		}
		if err := f.settle(place, file, info); err != nil {
			return err
		}
	default:
		if err := f.settle(place, file, info); err != nil {
			return err
		}
	}
	return f.readOn(ctx, place, file, info)
}

// settle keeps the place in a file that still holds what was read, and goes to the start
// of one that does not: it was truncated, or is another one.
func (f *follower) settle(place *followed, file *os.File, info fs.FileInfo) error {
	if !place.holds(file, info) {
		fresh, err := fromStart(place.Path, info)
		if err != nil {
			return err
		}
		f.mu.Lock()
		*place = *fresh
		f.mu.Unlock()
		return nil
	}
	f.mu.Lock()
	place.Dev, place.Ino = inode(info)
	f.mu.Unlock()
	return nil
}

// finish reads the rest of a file that another one took the name of.
func (f *follower) finish(ctx context.Context, place *followed) error {
	to := place.rotated()
	if to == "" {
		return nil
	}
	file, info, err := openRegular(to)
	if err != nil {
		return nil //nolint:nilerr // gone or unreadable meanwhile: there is no rest to be had
	}
	defer file.Close()
	if !place.is(info) || !place.holds(file, info) {
		return nil
	}
	return f.readOn(ctx, place, file, info)
}

// renamed finds the place of a file that appeared under another name before: a glob may
// match both.
func (f *follower) renamed(file *os.File, info fs.FileInfo) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, place := range f.files {
		if !place.is(info) || !place.holds(file, info) {
			continue
		}
		if old, err := os.Lstat(path); err == nil && place.is(old) {
			continue // a second name of the same file
		}
		delete(f.files, path)
		place.Path = filepath.Clean(file.Name())
		return place
	}
	return nil
}

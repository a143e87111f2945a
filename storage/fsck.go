package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// Fsck checks a store that no daemon holds, every byte but index/. With repair, damage is
// moved to quarantine and what can be written anew is; nothing is deleted. Without, nothing
// is changed. Damage that was in quarantine before is not reported again.
func Fsck(ctx context.Context, opts Options, repair bool) (Report, error) {
	fsys := opts.FS
	if fsys == nil {
		var err error
		if fsys, err = vfs.OS(opts.Dir); errors.Is(err, fs.ErrNotExist) {
			return Report{}, checkpoint.Errorf(checkpoint.KindNotFound, "there is no store in %s: name its directory with --data-dir", opts.Dir)
		} else if err != nil {
			return Report{}, checkpoint.Errorf(checkpoint.KindStorage, "the store cannot be opened: %w: make it readable, or name another with --data-dir", err)
		}
		defer fsys.Close() // nothing was written through it that is not flushed
	}
	if there, err := holdsStore(fsys); err != nil {
		return Report{}, checkpoint.Errorf(checkpoint.KindStorage, "looking for a store in %s: %w", opts.Dir, err)
	} else if !there {
		return Report{}, checkpoint.Errorf(checkpoint.KindNotFound, "there is no store in %s: name its directory with --data-dir", opts.Dir)
	}
	var format []Problem
	if repair {
		mended, err := mendFormat(fsys, opts)
		if err != nil {
			return Report{}, err
		}
		format = mended
	} else {
		fsys = readOnly{fsys}
	}
	opts.FS, opts.fromFiles = fsys, true
	s, err := open(ctx, opts)
	if err != nil {
		return Report{}, err
	}
	s.start()
	report, err := s.ValidateAll(ctx, checkpoint.ID{}, s.told())
	if err == nil && repair {
		err = s.mend(report.Problems)
	}
	report.Newest = s.newest()
	known := map[string]bool{}
	for _, p := range s.knownBefore {
		known[p.Path] = true
	}
	found := format
	for _, p := range report.Problems {
		if !known[p.Path] {
			found = append(found, p)
		}
	}
	report.Problems = found
	closeErr := s.Close()
	if err == nil && repair {
		err = closeErr
	}
	return report, err
}

// holdsStore tells a store, even a damaged one, from any other directory.
func holdsStore(fsys vfs.FS) (bool, error) {
	for _, name := range []string{"FORMAT", "sessions", "journal"} {
		switch _, err := fsys.Lstat(name); {
		case err == nil:
			return true, nil
		case !errors.Is(err, syscall.ENOENT):
			return false, err
		}
	}
	return false, nil
}

// told is ValidateAll's pace that tells Options.Progress how many checkpoints were read.
func (s *dirStore) told() func(int64) error {
	if s.opts.Progress == nil {
		return nil
	}
	s.mu.RLock()
	total := len(s.index.byID)
	s.mu.RUnlock()
	done := 0
	return func(int64) error {
		done = min(done+1, total) // other files are read too
		s.opts.Progress(done, total)
		return nil
	}
}

// newest is the latest time of any checkpoint.
func (s *dirStore) newest() (at time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, sess := range s.index.bySess {
		for _, r := range sess.rows {
			if t := time.Unix(0, s.index.row(r).at); t.After(at) {
				at = t
			}
		}
	}
	return at
}

// mendFormat writes FORMAT anew when it is damaged and not of a newer version.
func mendFormat(fsys vfs.FS, opts Options) ([]Problem, error) {
	s := &dirStore{opts: opts.withDefaults(), fs: fsys, damaged: map[checkpoint.ID]Problem{}, damagedSums: map[checkpoint.ID][]byte{}}
	if err := s.takeLock(); err != nil {
		_ = s.unlock() // nothing was written
		return nil, err
	}
	var problems []Problem
	err := s.checkFormat()
	if errors.Is(err, checkpoint.ErrCorrupt) {
		if err = s.quarantine(checkpoint.ID{}, "FORMAT", err.Error(), nil); err == nil || errors.Is(err, syscall.ENOENT) {
			if err = s.createFile("FORMAT", []byte(formatText)); err == nil {
				err = s.fs.SyncDir("")
			}
		}
		problems = s.problems
	}
	if err = errors.Join(err, s.unlock()); err != nil {
		return nil, s.storageError("mending FORMAT", err)
	}
	return problems, nil
}

// mend puts away what validation only names: what is left in place would be found again.
func (s *dirStore) mend(problems []Problem) error {
	s.round.Lock()
	defer s.round.Unlock()
	for _, p := range problems {
		switch {
		case p.Path == "FORMAT", p.Path == "LOCK", p.Path == reservePath, strings.HasSuffix(p.Path, "/session.json"), strings.HasSuffix(p.Path, "/manifest.jsonl"):
			continue // written anew when the store was opened
		case strings.HasPrefix(p.Path, "journal/") && strings.HasSuffix(p.Path, ".jsonl"):
			continue
		}
		info, err := s.fs.Lstat(p.Path)
		if err != nil {
			continue // it is in quarantine already, or gone
		}
		if _, _, ext, ok := parseSegmentName(strings.TrimPrefix(p.Path, "journal/")); ok && ext != "jsonl" && info.Mode.IsRegular() && info.Size == 0 {
			continue // a marker that was gone: it was made again when the store was opened
		}
		if err := s.quarantine(p.CheckpointID, p.Path, p.Problem, nil); err != nil {
			return s.storageError("putting "+p.Path+" away", err)
		}
		if number, ceiling, ext, ok := parseSegmentName(strings.TrimPrefix(p.Path, "journal/")); ok && ext != "jsonl" {
			if err := s.createFile(markerNames(number, ceiling)[ext[0]-'a'], nil); err != nil {
				return s.storageError("writing a marker", err)
			}
		}
		if p.Path == headPath {
			b := &batch{group: s.headState.Group, next: s.headState.FirstEvent, created: s.headState.Created}
			if err := s.writeHead(b); err != nil {
				return s.storageError("writing "+headPath, err)
			}
		}
	}
	return nil
}

// readOnly refuses every change, as a file system mounted read-only does.
type readOnly struct{ vfs.FS }

func refused(op, path string) error { return &os.PathError{Op: op, Path: path, Err: syscall.EROFS} }

func (r readOnly) Open(path string, flag int) (vfs.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE|os.O_TRUNC) != 0 {
		return nil, refused("open", path)
	}
	return r.FS.Open(path, flag)
}

// Lock makes no file: where LOCK is not there, the lock on the directory says it all.
func (r readOnly) Lock(path string) (vfs.File, error) {
	if _, err := r.FS.Lstat(path); errors.Is(err, syscall.ENOENT) {
		return noLock{}, nil
	}
	f, err := r.FS.Lock(path)
	if err != nil {
		return nil, err
	}
	return lockOnly{f}, nil
}

func (r readOnly) Mkdir(path string) error {
	if _, err := r.FS.Lstat(path); err == nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: syscall.EEXIST}
	}
	return refused("mkdir", path)
}
func (r readOnly) Rename(_, to string) error    { return refused("rename", to) }
func (r readOnly) RenameNew(_, to string) error { return refused("rename", to) }
func (r readOnly) Remove(path string) error     { return refused("remove", path) }
func (r readOnly) SyncDir(path string) error    { return refused("syncdir", path) }
func (r readOnly) SyncFS() error                { return refused("syncfs", "") }

// lockOnly holds a lock and leaves the file as it is.
type lockOnly struct{ vfs.File }

func (l lockOnly) WriteAt(int64, ...[]byte) (int, error) { return 0, refused("write", "LOCK") }
func (l lockOnly) Truncate(int64) error                  { return refused("truncate", "LOCK") }

// noLock stands where there is no LOCK to hold.
type noLock struct{ lockOnly }

func (noLock) Close() error { return nil }

package storage

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// A flush into blocks that a file has already is several times faster than one that has to
// find new ones, on file systems and on the disks below them. So a full segment that retires
// is filled with zeros, beside the work, and becomes a later one.

// retireFile removes a segment's file, or keeps it as a spare.
func (s *dirStore) retireFile(g *segment) error {
	spare := ""
	if s.wantsSpare(g) {
		spare = fmt.Sprintf("tmp/spare-%s", checkpoint.NewID())
		if err := s.fs.Rename(g.path, spare); err != nil {
			spare = ""
		}
	}
	if spare == "" {
		if err := ignoreMissing(s.fs.Remove(g.path)); err != nil {
			return err
		}
	}
	// Its name is gone for good before it is a file without lines.
	if err := s.fs.SyncDir("journal"); err != nil {
		return errors.Join(err, s.dropSpare(spare))
	}
	if spare == "" {
		return nil
	}
	if err := s.blank(spare); err != nil {
		s.opts.Logger.Debug("a segment is not used again", "error", err)
		return s.dropSpare(spare)
	}
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	s.spares = append(s.spares, spare)
	if s.rest == nil {
		s.rest = time.AfterFunc(spareRest, s.dropAtRest)
	} else {
		s.rest.Reset(spareRest)
	}
	return nil
}

// spareRest without a commit is long enough to take a store for one at rest: it keeps nothing.
const spareRest = time.Minute

func (s *dirStore) dropAtRest() {
	s.qmu.Lock()
	left := spareRest - time.Since(s.pace.newest)
	s.qmu.Unlock()
	if left <= 0 {
		s.dropSpares()
		return
	}
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	if len(s.spares) > 0 {
		s.rest.Reset(left)
	}
}

// wantsSpare is for segments that were filled: a store with little in it keeps none. One
// that was found without its end may be about to get it, under whatever name.
func (s *dirStore) wantsSpare(g *segment) bool {
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	return len(s.spares) < s.opts.SpareSegments && !g.damaged && !g.cut &&
		g.end >= s.opts.SegmentBytes/4*3 && g.end <= s.opts.SegmentBytes
}

// blank fills a file with zeros, durable.
func (s *dirStore) blank(path string) error {
	f, err := s.fs.Open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil {
		err = clearRange(f, 0, size)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// takeSpare gives a spare away, "" when there is none.
func (s *dirStore) takeSpare() (path string) {
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	if n := len(s.spares); n > 0 {
		path, s.spares = s.spares[n-1], s.spares[:n-1]
	}
	return path
}

func (s *dirStore) dropSpare(path string) error {
	if path == "" {
		return nil
	}
	return ignoreMissing(s.fs.Remove(path))
}

// dropSpares gives their room back and says whether there was any. It holds the lock until
// they are gone: who closes the store waits for it.
func (s *dirStore) dropSpares() bool {
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	dropped := false
	for _, path := range s.spares {
		if err := s.dropSpare(path); err != nil {
			s.opts.Logger.Warn("a spare segment cannot be removed", "path", path, "error", err)
			continue
		}
		dropped = true
	}
	s.spares = nil
	return dropped
}

// reuse makes a segment's file out of a spare one: what it holds is durable before it is
// named, so no file is nil, and no error, when it was not to be.
func (j *journal) reuse(spare, path string, first *record) (file vfs.File, n int64, sum string, err error) {
	if spare == "" {
		return nil, 0, "", nil
	}
	f, err := j.fs.Open(spare, os.O_RDWR)
	if err == nil {
		if first.Bytes, err = f.Size(); err == nil {
			n, sum, err = j.begin(f, first)
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = j.fs.RenameNew(spare, path)
		if err != nil && !errors.Is(err, syscall.EEXIST) { // where that is a link and a removal, one may be done
			if err := ignoreMissing(j.fs.Remove(path)); err != nil {
				return nil, 0, "", err
			}
		}
	}
	if err != nil {
		return nil, 0, "", ignoreMissing(j.fs.Remove(spare))
	}
	if err = j.fs.SyncDir("tmp"); err != nil { // or a power cut leaves it two names, and a start removes one
		return nil, 0, "", err
	}
	file, err = j.fs.Open(path, os.O_RDWR)
	return file, n, sum, err
}

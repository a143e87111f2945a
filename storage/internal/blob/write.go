package blob

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// flushes is how many files of one content are flushed beside each other.
const flushes = 16

// store writes the objects that are not there yet. A name in the directory is a promise
// that the bytes under it are on the disk: a file is written and flushed under a
// temporary name first. The names themselves become durable with names.flush.
func (s *Store) store(objects []object) error {
	var g errgroup.Group
	g.SetLimit(flushes)
	seen := make(map[Sum]bool, len(objects))
	for _, o := range objects {
		if seen[o.sum] {
			continue
		}
		seen[o.sum] = true
		g.Go(func() error {
			there, err := s.present(o)
			if err != nil || there {
				return err
			}
			return s.write(o)
		})
	}
	return g.Wait()
}

// present says whether a sound object is there already. A damaged one is moved away so
// that it can be written again: here is its content, whole.
func (s *Store) present(o object) (bool, error) {
	path := s.path(o.sum)
	if _, err := s.fs.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	s.mu.Lock()
	known := s.checked[o.sum]
	s.mu.Unlock()
	if known {
		return true, nil
	}
	kind, body, err := s.read(o.sum)
	var damage *Damage
	switch {
	case err == nil && kind == kindList:
		// One that was cut by other rules names chunks that nobody looked for: it is replaced.
		l, err := parseList(body)
		return err == nil && slices.EqualFunc(l.levels, o.levels, slices.Equal), nil
	case err == nil || !errors.As(err, &damage):
		return err == nil, err
	case s.opts.Quarantine == nil:
		return false, damage
	}
	return false, s.opts.Quarantine(damage.Path, damage.Problem)
}

func (s *Store) write(o object) error {
	s.mu.Lock()
	s.tmpCount++
	tmp := fmt.Sprintf("%s/blob-%d", s.opts.Tmp, s.tmpCount)
	s.mu.Unlock()
	f, err := s.fs.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(0, o.stored)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		// Two callers may write one object: either file is whole, and the later name wins.
		err = s.fs.Rename(tmp, s.path(o.sum))
	}
	if err != nil {
		// After a failed flush the file is not trusted, whatever it reads like.
		return errors.Join(err, s.fs.Remove(tmp))
	}
	s.names.change()
	s.mu.Lock()
	if s.bytes >= 0 {
		s.bytes += int64(len(o.stored))
	}
	s.mu.Unlock()
	return nil
}

// names makes the entries of the directory durable, one flush for all who wait.
type names struct {
	fs  vfs.FS
	dir string

	mu      sync.Mutex // guards changed, flushed, failed
	changed uint64
	flushed uint64
	failed  error

	flushing sync.Mutex // taken before mu
}

func (n *names) change() {
	n.mu.Lock()
	n.changed++
	n.mu.Unlock()
}

// flush returns when every name that was there when it was called is durable.
func (n *names) flush() error {
	n.mu.Lock()
	want := n.changed
	n.mu.Unlock()
	n.flushing.Lock()
	defer n.flushing.Unlock()
	n.mu.Lock()
	covers, done, failed := n.changed, n.flushed >= want, n.failed
	n.mu.Unlock()
	if failed != nil || done {
		return failed
	}
	err := n.fs.SyncDir(n.dir)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		// Not tried again: the kernel may call clean what never reached the disk.
		n.failed = fmt.Errorf("%w (%w)", ErrUncertain, err)
		return n.failed
	}
	n.flushed = covers
	return nil
}

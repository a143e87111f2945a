package storage_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// failing is one run of the script with calls that fail.
type failing struct {
	errno  syscall.Errno
	sticky bool // every call from the n-th on, not only that one
	short  bool // writes do half of their work first
	match  func(vfstest.Call) bool
	wrap   func(vfs.FS) vfs.FS
	syncFS bool

	options func(vfs.FS) storage.Options // nil: small
	script  func(*client)                // nil: the usual one

	patience time.Duration // with a store whose disk is well again; zero: as a busy machine needs
}

func (f failing) String() string {
	s := f.errno.Error()
	if f.sticky {
		s += ", for good"
	}
	if f.short {
		s += ", short writes"
	}
	return s
}

// at runs the script with the n-th matching call failing. hit says that there was one.
func (f failing) at(n int) (hit bool, err error) {
	count, cleared := 0, false
	var where vfstest.Call
	disk := vfstest.NewDisk(vfs.NewMem(), func(c vfstest.Call) vfstest.Verdict {
		if cleared || f.match != nil && !f.match(c) {
			return vfstest.Verdict{}
		}
		if count++; count == n {
			where = c
		}
		if count < n || count > n && !f.sticky {
			return vfstest.Verdict{}
		}
		hit = true
		return vfstest.Verdict{Errno: f.errno, Short: f.short && c.Op == "write"}
	})
	var fsys vfs.FS = disk
	if f.wrap != nil {
		fsys = f.wrap(fsys)
	}
	c := &client{w: newWorld()}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%v at %v: %w", f, where, err)
		}
	}()
	if err := f.live(c, fsys, &cleared); err != nil {
		return hit, err
	}
	if v := disk.Violations(); len(v) > 0 {
		return hit, errors.New(strings.Join(v, "; "))
	}
	if n := disk.OpenFiles(); n > 0 {
		return hit, fmt.Errorf("%d files are open after Close", n)
	}
	// Another process finds everything, and no litter; this one left none where it could
	// remove, but for what a journal names that may or may not be on the disk.
	after := disk.Mem().Clone()
	unknown := where.Op == "sync" && strings.HasPrefix(where.Path, "journal/") || where.Op == "syncfs"
	if !f.sticky && where.Op != "remove" && !unknown {
		if err := tidy(after); err != nil {
			return hit, err
		}
	}
	if err := recovered(after, c.w); err != nil {
		return hit, err
	}
	if f.sticky && where.Op == "write" && strings.HasPrefix(where.Path, "journal/") {
		for _, file := range vfstest.Files(after, "quarantine") {
			if !strings.HasSuffix(file, ".torn_tail") { // half a group that could not be taken back
				return hit, fmt.Errorf("%s is left", file)
			}
			if err := after.Remove(file); err != nil {
				return hit, err
			}
		}
	}
	if err := tidy(after); err != nil {
		return hit, err
	}
	// And so does one after a power cut: a flush that failed made nothing durable.
	return hit, c.w.opens(disk.Flushed().Mem)
}

func (f failing) live(c *client, fsys vfs.FS, cleared *bool) error {
	o := small(fsys)
	if f.options != nil {
		o = f.options(fsys)
	}
	o.SyncFS = f.syncFS
	s, err := storage.Open(context.Background(), o)
	if err != nil {
		*cleared = true
		return f.clean(err)
	}
	c.s = s
	if f.script != nil {
		f.script(c)
	} else {
		newScript().run(c)
	}
	for _, err := range c.errs {
		if err := f.clean(err); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	*cleared = true
	// What was acknowledged can be read at once, and unless the store had to turn
	// read-only it takes creates again by itself.
	if err := c.w.check(s); err != nil {
		return errors.Join(err, s.Close())
	}
	if !s.Health().ReadOnly {
		if err := f.takesCreates(c, s); err != nil {
			return errors.Join(fmt.Errorf("the disk is well again, the store is not: %w", err), s.Close())
		}
	}
	// A store that could not publish everything says so; what is left is in the journal.
	if err := s.Close(); err != nil {
		return f.clean(err)
	}
	return nil
}

func (f failing) takesCreates(c *client, s storage.Store) error {
	// A machine may stand still for longer than that: so many tries are made in any case.
	for deadline, tries := time.Now().Add(cmp.Or(f.patience, 20*time.Second)), 500; ; tries-- {
		err := func() error {
			v, _, err := s.CreateSession(context.Background(), storage.NewSession{Name: "again"})
			if err != nil {
				return err
			}
			c.errs = nil
			c.create(v.ID, checkpoint.NewID(), `"again"`, "")
			return errors.Join(c.errs...)
		}()
		if err == nil {
			_, err = s.Sync(context.Background())
		}
		if err == nil || tries <= 0 && time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond) // the store tries again on a timer of its own
	}
}

// clean checks that an error is one that can be shown, and the right kind for a failing
// disk. What follows from a refused request (no such session) is right, too.
func (f failing) clean(err error) error {
	var e *checkpoint.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("not a *checkpoint.Error: %w", err)
	}
	switch e.Kind {
	case checkpoint.KindStorage, checkpoint.KindInvalidState, checkpoint.KindNotFound, checkpoint.KindOverloaded:
		return nil
	}
	return fmt.Errorf("a failing disk is told as %s: %w", e.Kind, err)
}

// tidy checks that nothing lies about: an I/O error moves nothing to quarantine, and what
// was not acknowledged leaves no file.
func tidy(mem *vfs.Mem) error {
	for _, file := range vfstest.Files(mem, ".") {
		if strings.HasPrefix(file, "quarantine/") || strings.HasPrefix(file, "tmp/") && file != "tmp/reserve" {
			return fmt.Errorf("%s is left", file)
		}
	}
	return nil
}

// opens checks a state after a crash with one open.
func (w *world) opens(mem vfs.FS) error {
	s, err := storage.Open(context.Background(), small(mem))
	if err != nil {
		return fmt.Errorf("opening it: %w", err)
	}
	return errors.Join(w.check(s), w.sound(s), s.Close())
}

// sweep fails every n-th call, from 1 until a run is not hit any more.
func (f failing) sweep(step int) (runs int, err error) {
	for n := 1; ; n += step {
		hit, err := f.at(n)
		if err != nil {
			return runs, err
		}
		if runs++; !hit {
			return runs, nil
		}
	}
}

func TestFaultEveryCallFails(t *testing.T) {
	step := 1
	if !full(t) {
		step = 9
	}
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE} {
		for _, sticky := range []bool{false, true} {
			f := failing{errno: errno, sticky: sticky, match: func(c vfstest.Call) bool {
				switch errno {
				case syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS:
					return c.Changes() && c.Op != "lock"
				case syscall.EMFILE:
					return c.Op == "open" || c.Op == "create" || c.Op == "readdir" || c.Op == "syncdir" || c.Op == "lock"
				}
				return true
			}}
			variants := []failing{f}
			if errno == syscall.ENOSPC || errno == syscall.EIO {
				f.short = true
				match := f.match
				f.match = func(c vfstest.Call) bool { return c.Op == "write" && match(c) }
				variants = append(variants, f)
			}
			for _, f := range variants {
				t.Run(f.String(), func(t *testing.T) {
					t.Parallel()
					runs, err := f.sweep(step)
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%d runs", runs)
				})
			}
		}
	}
}

// A flush of the whole file system that fails is final, too: the store is read-only.
func TestFaultEveryFlushOfTheFileSystemFails(t *testing.T) {
	full(t)
	t.Parallel()
	for _, sticky := range []bool{false, true} {
		f := failing{errno: syscall.EIO, sticky: sticky, syncFS: true, match: func(c vfstest.Call) bool { return c.Op == "syncfs" }}
		runs, err := f.sweep(1)
		if err != nil || runs < 3 {
			t.Errorf("%d runs: %v", runs, err)
		}
	}
}

func TestFaultEveryCallFailsNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	for name, f := range map[string]failing{
		"a failed flush is tried again": {errno: syscall.EIO, wrap: func(f vfs.FS) vfs.FS { return vfstest.SyncAgain(f) },
			match: func(c vfstest.Call) bool { return c.Op == "sync" }},
		"an I/O error is taken for damage": {errno: syscall.EIO, wrap: func(f vfs.FS) vfs.FS { return vfstest.ErrorsAsDamage(f) },
			match: func(c vfstest.Call) bool { return c.Op == "read" }},
		"a write that failed is acknowledged": {errno: syscall.ENOSPC, wrap: func(f vfs.FS) vfs.FS { return vfstest.Swallow(f, "journal/") },
			match: func(c vfstest.Call) bool { return c.Op == "write" }},
		"a short write is taken for a whole one": {errno: syscall.EIO, short: true, wrap: func(f vfs.FS) vfs.FS { return vfstest.Swallow(f, "") },
			match: func(c vfstest.Call) bool { return c.Op == "write" }},
		"it does not recover when the disk does": {errno: syscall.ENOSPC, wrap: func(f vfs.FS) vfs.FS { return vfstest.Stuck(f) }, patience: time.Second,
			match: func(c vfstest.Call) bool { return c.Op == "sync" && strings.HasPrefix(c.Path, "sessions/") }},
		"temporary files stay": {errno: syscall.ENOSPC, wrap: func(f vfs.FS) vfs.FS { return vfstest.NoRemove(f, "tmp/") },
			match: vfstest.Call.Changes},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if runs, err := f.sweep(1); err == nil {
				t.Fatalf("%d runs found nothing", runs)
			} else {
				t.Log("noticed:", err)
			}
		})
	}
}

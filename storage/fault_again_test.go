package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// While the index is rebuilt it is not known yet which checkpoints name captured files:
// neither a sync nor the end may collect any.
func TestFilesStayWhileTheIndexIsRebuilt(t *testing.T) {
	for name, end := range map[string]func(*client){
		"sync":  func(c *client) { c.sync() },
		"close": func(*client) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem, w := vfs.NewMem(), newWorld()
			s, err := storage.Open(context.Background(), small(mem))
			if err != nil {
				t.Fatal(err)
			}
			c := &client{s: s, w: w}
			session, named, last := checkpoint.NewID(), checkpoint.NewID(), checkpoint.NewID()
			c.createSession(session)
			c.create(session, named, `{}`, "what it captured")
			var wg sync.WaitGroup
			for range 1100 { // so many that Open does not wait for them
				wg.Add(1)
				n := &storage.NewCheckpoint{SessionID: session, Trigger: checkpoint.Manual, State: json.RawMessage(`{}`)}
				s.Submit(context.Background(), n, func(checkpoint.Receipt, error) { wg.Done() })
			}
			wg.Wait()
			c.create(session, last, `{}`, "what goes")
			if err := errors.Join(append(c.errs, s.Close())...); err != nil {
				t.Fatal(err)
			}
			for _, path := range vfstest.Files(mem, "index") {
				if err := mem.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			var whole atomic.Bool
			disk := vfstest.NewDisk(mem, func(c vfstest.Call) (v vfstest.Verdict) {
				if !whole.Load() && strings.Contains(c.Path, named.String()) {
					v.Errno = syscall.EIO // it is the last to become known
				}
				return v
			})
			if c.s, err = storage.Open(context.Background(), small(disk)); err != nil {
				t.Fatal(err)
			}
			c.delete(last)
			end(c)
			if err := errors.Join(append(c.errs, c.s.Close())...); err != nil {
				t.Fatal(err)
			}
			whole.Store(true)
			if err := recovered(mem, w); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A session that is made again under the id of one that was deleted finds nothing of it.
func TestSessionOfTheSameID(t *testing.T) {
	mem, w := vfs.NewMem(), newWorld()
	s, err := storage.Open(context.Background(), small(mem))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{s: s, w: w}
	session, old := checkpoint.NewID(), checkpoint.NewID()
	c.createSession(session)
	c.create(session, old, `{"old":true}`, "")
	c.annotate(old, "a note")
	c.sync()
	c.deleteSession(session, old)
	c.createSession(session)
	c.create(session, checkpoint.NewID(), `{"old":false}`, "")
	c.sync()
	if err := errors.Join(append(c.errs, w.check(s), w.sound(s), s.Close(), recovered(mem, w))...); err != nil {
		t.Fatal(err)
	}
}

// A store left by a killed process is opened on a medium that takes no writes; then it
// takes them again, some are made, and this process is killed too before it has published.
func TestFaultReadOnlyAfterADeathAndBack(t *testing.T) {
	step := 1
	if !full(t) {
		step = 7
	}
	t.Parallel()
	for n := 1; ; n += step {
		left, w, died := killedAt(n, same)
		if !died {
			return
		}
		after, err := readOnlyAndBack(left, w)
		if err == nil && after != nil {
			err = recovered(after.Clone(), w)
		}
		if err != nil {
			t.Fatalf("killed at call %d: %v\n%s", n, err, journalText(after))
		}
	}
}

// readOnlyAndBack is nil for a store that cannot be opened so: its first start was cut.
func readOnlyAndBack(left *vfs.Mem, w *world) (*vfs.Mem, error) {
	var killed, writes atomic.Bool
	disk := vfstest.NewDisk(left.Clone(), func(c vfstest.Call) vfstest.Verdict {
		v := vfstest.Verdict{Kill: killed.Load()}
		publishes := strings.HasPrefix(c.Path, "events/")
		if c.Changes() && c.Op != "lock" && (publishes || !writes.Load()) {
			v.Errno = syscall.EROFS
		}
		return v
	})
	s, err := storage.Open(context.Background(), small(disk))
	if err != nil {
		if len(w.session) == 0 {
			return nil, nil
		}
		return disk.Mem(), err
	}
	c := &client{s: s, w: w}
	err = w.check(s)
	writes.Store(true)
	session := checkpoint.NewID()
	c.createSession(session)
	c.create(session, checkpoint.NewID(), `"after the mount came back"`, "")
	err = errors.Join(append(c.errs, err, w.check(s))...)
	killed.Store(true)
	_ = s.Close() // the dead do not say how it went
	return disk.Mem(), err
}

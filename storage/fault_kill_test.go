package storage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// killedAt runs the script in a process that dies at the n-th call, and returns what the
// next process finds. died is false when there were fewer calls.
func killedAt(n int, wrap func(vfs.FS) vfs.FS) (left *vfs.Mem, w *world, died bool) {
	disk := vfstest.NewDisk(vfs.NewMem(), func(c vfstest.Call) vfstest.Verdict { return vfstest.Verdict{Kill: c.N == n} })
	c := &client{w: newWorld()}
	s, err := storage.Open(context.Background(), small(wrap(disk)))
	if err == nil {
		c.s = s
		newScript().run(c)
		_ = s.Close() // the dead do not say how it went
	}
	return disk.Mem().Clone(), c.w, disk.Dead()
}

// recoverKilled opens what a killed process left, dying again at each call on the way.
// All ways must lead to what is found when recovery is left in peace.
func recoverKilled(left *vfs.Mem, w *world, step int) (cuts int, err error) {
	want, err := peaceful(left.Clone(), w)
	if err != nil {
		return 0, err
	}
	for k := 1; ; k += step {
		disk := vfstest.NewDisk(left.Clone(), func(c vfstest.Call) vfstest.Verdict { return vfstest.Verdict{Kill: c.N == k} })
		s, err := storage.Open(context.Background(), small(disk))
		if err == nil {
			if _, err = s.Sync(context.Background()); err == nil || disk.Dead() {
				err = s.Close()
			}
		}
		if !disk.Dead() {
			return cuts, err
		}
		cuts++
		got, err := peaceful(disk.Mem().Clone(), w)
		if err != nil {
			return cuts, fmt.Errorf("recovery cut at call %d: %w", k, err)
		}
		if got != want {
			return cuts, fmt.Errorf("recovery cut at call %d ends in another state:\n%s\nnot\n%s", k, got, want)
		}
	}
}

func peaceful(mem *vfs.Mem, w *world) (string, error) {
	s, err := storage.Open(context.Background(), small(mem))
	if err != nil {
		return "", fmt.Errorf("opening it: %w", err)
	}
	d, err := dump(s)
	err = errors.Join(err, w.check(s), w.sound(s), s.Close())
	if err == nil {
		err = tidy(mem)
	}
	return d, err
}

// journalText is the journal of a store as it was found, to tell by what a recovery did.
func journalText(mem *vfs.Mem) string {
	var b strings.Builder
	if _, err := mem.Lstat("journal"); err != nil {
		return err.Error()
	}
	for _, path := range vfstest.Files(mem, "journal") {
		content := vfstest.ReadFile(mem, path)
		text := bytes.TrimRight(content, "\x00")
		fmt.Fprintf(&b, "%s: %d bytes and %d zeros\n%q\n", path, len(text), len(content)-len(text), text)
	}
	return b.String()
}

// unpublished lets a process go on with what a killed one left, on a disk where it cannot
// publish, and kills it too: what all of them acknowledged is in the journal only.
func unpublished(left *vfs.Mem, w *world) (*vfs.Mem, error) {
	var killed atomic.Bool
	disk := vfstest.NewDisk(left.Clone(), func(c vfstest.Call) vfstest.Verdict {
		v := vfstest.Verdict{Kill: killed.Load()}
		if c.Changes() && strings.HasPrefix(c.Path, "events/") {
			v.Errno = syscall.EIO
		}
		return v
	})
	s, err := storage.Open(context.Background(), small(disk))
	if err != nil {
		return nil, fmt.Errorf("opening it: %w", err)
	}
	c := &client{s: s, w: w}
	session := checkpoint.NewID()
	c.createSession(session)
	c.create(session, checkpoint.NewID(), `"of a process that could not publish"`, "")
	err = errors.Join(append(c.errs, w.check(s))...)
	killed.Store(true)
	_ = s.Close() // the dead do not say how it went
	return disk.Mem().Clone(), err
}

// lives is a row of processes that are killed before they could publish.
func lives(left *vfs.Mem, w *world) error {
	w = w.clone()
	for range 2 {
		var err error
		if left, err = unpublished(left, w); err != nil {
			return err
		}
	}
	for range 2 {
		if _, err := peaceful(left, w); err != nil {
			return fmt.Errorf("%w\n%s", err, journalText(left))
		}
	}
	return nil
}

func same(f vfs.FS) vfs.FS { return f }

func TestFaultDiesAtEveryCall(t *testing.T) {
	step, again := 1, 1
	if !full(t) {
		step, again = 5, 17
	}
	t.Parallel()
	var mu sync.Mutex
	deaths, cuts := 0, 0
	const lanes = 4
	for lane := range lanes {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			t.Parallel()
			for n := 1 + lane; ; n += lanes {
				left, w, died := killedAt(n, same)
				if !died {
					return
				}
				k, err := 0, lives(left, w)
				if err == nil && n/lanes%step == 0 {
					k, err = recoverKilled(left, w, again)
				}
				if err != nil {
					t.Fatalf("killed at call %d: %v\n%s", n, err, journalText(left))
				}
				mu.Lock()
				deaths++
				cuts += k
				mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { t.Logf("%d deaths, %d more during recovery", deaths, cuts) })
}

// A store that acknowledged before it wrote would pass a test of clean runs only.
func TestFaultDiesAtEveryCallNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	late := func(f vfs.FS) vfs.FS { return vfstest.LateWrites(f, "journal/") }
	for n := 1; ; n++ {
		left, w, died := killedAt(n, late)
		if !died {
			t.Fatal("a store that writes after it has acknowledged was not noticed")
		}
		if _, err := peaceful(left, w); err != nil {
			t.Log("noticed:", err)
			return
		}
	}
}

// dump is all that a store shows, to compare two recoveries.
func dump(s storage.Store) (string, error) {
	ctx := context.Background()
	var b bytes.Buffer
	sessions, err := s.Sessions(ctx, storage.SessionQuery{Limit: 1000})
	if err != nil {
		return "", err
	}
	for _, v := range sessions.Sessions {
		raw, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s\n", raw)
	}
	list, err := everything(s)
	if err != nil {
		return "", err
	}
	for _, sum := range list {
		st, err := s.Get(ctx, sum.ID)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s %+v\n", st.Raw, st.Annotations)
	}
	return b.String(), nil
}

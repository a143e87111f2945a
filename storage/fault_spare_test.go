package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// rolling makes segments of which a few creates fill one, so that they are written again.
func rolling(fsys vfs.FS) storage.Options {
	o := small(fsys)
	o.SegmentBytes, o.LargeBytes, o.SpareSegments = 4<<10, 64<<10, 2
	return o
}

// rolls fills segments, which retire with each sync, and takes them again.
func rolls(c *client, session checkpoint.ID, rounds int) {
	c.createSession(session)
	for i := range rounds {
		for range 2 + i%2 {
			c.create(session, checkpoint.NewID(), `"`+strings.Repeat("full ", 240)+`"`, "")
		}
		c.sync()
		c.create(session, checkpoint.NewID(), `"in a segment that was written again"`, "")
	}
}

// crashSpares looks at each state that a power cut may leave of segments that are written
// again. What is a spare is none of those files that are removed unread: it gets a name.
func crashSpares(rounds int, wrap func(vfs.FS) vfs.FS) (vfstest.Crashes, error) {
	disk := vfstest.NewDisk(vfs.NewMem(), nil)
	s, err := storage.Open(context.Background(), rolling(wrap(disk)))
	if err != nil {
		return vfstest.Crashes{}, err
	}
	c := &client{s: s, w: newWorld(), note: func(f func(*world)) { disk.Mark(f) }}
	rolls(c, checkpoint.NewID(), rounds)
	if err := errors.Join(append(c.errs, s.Close())...); err != nil {
		return vfstest.Crashes{}, err
	}
	m := vfstest.Model{
		Loose: func(path string) bool { return loose(path) && !strings.HasPrefix(path, "tmp/spare-") },
		Cache: func(path string) bool { return strings.HasPrefix(path, "index/") },
		From:  3, // the first segments are as in other workloads
	}
	return disk.EachCrash(m, func(state vfstest.State) error {
		w := newWorld()
		for _, m := range state.Marks {
			m.(func(*world))(w)
		}
		if err := w.opens(state.Mem); err != nil {
			return fmt.Errorf("%w\n%s", err, journalText(state.Mem))
		}
		return nil
	})
}

// diesWithSpares kills at each call and returns the first contradiction.
func diesWithSpares(step int, wrap func(vfs.FS) vfs.FS) (deaths int, err error) {
	for n := 1; ; n += step {
		disk := vfstest.NewDisk(vfs.NewMem(), func(c vfstest.Call) vfstest.Verdict { return vfstest.Verdict{Kill: c.N == n} })
		c := &client{w: newWorld()}
		s, err := storage.Open(context.Background(), rolling(wrap(disk)))
		if err == nil {
			c.s = s
			rolls(c, checkpoint.NewID(), 4)
			_ = s.Close() // the dead do not say how it went
		}
		if !disk.Dead() {
			return deaths, nil
		}
		deaths++
		left := disk.Mem().Clone()
		if _, err := peaceful(left.Clone(), c.w); err != nil {
			return deaths, fmt.Errorf("killed at call %d: %w\n%s", n, err, journalText(left))
		}
	}
}

func TestFaultSegmentsWrittenAgain(t *testing.T) {
	rounds, step := 3, 1
	if !full(t) {
		rounds, step = 2, 7
	}
	t.Run("deaths", func(t *testing.T) {
		t.Parallel()
		n, err := diesWithSpares(step, same)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d deaths", n)
	})
	t.Run("power cuts", func(t *testing.T) {
		t.Parallel()
		n, err := crashSpares(rounds, same)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", n)
	})
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EMFILE} {
		for _, sticky := range []bool{false, true} {
			f := failing{
				errno: errno, sticky: sticky, options: rolling, script: func(c *client) { rolls(c, checkpoint.NewID(), 4) },
				match: func(c vfstest.Call) bool {
					if errno == syscall.EMFILE {
						return c.Op == "open" || c.Op == "create" || c.Op == "syncdir"
					}
					return c.Changes() && c.Op != "lock"
				},
			}
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

func TestFaultSegmentsWrittenAgainNoticesMutants(t *testing.T) {
	full(t)
	zeros := func(f vfs.FS) vfs.FS { return vfstest.NoZeros(f, "tmp/spare-") }
	for name, run := range map[string]func() (int, error){
		"deaths, spares keep what they held":     func() (int, error) { return diesWithSpares(1, zeros) },
		"power cuts, spares keep what they held": func() (int, error) { n, err := crashSpares(3, zeros); return n.States, err },
		"power cuts, spares are not flushed before they are named": func() (int, error) {
			n, err := crashSpares(3, func(f vfs.FS) vfs.FS { return vfstest.NoSync(f, "tmp/spare-") })
			return n.States, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := run()
			if err == nil {
				t.Fatalf("not noticed in %d", n)
			}
			t.Logf("noticed after %d: %.300s", n, err)
		})
	}
}

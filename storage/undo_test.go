package storage

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// A group that finds no room is taken back. A death anywhere meanwhile, or a power cut, is
// told as no damage and loses nothing, also where not even zeros have room; and with room
// again the store goes on.
func TestAGroupWithoutRoomIsTakenBack(t *testing.T) {
	for name, failing := range map[string]int{"zeros have room": 2, "nothing has room": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			for kill := 1; ; kill++ {
				if !takenBack(t, failing, kill) {
					if kill < 3 {
						t.Fatalf("only %d calls", kill)
					}
					return
				}
			}
		})
	}
}

// takenBack lets some writes of the journal fail and kills at the n-th call after the first
// of them. It returns false when there are not so many before the disk has room again.
func takenBack(t *testing.T, failing, kill int) bool {
	var full atomic.Bool
	writes, calls := 0, 0
	disk := vfstest.NewDisk(vfs.NewMem(), func(c vfstest.Call) vfstest.Verdict {
		if !full.Load() || !strings.HasPrefix(c.Path, "journal/") {
			return vfstest.Verdict{}
		}
		if calls++; calls == kill {
			return vfstest.Verdict{Kill: true}
		}
		if c.Op == "write" {
			if writes++; writes <= failing {
				return vfstest.Verdict{Errno: syscall.ENOSPC, Short: true}
			}
		}
		return vfstest.Verdict{}
	})
	o := Options{FS: disk, SegmentBytes: 1 << 20, ReserveBytes: -1}
	st, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := st.(*dirStore)
	defer func() { _ = s.Close() }()
	session := newSession(t, s, "")
	kept := []checkpoint.Receipt{create(t, s, session, `"kept"`)}
	defer HoldPublisher(s)()
	full.Store(true)
	for _, state := range []string{strings.Repeat("long ", 1000), "short"} { // the second is shorter than what the first left
		r, err := Create(t.Context(), s, &NewCheckpoint{SessionID: session, State: []byte(`"` + state + `"`)})
		if err == nil {
			kept = append(kept, r)
		}
	}
	full.Store(false)
	dead := disk.Dead()
	if !dead {
		kept = append(kept, create(t, s, session, `"again"`))
		if h := s.Health(); h.ReadOnly {
			t.Fatal("it is read-only")
		}
	}
	for _, left := range []*vfs.Mem{disk.Mem().Clone(), disk.Flushed().Mem} {
		again := openAt(t, left, Options{SegmentBytes: 1 << 20, ReserveBytes: -1})
		clean(t, again)
		if len(again.problems) > 0 {
			t.Fatalf("kill at call %d: %+v", kill, again.problems)
		}
		for _, r := range kept {
			if _, err := again.Get(t.Context(), r.CheckpointID); err != nil {
				t.Fatalf("kill at call %d: number %d: %v", kill, r.Sequence, err)
			}
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dead
}

// A disk that is full at the start lets the journal be read, though it cannot be closed yet.
func TestAStartOnAFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{ReserveBytes: -1})
	session := newSession(t, s, "")
	defer HoldPublisher(s)()
	r := create(t, s, session, `"kept"`)
	var full atomic.Bool
	full.Store(true)
	disk := vfstest.NewDisk(mem.Clone(), func(c vfstest.Call) vfstest.Verdict {
		if full.Load() && c.Op == "write" && strings.HasPrefix(c.Path, "journal/") {
			return vfstest.Verdict{Errno: syscall.ENOSPC, Short: true}
		}
		return vfstest.Verdict{}
	})
	again := openAt(t, disk, Options{ReserveBytes: -1})
	if _, err := again.Get(t.Context(), r.CheckpointID); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), again, &NewCheckpoint{SessionID: session}); err == nil {
		t.Fatal("a create was acknowledged without room")
	}
	full.Store(false)
	create(t, again, session, `"again"`)
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := again.Sync(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // the store tries again on a timer of its own
	}
	clean(t, again)
	if len(again.problems) > 0 {
		t.Fatalf("%+v", again.problems)
	}
}

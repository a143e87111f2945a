package storage

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// indexSize is what both files take.
func indexSize(t *testing.T, fsys vfs.FS) (n int64) {
	t.Helper()
	for _, path := range []string{rowsPath, summariesPath} {
		info, err := fsys.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size
	}
	return n
}

func synced(t *testing.T, s Store) {
	t.Helper()
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// idle waits for the publisher to have done what comes after a round.
func idle(t *testing.T, s *dirStore) {
	t.Helper()
	newSession(t, s, "")
	synced(t, s)
	newSession(t, s, "")
	synced(t, s) // the round of this one came after what followed the other's
}

// keepLast deletes all of a session but so many.
func keepLast(t *testing.T, s Store, session checkpoint.ID, keep int64) {
	t.Helper()
	if _, err := s.Compact(t.Context(), session, checkpoint.Retention{KeepRecent: &keep}, CompactOptions{}); err != nil {
		t.Fatal(err)
	}
}

// An index that is mostly dead is written anew, and tells the same.
func TestADeadIndexIsWrittenAnew(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{IndexSlack: 4096}
	s := openAt(t, mem, o)
	a, b, c := newSession(t, s, "a"), newSession(t, s, "b"), newSession(t, s, "c")
	for i := range 200 {
		r := create(t, s, a, fmt.Sprint(i))
		if i > 195 {
			if _, err := s.Annotate(t.Context(), r.CheckpointID, fmt.Sprint("note ", i), checkpoint.Info); err != nil {
				t.Fatal(err)
			}
		}
		create(t, s, []checkpoint.ID{b, c}[i%2], `{}`)
		if i%50 == 0 {
			synced(t, s)
		}
	}
	synced(t, s)
	before := indexSize(t, mem)
	keepLast(t, s, a, 10)
	keepLast(t, s, b, 10)
	if _, err := s.DeleteSession(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	idle(t, s)
	if now := indexSize(t, mem); now > before/4 {
		t.Errorf("%d bytes of index, %d before nearly all was deleted", now, before)
	}
	create(t, s, a, `"after it"`)
	want := shown(t, s)
	for range 2 { // a kill and a clean stop
		killed := openAt(t, mem.Clone(), o)
		if killed.unread != nil {
			t.Error("bodies are read at start")
		}
		if got := shown(t, killed); got != want {
			t.Error(differ(got, want))
		}
		clean(t, killed)
		if err := killed.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	again := openAt(t, mem, o)
	for _, sum := range list(t, again, Query{Limit: 1000}) { // every summary is in the index, none has to be mended
		again.mu.RLock()
		ref := again.summaryRef(again.index.byID[sum.ID])
		again.mu.RUnlock()
		if left, err := again.readSummaries([]*summaryRef{&ref}); ref.n == 0 || err != nil || len(left) > 0 {
			t.Fatalf("number %d is not in the index: %v", sum.Sequence, err)
		}
	}
}

// A session that lives long is pinned anew in each round.
func TestPinsDoNotPileUp(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{IndexSlack: 4096})
	session := newSession(t, s, "k")
	create(t, s, session, `{}`)
	for i := range 300 {
		name := fmt.Sprint("name ", i)
		if _, err := s.ChangeSession(t.Context(), session, SessionChange{Name: &name}); err != nil {
			t.Fatal(err)
		}
		if err := Published(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if got := indexSize(t, mem); got > 4096+2048 {
		t.Fatalf("%d bytes of index after 300 rounds", got)
	}
}

// Pages are whole while the index is written anew under their readers, creates and deletions.
func TestReadersOfAnIndexThatIsWrittenAnew(t *testing.T) {
	s := openAt(t, vfs.NewMem(), Options{IndexSlack: 1})
	stay, go_ := newSession(t, s, "stay"), newSession(t, s, "go")
	for i := range 300 {
		create(t, s, stay, fmt.Sprintf(`"%d"`, i))
	}
	synced(t, s)
	want := list(t, s, Query{SessionID: stay, Limit: 1000})
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				got := list(t, s, Query{SessionID: stay, Limit: 1000})
				for i := range want {
					if len(got) != len(want) || got[i].ID != want[i].ID || got[i].Checksum != want[i].Checksum || got[i].Corrupt {
						t.Errorf("%d of %d are listed, or others", len(got), len(want))
						return
					}
				}
			}
		})
	}
	first := s.log.fileOf(1 << 60)
	for range 8 {
		for range 300 {
			s.Submit(t.Context(), &NewCheckpoint{SessionID: go_, State: []byte(`{}`)}, func(checkpoint.Receipt, error) {})
		}
		synced(t, s)
		keepLast(t, s, go_, 1)
		synced(t, s)
	}
	stop.Store(true)
	wg.Wait()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.log.sums == first {
		t.Fatal("it was never written anew")
	}
}

// Whatever call fails while the index is written anew, or is the last of the process: the
// store shows the same, then and after the next start, and leaves no litter.
func TestEveryCallOfWritingTheIndexAnew(t *testing.T) {
	for _, verdict := range []vfstest.Verdict{{Kill: true}, {Errno: syscall.EIO}, {Errno: syscall.ENOSPC, Short: true}} {
		for n := 1; ; n++ {
			hit, calls := false, 0
			var armed atomic.Bool
			disk := vfstest.NewDisk(vfs.NewMem(), func(c vfstest.Call) vfstest.Verdict {
				ours := strings.HasPrefix(c.Path, "index") || strings.HasPrefix(c.Path, "tmp/") && !strings.HasSuffix(c.Path, "reserve")
				if !armed.Load() || !ours {
					return vfstest.Verdict{}
				}
				if calls++; calls == n {
					hit = true
					return verdict
				}
				return vfstest.Verdict{}
			})
			o := Options{FS: disk, IndexSlack: 1, ReserveBytes: -1}
			st, err := open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			st.loops.Add(1)
			go st.commitLoop() // the publisher is this test
			session := newSession(t, st, "k")
			for range 30 {
				create(t, st, session, `{}`)
			}
			round := func() {
				t.Helper()
				if err := st.publishSome(); err != nil {
					t.Fatal(err)
				}
			}
			round()
			keepLast(t, st, session, 2)
			round()
			want := shown(t, st)
			armed.Store(true)
			st.trimIndex()
			armed.Store(false)
			if !disk.Dead() {
				if got := shown(t, st); got != want {
					t.Fatalf("%+v at call %d: %s", verdict, n, differ(got, want))
				}
				create(t, st, session, `"after"`)
				round()
				want = shown(t, st)
				if left := vfstest.Files(disk.Mem(), "tmp"); len(left) > 0 && verdict.Errno != syscall.EIO {
					t.Fatalf("%+v at call %d leaves %v", verdict, n, left)
				}
			}
			for _, left := range []*vfs.Mem{disk.Mem().Clone(), disk.Flushed().Mem} {
				again := openAt(t, left, Options{ReserveBytes: -1})
				if got := shown(t, again); got != want {
					t.Fatalf("%+v at call %d, the next start: %s", verdict, n, differ(got, want))
				}
				clean(t, again)
				if files := vfstest.Files(left, "tmp"); len(files) > 0 {
					t.Fatalf("%+v at call %d, the next start leaves %v", verdict, n, files)
				}
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
			}
			st.loops.Add(1)
			go st.publishLoop()
			_ = st.Close() // of a process that may be dead
			if !hit {
				if n < 15 {
					t.Fatalf("only %d calls", n)
				}
				break
			}
		}
	}
}

package storage

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// filling are options under which a few creates fill a segment.
var filling = Options{SegmentBytes: 16 << 10, SpareSegments: 2, ReserveBytes: -1}

// fillSegment fills one; with a sync it retires.
func fillSegment(t *testing.T, s *dirStore, session checkpoint.ID) (made []checkpoint.Receipt) {
	t.Helper()
	for i := 0; i == 0 || s.journal.off < filling.SegmentBytes/4*3; i++ {
		made = append(made, create(t, s, session, fmt.Sprintf(`"%d %s"`, i, strings.Repeat("full", 400))))
	}
	return made
}

// fillSegments makes two spares.
func fillSegments(t *testing.T, s *dirStore, session checkpoint.ID) []checkpoint.Receipt {
	t.Helper()
	made := append(fillSegment(t, s, session), create(t, s, session, `"`+strings.Repeat("x", 5000)+`"`))
	made = append(made, fillSegment(t, s, session)...)
	syncs(t, s)
	return made
}

func syncs(t *testing.T, s *dirStore) {
	t.Helper()
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// spares are the files of a store that wait to be segments again; each is nothing but zeros.
func spares(t *testing.T, mem *vfs.Mem) (list []string) {
	t.Helper()
	for _, path := range vfstest.Files(mem, "tmp") {
		if strings.HasPrefix(path, "tmp/spare-") {
			list = append(list, path)
			if b := vfstest.ReadFile(mem, path); len(bytes.Trim(b, "\x00")) > 0 {
				t.Errorf("%s holds %.100q", path, bytes.Trim(b, "\x00"))
			}
		}
	}
	return list
}

// kept checks that all is there and nothing is taken for damage.
func kept(t *testing.T, s *dirStore, made []checkpoint.Receipt) {
	t.Helper()
	clean(t, s)
	if len(s.problems) > 0 {
		t.Errorf("%+v", s.problems)
	}
	for _, r := range made {
		if got, err := s.Get(t.Context(), r.CheckpointID); err != nil || got.Summary.Checksum != r.Checksum {
			t.Fatalf("number %d: %v", r.Sequence, err)
		}
	}
}

func TestFullSegmentsAreWrittenAgain(t *testing.T) {
	var created atomic.Int64
	mem := vfs.NewMem()
	disk := vfstest.NewDisk(mem, func(c vfstest.Call) vfstest.Verdict {
		if c.Op == "create" && strings.HasSuffix(c.Path, ".jsonl") && strings.HasPrefix(c.Path, "journal/") {
			created.Add(1)
		}
		return vfstest.Verdict{}
	})
	s := openAt(t, disk, filling)
	session := newSession(t, s, "")
	made := fillSegments(t, s, session)
	first, before := created.Load(), s.journal.number
	for range 5 {
		made = append(made, fillSegments(t, s, session)...)
	}
	segments, files := s.journal.number-before, created.Load()-first
	if segments < 10 || files > 0 {
		t.Errorf("%d segments made %d files", segments, files)
	}
	if n := len(spares(t, mem)); n == 0 || n > filling.SpareSegments {
		t.Errorf("%d spares", n)
	}
	kept(t, s, made)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if list := vfstest.Files(mem, "tmp"); len(list) > 0 {
		t.Errorf("after the end there are %q", list)
	}
	kept(t, openAt(t, mem, filling), made)
}

func TestSparesGoWhenTheStoreRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openAt(t, mem, filling)
		session := newSession(t, s, "")
		made := fillSegments(t, s, session)
		for range 3 { // less than a minute apart
			time.Sleep(spareRest - time.Second)
			made = append(made, create(t, s, session, `"still at work"`))
		}
		if len(spares(t, mem)) == 0 {
			t.Error("a store at work lost its spares")
		}
		time.Sleep(2 * spareRest)
		synctest.Wait()
		if list := spares(t, mem); len(list) > 0 {
			t.Errorf("a store at rest keeps %q", list)
		}
		made = append(made, fillSegments(t, s, session)...)
		if len(spares(t, mem)) == 0 {
			t.Error("there are no spares any more")
		}
		kept(t, s, made)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSparesGoWhenTheDiskIsFull(t *testing.T) {
	mem := vfs.NewMem()
	var full atomic.Bool
	disk := vfstest.NewDisk(mem, func(c vfstest.Call) vfstest.Verdict {
		if full.Load() && c.Op == "write" && strings.HasPrefix(c.Path, "journal/") && len(spares(t, mem)) > 0 {
			return vfstest.Verdict{Errno: syscall.ENOSPC, Short: true} // there is as much room as the spares hold
		}
		return vfstest.Verdict{}
	})
	s := openAt(t, disk, filling)
	session := newSession(t, s, "")
	made := fillSegments(t, s, session)
	made = append(made, create(t, s, session, `"in a segment of its own"`))
	if len(spares(t, mem)) == 0 {
		t.Fatal("there are no spares: this test tests nothing")
	}
	full.Store(true)
	made = append(made, create(t, s, session, `"in the spares' room"`))
	if list := spares(t, mem); len(list) > 0 {
		t.Errorf("the disk is full, and there are %q", list)
	}
	kept(t, s, made)
}

// A killed store leaves spares, which the next start removes, and segments that were
// written again, in which every changed byte is found as in any other.
func TestAKilledStoreWithSpares(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, filling)
	session := newSession(t, s, "")
	made := fillSegments(t, s, session)
	if len(spares(t, mem)) < 2 {
		t.Fatalf("there are %q", spares(t, mem))
	}
	release := HoldPublisher(s)
	for i := range 3 {
		made = append(made, create(t, s, session, fmt.Sprint(i)))
	}
	if n := len(spares(t, mem)); n != 1 {
		t.Fatalf("there are %d spares", n)
	}
	path, left := s.journal.current.path, mem.Clone()
	release()

	again := openAt(t, left.Clone(), filling)
	kept(t, again, made)
	if list := spares(t, again.fs.(*vfs.Mem)); len(list) > 0 {
		t.Errorf("a start leaves %q", list)
	}
	was := vfstest.ReadFile(left, path)
	lines := bytes.SplitAfter(bytes.TrimRight(was, "\x00"), []byte("\n"))
	end := len(bytes.Join(lines[:len(lines)-3], nil)) // the last group may be torn
	if int64(len(was)) < filling.SegmentBytes/4*3 || end < 100 {
		t.Fatalf("%d bytes of %d: it is no segment that was written again", end, len(was))
	}
	for i := 0; i < end; i += 13 {
		m, b := left.Clone(), bytes.Clone(was)
		b[i] ^= 1
		vfstest.WriteFile(m, path, b)
		s := openAt(t, m, filling)
		if !slices.ContainsFunc(s.problems, func(p Problem) bool { return p.Path == path }) {
			t.Fatalf("byte %d of %d: %+v", i, end, s.problems)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < len(was); i += 1009 {
		m := left.Clone()
		vfstest.WriteFile(m, path, was[:i])
		s := openAt(t, m, filling)
		if len(s.problems) == 0 {
			t.Fatalf("cut to %d bytes of %d: not noticed", i, len(was))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A segment that a start on a full disk could not end is ended later: it is no spare, which
// would get its lines, and what a torn group left behind them.
func TestASegmentWithoutItsEndIsNoSpare(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, filling)
	session := newSession(t, s, "")
	release := HoldPublisher(s)
	var made []checkpoint.Receipt
	for s.journal.off < filling.SegmentBytes/4*3+500 {
		made = append(made, create(t, s, session, `"`+strings.Repeat("x", 900)+`"`))
	}
	path, off, left := s.journal.current.path, s.journal.off, mem.Clone()
	release()
	b := vfstest.ReadFile(left, path)
	copy(b[off:], `{"checksum":"sha256:0000`)
	vfstest.WriteFile(left, path, b)
	var full atomic.Bool
	full.Store(true)
	disk := vfstest.NewDisk(left, func(c vfstest.Call) vfstest.Verdict {
		if full.Load() && c.Op == "write" && c.Path == path {
			return vfstest.Verdict{Errno: syscall.ENOSPC}
		}
		return vfstest.Verdict{}
	})
	again := openAt(t, disk, filling)
	full.Store(false)
	syncsAgain(t, again)
	if list := spares(t, left); len(list) > 0 {
		t.Errorf("it was kept as %q", list)
	}
	for range 3 {
		made = append(made, fillSegments(t, again, session)...)
		spares(t, left)
	}
	kept(t, again, made)
}

// What one group makes larger than a segment should be holds no room.
func TestAnOversizeSegmentIsNoSpare(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, filling)
	session := newSession(t, s, "")
	create(t, s, session, `"`+strings.Repeat("x", 100<<10)+`"`)
	syncs(t, s)
	for _, path := range spares(t, mem) {
		if n := int64(len(vfstest.ReadFile(mem, path))); n > filling.SegmentBytes {
			t.Errorf("%s has %d bytes", path, n)
		}
	}
}

// A segment that cannot be made takes no spare with it.
func TestASpareStaysWhenNoSegmentIsMade(t *testing.T) {
	mem := vfs.NewMem()
	var failing atomic.Bool
	disk := vfstest.NewDisk(mem, func(c vfstest.Call) vfstest.Verdict {
		if failing.Load() && c.Path == "journal/litter" {
			return vfstest.Verdict{Errno: syscall.EPERM}
		}
		return vfstest.Verdict{}
	})
	s := openAt(t, disk, filling)
	session := newSession(t, s, "")
	fillSegments(t, s, session)
	before := spares(t, mem)
	s.journal.litter = []string{"journal/litter"}
	failing.Store(true)
	for range 3 {
		if _, err := Create(t.Context(), s, &NewCheckpoint{SessionID: session}); err == nil {
			t.Fatal("acknowledged without a segment")
		}
	}
	failing.Store(false)
	if s.spareMu.Lock(); len(before) == 0 || !slices.Equal(s.spares, before) {
		t.Errorf("there were %q, and now %q", before, s.spares)
	}
	s.spareMu.Unlock()
	create(t, s, session, `{}`)
}

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

// On a full disk checkpoints wait in the journal for room that only a deletion makes, and
// that one waits behind them.
func TestADeletionMakesRoomForWhatIsBeforeIt(t *testing.T) {
	for _, syncFS := range []bool{false, true} {
		var files atomic.Int64 // that there is room for
		files.Store(3)
		mem := vfs.NewMem()
		disk := vfstest.NewDisk(mem, func(c vfstest.Call) vfstest.Verdict {
			if strings.Contains(c.Path, "/checkpoints/") && c.Op == "create" && files.Add(-1) < 0 {
				files.Add(1)
				return vfstest.Verdict{Errno: syscall.ENOSPC}
			}
			if strings.Contains(c.Path, "/checkpoints/") && c.Op == "remove" {
				files.Add(1)
			}
			return vfstest.Verdict{}
		})
		s := openAt(t, disk, Options{SyncFS: syncFS})
		session := newSession(t, s, "")
		var ids []checkpoint.ID
		for range 3 {
			ids = append(ids, create(t, s, session, `{}`).CheckpointID)
		}
		if _, err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			ids = append(ids, create(t, s, session, `{}`).CheckpointID)
		}
		if _, err := s.Sync(t.Context()); err == nil {
			t.Fatal("there was room: this test tests nothing")
		}
		for _, id := range ids[:3] {
			if err := s.Delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		syncsAgain(t, s)
		clean(t, s)
		left := mem.Clone()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := openAt(t, left, Options{})
		clean(t, again)
		if got := list(t, again, Query{}); len(got) != 2 || got[0].ID != ids[3] {
			t.Fatalf("%+v", got)
		}
	}
}

// syncsAgain waits until the publisher, which tries by itself, has found room.
func syncsAgain(t *testing.T, s Store) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := s.Sync(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// When the journal fills the disk with what was deleted, its first segment must go before
// there is room for a file.
func TestAJournalOfDeletedCheckpointsMakesRoom(t *testing.T) {
	mem := vfs.NewMem()
	const first = "journal/00000000000000000001-00000000000000065536.jsonl"
	disk := vfstest.NewDisk(mem, func(c vfstest.Call) vfstest.Verdict {
		if _, err := mem.Lstat(first); err == nil && c.Op == "create" && strings.Contains(c.Path, "/checkpoints/") {
			return vfstest.Verdict{Errno: syscall.ENOSPC}
		}
		return vfstest.Verdict{}
	})
	s := openAt(t, disk, Options{SegmentBytes: 4 << 10})
	session := newSession(t, s, "")
	var ids []checkpoint.ID
	for range 20 {
		ids = append(ids, create(t, s, session, `"`+strings.Repeat("x", 1000)+`"`).CheckpointID)
	}
	if _, err := mem.Lstat(first); err != nil {
		t.Fatal("there was room: this test tests nothing")
	}
	for _, id := range ids[:19] {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	syncsAgain(t, s)
	clean(t, s)
}

// Ids may be used again after a deletion. In small rounds the old one's turn comes alone.
func TestASmallRoundPublishesNothingUnderAnOldID(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	session, id := checkpoint.NewID(), checkpoint.NewID()
	s.round.Lock() // nothing is published
	s.fewer = 1
	for range 2 {
		if _, _, err := s.CreateSession(t.Context(), NewSession{ID: session}); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(t.Context(), s, &NewCheckpoint{ID: id, SessionID: session, State: []byte(`{}`), Trigger: checkpoint.Manual}); err != nil {
			t.Fatal(err)
		}
		if len(list(t, s, Query{})) == 1 && s.sequence == 1 {
			if _, err := s.DeleteSession(t.Context(), session); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.round.Unlock()
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean(t, s)
	again := openAt(t, mem.Clone(), Options{})
	clean(t, again)
	if got := list(t, again, Query{}); len(got) != 1 || got[0].ID != id || got[0].Sequence != 2 {
		t.Fatalf("%+v", got)
	}
}

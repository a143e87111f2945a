package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

func openAt(t *testing.T, fsys vfs.FS, opts Options) *dirStore {
	t.Helper()
	opts.FS = fsys
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test that minds has closed it before
	return s.(*dirStore)
}

func newSession(t *testing.T, s Store, key string) checkpoint.ID {
	t.Helper()
	v, _, err := s.CreateSession(t.Context(), NewSession{Name: "test", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return v.ID
}

func create(t *testing.T, s Store, session checkpoint.ID, state string) checkpoint.Receipt {
	t.Helper()
	r, err := Create(t.Context(), s, &NewCheckpoint{SessionID: session, Message: "m", Tags: []string{"a"}, State: []byte(state)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func list(t *testing.T, s Store, q Query) []checkpoint.Summary {
	t.Helper()
	p, err := s.List(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []checkpoint.Summary
	for _, raw := range p.Summaries {
		var sum checkpoint.Summary
		if err := json.Unmarshal(raw, &sum); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		out = append(out, sum)
	}
	return out
}

func clean(t *testing.T, s Store) {
	t.Helper()
	r, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) > 0 || r.Invalid > 0 || r.Skipped > 0 {
		t.Fatalf("%+v", r)
	}
}

func TestStoreKeepsWhatItAcknowledged(t *testing.T) {
	states := []string{`{"a":1.0,"a":1e400}`, `null`, `"x\",\"parent_id\":\"y"`, `[` + strings.Repeat(`"0123456789",`, 40000) + `0]`}
	for _, how := range []string{"clean stop", "kill", "sync"} {
		t.Run(how, func(t *testing.T) {
			mem := vfs.NewMem()
			s := openAt(t, mem, Options{})
			id := newSession(t, s, "k")
			var made []checkpoint.Receipt
			for _, st := range states {
				made = append(made, create(t, s, id, st))
			}
			if made[0].Sequence != 1 {
				t.Fatalf("the first number is %d", made[0].Sequence)
			}
			if _, err := s.Annotate(t.Context(), made[1].CheckpointID, "look", checkpoint.Warning); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), made[0].CheckpointID); err != nil {
				t.Fatal(err)
			}
			disk := mem
			switch how {
			case "kill":
				disk = mem.Clone()
			case "sync":
				if _, err := s.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				disk = mem.Clone()
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := openAt(t, disk, Options{})
			for i, m := range made[1:] {
				st, err := again.Get(t.Context(), m.CheckpointID)
				if err != nil {
					t.Fatal(err)
				}
				if string(st.State) != states[i+1] || st.Summary.Checksum != m.Checksum || st.Summary.Sequence != m.Sequence {
					t.Fatalf("other content came back: %.200s %+v %+v", st.State, st.Summary, m)
				}
				if hexSum(st.Raw) != strings.TrimPrefix(m.Checksum, "sha256:") {
					t.Fatal("the checksum is not over Raw")
				}
			}
			if _, err := again.Get(t.Context(), made[0].CheckpointID); !errors.Is(err, checkpoint.ErrNotFound) {
				t.Fatalf("deleted: %v", err)
			}
			got := list(t, again, Query{SessionID: id})
			if len(got) != 3 || got[0].AnnotationCount != 1 || !got[0].HasNotes || got[1].ParentID != got[0].ID {
				t.Fatalf("%+v", got)
			}
			if r := create(t, again, id, `{}`); r.Sequence <= made[3].Sequence {
				t.Fatalf("number %d after %d", r.Sequence, made[3].Sequence)
			}
			if how == "clean stop" && again.sequence != 5 {
				t.Fatalf("a clean stop skips numbers: %d", again.sequence)
			}
			clean(t, again)
			if _, err := again.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			clean(t, again)
			entries, err := disk.ReadDir("journal")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.HasSuffix(e.Name, ".jsonl") {
					t.Fatalf("after Sync the journal holds %s", e.Name)
				}
			}
		})
	}
}

func TestStoreOnARealDisk(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir, SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	id := newSession(t, s, "")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				_, err := Create(context.Background(), s, &NewCheckpoint{SessionID: id, Message: fmt.Sprint(w, i), State: []byte(`{"x":` + fmt.Sprint(i) + `}`)})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	clean(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := list(t, s, Query{SessionID: id, Limit: 1000})
	if len(got) != 400 || got[399].Sequence != 400 {
		t.Fatalf("%d, %d", len(got), got[len(got)-1].Sequence)
	}
	for i := 1; i < len(got); i++ {
		if got[i].ParentID != got[i-1].ID {
			t.Fatalf("parent of %d", got[i].Sequence)
		}
	}
	clean(t, s)
}

func TestCreateIsIdempotentByID(t *testing.T) {
	s := openAt(t, vfs.NewMem(), Options{})
	id := newSession(t, s, "")
	c := func() *NewCheckpoint {
		return &NewCheckpoint{ID: checkpoint.ID{1, 2, 3}, SessionID: id, Message: "m", State: []byte(`{"a":1}`)}
	}
	first, err := Create(t.Context(), s, c())
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, id, `{}`)
	again, err := Create(t.Context(), s, c())
	first.Existing = true
	if err != nil || again != first {
		t.Fatalf("%+v %v", again, err)
	}
	other := c()
	other.State = []byte(`{"a":2}`)
	if _, err := Create(t.Context(), s, other); !errors.Is(err, checkpoint.ErrConflict) {
		t.Fatal(err)
	}
	named := c()
	named.ParentID = first.CheckpointID
	if _, err := Create(t.Context(), s, named); !errors.Is(err, checkpoint.ErrConflict) {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), first.CheckpointID); err != nil {
		t.Fatal(err)
	}
	fresh, err := Create(t.Context(), s, other)
	if err != nil || fresh.Existing || fresh.Sequence <= 2 {
		t.Fatalf("%+v %v", fresh, err)
	}
}

// A cursor that was given out before anything was published names the same events after
// a crash: the journal knows which store it belongs to.
func TestCursorsSurviveACrashBeforeTheFirstPublication(t *testing.T) {
	disk := vfs.NewMem()
	s, err := open(t.Context(), Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	s.loops.Add(1)
	go s.commitLoop() // and no publisher
	page, err := s.Events(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	newSession(t, s, "k")
	s.qmu.Lock()
	s.closing = true
	s.qbell.Broadcast()
	s.qmu.Unlock()
	s.loops.Wait()
	if err := s.release(); err != nil {
		t.Fatal(err)
	}
	if page, err = openAt(t, disk, Options{}).Events(t.Context(), page.Cursor, 0); err != nil || page.Fresh || len(page.Events) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
}

// Damage that a start finds is told as damage that a read finds is: once.
func TestDamageFoundAtTheStartIsToldOnce(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	id := newSession(t, s, "")
	c := create(t, s, id, `{"n":1}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := checkpointPath(id, c.Sequence, c.CheckpointID)
	f, err := mem.Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(100, []byte("?")); err != nil {
		t.Fatal(err)
	}
	if err := mem.Remove(rowsPath); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = openAt(t, mem, Options{})
		_, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil)
		if err == nil {
			_, err = s.Sync(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Events(t.Context(), s.cursor(0), 10)
		if err != nil || len(p.Events) != 3 || p.Events[2].Event.Type != checkpoint.EventCorrupt || p.Events[2].Event.SessionID != id || p.Events[2].Event.Path != path {
			t.Fatalf("%+v %v", p, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// The tests named TestFault… run by make test-fault: FORGE_CPD_FAULT=full, or short.
// full says whether the long form is asked for; with neither form the test is skipped.
func full(t *testing.T) bool {
	t.Helper()
	switch form := os.Getenv("FORGE_CPD_FAULT"); form {
	case "":
		t.Skip("FORGE_CPD_FAULT is not set: make test-fault sets it")
	case "full":
		return true
	case "short":
	default:
		t.Fatalf("FORGE_CPD_FAULT=%s: it is full or short", form)
	}
	return false
}

// small makes a store that has little on the disk, so that a test can look at all of it.
func small(fsys vfs.FS) storage.Options {
	return storage.Options{
		FS: fsys, SegmentBytes: 16 << 10, LargeBytes: 4 << 10, SequenceBlock: 64, ReserveBytes: 8 << 10,
		GroupBytes: 32 << 10, PublishWorkers: 2, IndexSlack: 1,
	}
}

// world is what a client knows: what it asked for, and what was acknowledged.
type world struct {
	mu      sync.Mutex
	made    map[checkpoint.ID]made
	going   map[checkpoint.ID]bool // deletion was asked for
	gone    map[checkpoint.ID]bool // deletion was acknowledged
	notes   map[checkpoint.ID][]string
	session map[checkpoint.ID]bool // acknowledged; false: its deletion was asked for
	highest uint64
}

type made struct {
	sequence uint64
	checksum string
	state    string
	file     string
}

func newWorld() *world {
	return &world{
		made: map[checkpoint.ID]made{}, going: map[checkpoint.ID]bool{}, gone: map[checkpoint.ID]bool{},
		notes: map[checkpoint.ID][]string{}, session: map[checkpoint.ID]bool{},
	}
}

func (w *world) clone() *world {
	return &world{
		made: maps.Clone(w.made), going: maps.Clone(w.going), gone: maps.Clone(w.gone), notes: maps.Clone(w.notes),
		session: maps.Clone(w.session), highest: w.highest,
	}
}

// client runs requests against a store and keeps the world. note, if set, is told of each
// step: before a request what it may do, after it what was acknowledged.
type client struct {
	s    storage.Store
	w    *world
	note func(func(*world))
	errs []error
}

func (c *client) tell(f func(*world)) {
	c.w.mu.Lock()
	f(c.w)
	c.w.mu.Unlock()
	if c.note != nil {
		c.note(f)
	}
}

// failed keeps an error and checks that it is one that a caller can be shown.
func (c *client) failed(err error) bool {
	if err != nil {
		c.errs = append(c.errs, err)
	}
	return err != nil
}

func (c *client) createSession(id checkpoint.ID) {
	_, _, err := c.s.CreateSession(context.Background(), storage.NewSession{ID: id, Name: "s", Key: "key-" + id.String()})
	if !c.failed(err) {
		c.tell(func(w *world) { w.session[id] = true })
	}
}

func (c *client) create(session, id checkpoint.ID, state, file string) {
	n := &storage.NewCheckpoint{ID: id, SessionID: session, Message: "m", Tags: []string{"t"}, Trigger: checkpoint.Manual, State: json.RawMessage(state)}
	if file != "" {
		n.Files = []storage.FileContent{{Path: "f", Mode: 0o600, Content: []byte(file)}}
	}
	r, err := storage.Create(context.Background(), c.s, n)
	if !c.failed(err) {
		c.acknowledge(r, state, file)
	}
}

func (c *client) acknowledge(r checkpoint.Receipt, state, file string) {
	c.tell(func(w *world) {
		w.made[r.CheckpointID] = made{r.Sequence, r.Checksum, state, file}
		w.highest = max(w.highest, r.Sequence)
	})
}

// createMany sends several creates before it waits for the first.
func (c *client) createMany(session checkpoint.ID, list ...checkpoint.ID) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, id := range list {
		state := fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("p", 300))
		wg.Add(1)
		c.s.Submit(context.Background(), &storage.NewCheckpoint{ID: id, SessionID: session, Trigger: checkpoint.Manual, State: json.RawMessage(state)},
			func(r checkpoint.Receipt, err error) {
				defer wg.Done()
				mu.Lock()
				defer mu.Unlock()
				if !c.failed(err) {
					c.acknowledge(r, state, "")
				}
			})
	}
	wg.Wait()
}

func (c *client) annotate(id checkpoint.ID, note string) {
	_, err := c.s.Annotate(context.Background(), id, note, checkpoint.Info)
	if !c.failed(err) {
		c.tell(func(w *world) { w.notes[id] = append(slices.Clip(w.notes[id]), note) })
	}
}

func (c *client) delete(id checkpoint.ID) {
	c.tell(func(w *world) { w.going[id] = true })
	if !c.failed(c.s.Delete(context.Background(), id)) {
		c.tell(func(w *world) { w.gone[id] = true })
	}
}

// compact removes some of all, or with nil of everything that was acknowledged.
func (c *client) compact(session checkpoint.ID, keep int64, all []checkpoint.ID) {
	if all == nil {
		all = slices.Collect(maps.Keys(c.w.made))
	}
	all = slices.DeleteFunc(slices.Clone(all), func(id checkpoint.ID) bool { return c.w.going[id] })
	c.tell(func(w *world) {
		for _, id := range all {
			w.going[id] = true
		}
	})
	got, err := c.s.Compact(context.Background(), session, checkpoint.Retention{KeepRecent: &keep}, storage.CompactOptions{})
	if c.failed(err) {
		return
	}
	c.tell(func(w *world) {
		for _, id := range all {
			if slices.Contains(got.DeletedIDs, id) {
				w.gone[id] = true
			} else if !w.gone[id] {
				delete(w.going, id)
			}
		}
	})
}

func (c *client) close(session checkpoint.ID) {
	closed := checkpoint.Closed
	_, err := c.s.ChangeSession(context.Background(), session, storage.SessionChange{Status: &closed})
	c.failed(err)
}

func (c *client) fork(from, id checkpoint.ID) {
	_, err := c.s.Fork(context.Background(), from, storage.NewSession{ID: id, Name: "fork"})
	if !c.failed(err) {
		c.tell(func(w *world) { w.session[id] = true })
	}
}

func (c *client) deleteSession(id checkpoint.ID, with ...checkpoint.ID) {
	c.tell(func(w *world) {
		delete(w.session, id)
		for _, cp := range with {
			w.going[cp] = true
		}
	})
	_, err := c.s.DeleteSession(context.Background(), id)
	if !c.failed(err) {
		c.tell(func(w *world) {
			for _, cp := range with {
				w.gone[cp] = true
			}
		})
	}
}

func (c *client) restore(session, id checkpoint.ID) {
	_, err := c.s.Restore(context.Background(), session, id, true)
	c.failed(err)
}

func (c *client) sync() {
	_, err := c.s.Sync(context.Background())
	c.failed(err)
}

// script is a bit of everything, with the ids that it uses.
type script struct {
	a, b, f checkpoint.ID
	c       []checkpoint.ID
}

func newScript() *script {
	s := &script{a: checkpoint.NewID(), b: checkpoint.NewID(), f: checkpoint.NewID()}
	for range 12 {
		s.c = append(s.c, checkpoint.NewID())
	}
	return s
}

func (s *script) run(c *client) {
	c.createSession(s.a)
	c.create(s.a, s.c[0], `{"n":0}`, "")
	c.create(s.a, s.c[1], `{"n":1}`, strings.Repeat("a captured file\n", 50))
	c.createSession(s.b)
	c.create(s.b, s.c[2], `"`+strings.Repeat("large ", 1000)+`"`, "")
	c.annotate(s.c[0], "a note")
	c.createMany(s.a, s.c[3:6]...)
	c.delete(s.c[1])
	c.sync()
	c.fork(s.c[0], s.f)
	c.create(s.a, s.c[6], `"`+strings.Repeat("another ", 1000)+`"`, "short")
	c.restore(s.a, s.c[0])
	c.createMany(s.a, s.c[7:10]...)
	c.annotate(s.c[6], "another note")
	c.compact(s.a, 4, []checkpoint.ID{s.c[0], s.c[3], s.c[4], s.c[5], s.c[6], s.c[7], s.c[8], s.c[9]})
	c.close(s.b)
	c.deleteSession(s.b, s.c[2])
	c.create(s.a, s.c[10], `null`, "")
}

// check holds a store against what the client knows. It returns the first contradiction.
func (w *world) check(s storage.Store) error {
	ctx := context.Background()
	for id, m := range w.made {
		st, err := s.Get(ctx, id)
		if err != nil {
			if errors.Is(err, checkpoint.ErrNotFound) && w.going[id] {
				continue
			}
			return fmt.Errorf("number %d was acknowledged: %w", m.sequence, err)
		}
		switch {
		case w.gone[id]:
			return fmt.Errorf("number %d is back after its deletion was acknowledged", m.sequence)
		case string(st.State) != m.state || st.Summary.Sequence != m.sequence || st.Summary.Checksum != m.checksum:
			return fmt.Errorf("number %d came back as number %d with other content", m.sequence, st.Summary.Sequence)
		}
		if m.file != "" {
			if _, content, err := s.ReadFile(ctx, id, "f"); err != nil || string(content) != m.file {
				return fmt.Errorf("number %d lost its file: %w", m.sequence, err)
			}
		}
		for _, note := range w.notes[id] {
			if !slices.ContainsFunc(st.Annotations, func(a checkpoint.Annotation) bool { return a.Note == note }) {
				return fmt.Errorf("number %d lost the note %q", m.sequence, note)
			}
		}
	}
	for id := range w.session {
		if _, err := s.Session(ctx, storage.Ref{ID: id}); err != nil {
			return fmt.Errorf("a session was acknowledged: %w", err)
		}
	}
	return nil
}

// sound checks what holds whatever was asked for: everything verifies, no number is there
// twice, and the next number is a new one.
func (w *world) sound(s storage.Store) error {
	ctx := context.Background()
	r, err := s.ValidateAll(ctx, checkpoint.ID{}, nil)
	if err != nil {
		return err
	}
	if r.Invalid > 0 || r.Skipped > 0 || len(r.Problems) > 0 {
		return fmt.Errorf("damaged: %+v", r)
	}
	highest := w.highest
	seen := map[uint64]bool{}
	list, err := everything(s)
	if err != nil {
		return err
	}
	if len(list) != r.Valid {
		return fmt.Errorf("%d checkpoints are listed and %d can be read", len(list), r.Valid)
	}
	for _, sum := range list {
		if seen[sum.Sequence] {
			return fmt.Errorf("number %d is there twice", sum.Sequence)
		}
		seen[sum.Sequence] = true
		highest = max(highest, sum.Sequence)
	}
	session, _, err := s.CreateSession(ctx, storage.NewSession{Name: "after"})
	if err != nil {
		return err
	}
	got, err := storage.Create(ctx, s, &storage.NewCheckpoint{SessionID: session.ID, Trigger: checkpoint.Manual, State: json.RawMessage(`{}`)})
	if err != nil {
		return err
	}
	if got.Sequence <= highest {
		return fmt.Errorf("number %d is given after %d", got.Sequence, highest)
	}
	return nil
}

func everything(s storage.Store) ([]checkpoint.Summary, error) {
	var list []checkpoint.Summary
	for q := (storage.Query{Limit: 50}); ; {
		page, err := s.List(context.Background(), q)
		if err != nil {
			return nil, err
		}
		for _, raw := range page.Summaries {
			var sum checkpoint.Summary
			if err := json.Unmarshal(raw, &sum); err != nil {
				return nil, err
			}
			list = append(list, sum)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return list, nil
		}
	}
}

// recovered opens a store that was left behind, checks it, and opens it again.
func recovered(mem vfs.FS, w *world) error {
	for _, check := range []func(storage.Store) error{w.check, w.sound, w.check} {
		s, err := storage.Open(context.Background(), small(mem))
		if err != nil {
			return fmt.Errorf("opening it: %w", err)
		}
		if err := errors.Join(check(s), s.Close()); err != nil {
			return err
		}
	}
	return nil
}

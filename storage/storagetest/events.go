package storagetest

import (
	"fmt"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var eventTests = map[string]func(*harness){
	"EveryChangeIsOneEvent":          everyEvent,
	"CursorsReplayAcrossReopen":      cursorsReplay,
	"ACursorThatIsNoneIsRefused":     noCursor,
	"EventsAreInTheOrderOfNumbers":   eventOrder,
	"WaitersAreWoken":                waitersWake,
	"EventsThatAreNoChangesOfAStore": foreignEvents,
}

// lastCursor is where the events are now.
func (h *harness) lastCursor() string {
	h.Helper()
	page, err := h.s.Events(h.Context(), "", 100)
	h.must(err)
	if len(page.Events) != 0 || !page.Fresh || page.Cursor == "" {
		h.Fatalf("from now on: %+v", page)
	}
	return page.Cursor
}

// since returns what came after a cursor, a few at a time.
func (h *harness) since(cursor string) []checkpoint.Event {
	h.Helper()
	var events []checkpoint.Event
	for {
		page, err := h.s.Events(h.Context(), cursor, 3)
		h.must(err)
		if page.Fresh {
			h.Fatal("a cursor was forgotten")
		}
		for _, e := range page.Events {
			events = append(events, e.Event)
		}
		if len(page.Events) == 0 {
			return events
		}
		if last := page.Events[len(page.Events)-1].Cursor; last != page.Cursor || last == cursor {
			h.Fatalf("the page's cursor is %q, that of its last event %q, it came after %q", page.Cursor, last, cursor)
		}
		cursor = page.Cursor
	}
}

func everyEvent(h *harness) {
	start := h.lastCursor()
	s := h.session("s")
	a := h.create(s.ID, "a")
	b := h.create(s.ID, "b", cause(checkpoint.CauseError))
	h.create(s.ID, "b", withID(a.CheckpointID), func(c *storage.NewCheckpoint) { c.Message = "a"; c.State = []byte(`{"message":"a"}`) }) // existing: no event
	_, err := h.s.Annotate(h.Context(), a.CheckpointID, "n", checkpoint.Info)
	h.must(err)
	_, err = h.s.Restore(h.Context(), s.ID, a.CheckpointID, false) // moves nothing
	h.must(err)
	_, err = h.s.Restore(h.Context(), s.ID, a.CheckpointID, true)
	h.must(err)
	h.must(h.s.Delete(h.Context(), b.CheckpointID))
	for _, status := range []checkpoint.Status{checkpoint.Closed, checkpoint.Closed, checkpoint.Active} {
		_, err = h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{Status: &status})
		h.must(err)
	}
	_, err = h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{AutoState: []byte(`{}`), Name: ptr("n")})
	h.must(err)
	f, err := h.s.Fork(h.Context(), a.CheckpointID, storage.NewSession{Name: "fork"})
	h.must(err)
	_, err = h.s.DeleteSession(h.Context(), s.ID)
	h.must(err)
	h.twice(func() {
		events := h.since(start)
		type row struct {
			t          checkpoint.EventType
			session    checkpoint.ID
			checkpoint checkpoint.ID
			sequence   uint64
		}
		want := []row{
			{checkpoint.EventSessionCreated, s.ID, checkpoint.ID{}, 0},
			{checkpoint.EventCreated, s.ID, a.CheckpointID, a.Sequence},
			{checkpoint.EventCreated, s.ID, b.CheckpointID, b.Sequence},
			{checkpoint.EventAnnotated, s.ID, a.CheckpointID, 0},
			{checkpoint.EventRestored, s.ID, a.CheckpointID, 0},
			{checkpoint.EventDeleted, s.ID, b.CheckpointID, 0},
			{checkpoint.EventSessionClosed, s.ID, checkpoint.ID{}, 0},
			{checkpoint.EventSessionReopened, s.ID, checkpoint.ID{}, 0},
			{checkpoint.EventSessionCreated, f.ID, checkpoint.ID{}, 0},
			{checkpoint.EventCreated, f.ID, f.HeadID, b.Sequence + 1},
			{checkpoint.EventSessionDeleted, s.ID, checkpoint.ID{}, 0},
		}
		for i, e := range events {
			if e.Timestamp.IsZero() {
				h.Fatalf("event %d has no time", i)
			}
			if i >= len(want) || e.Type != want[i].t || e.SessionID != want[i].session || e.CheckpointID != want[i].checkpoint ||
				want[i].sequence != 0 && e.Sequence != want[i].sequence {
				h.Fatalf("event %d is %+v", i, e)
			}
		}
		h.equal("events", len(events), len(want))
		h.equal("trigger and cause", []any{events[1].Trigger, events[1].Cause, events[2].Trigger, events[2].Cause},
			[]any{checkpoint.Manual, "", checkpoint.Automatic, checkpoint.CauseError})
		h.equal("deleted with the session", events[len(events)-1].Deleted, 1)
	})
}

func cursorsReplay(h *harness) {
	start := h.lastCursor()
	s := h.session("s")
	for i := range 10 {
		h.create(s.ID, fmt.Sprint(i))
	}
	page, err := h.s.Events(h.Context(), start, 1000)
	h.must(err)
	if len(page.Events) != 11 || page.Fresh {
		h.Fatalf("%d events, fresh %v", len(page.Events), page.Fresh)
	}
	_, err = h.s.Sync(h.Context())
	h.must(err)
	h.twice(func() {
		for i, e := range page.Events {
			got := h.since(e.Cursor)
			if len(got) != len(page.Events)-i-1 {
				h.Fatalf("%d events after number %d", len(got), i)
			}
			for j, e := range got {
				h.equal("event", e, page.Events[i+1+j].Event)
			}
		}
	})
	h.create(s.ID, "after")
	h.equal("newer ones", len(h.since(page.Cursor)), 1)
}

func noCursor(h *harness) {
	for _, cursor := range []string{"no cursor", "-1", "\x00"} {
		_, err := h.s.Events(h.Context(), cursor, 10)
		h.want(err, checkpoint.ErrInvalidParams)
	}
}

func eventOrder(h *harness) {
	start := h.lastCursor()
	var wg sync.WaitGroup
	for w := range 6 {
		s := h.session(fmt.Sprint(w))
		wg.Go(func() {
			for range 20 {
				if _, err := storage.Create(h.Context(), h.s, draft(s.ID, "x")); err != nil {
					h.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h.twice(func() {
		last, count := uint64(0), 0
		for _, e := range h.since(start) {
			if e.Type == checkpoint.EventCreated {
				if count++; e.Sequence <= last {
					h.Fatalf("number %d is told after %d", e.Sequence, last)
				}
				last = e.Sequence
			}
		}
		h.equal("told", count, 120)
	})
}

func waitersWake(h *harness) {
	s := h.session("s")
	changed := h.s.EventsChanged()
	select {
	case <-changed:
		h.Fatal("woken before anything happened")
	default:
	}
	h.create(s.ID, "x")
	select {
	case <-changed:
	case <-h.Context().Done():
		h.Fatal("nobody was woken")
	}
}

func foreignEvents(h *harness) {
	s := h.session("s")
	start := h.lastCursor()
	changed := h.s.EventsChanged()
	h.s.LogEvent(checkpoint.Event{Type: checkpoint.EventAutoFailed, SessionID: s.ID, Cause: checkpoint.CauseCron, Problem: "a <problem>"})
	<-changed
	h.s.LogEvent(checkpoint.Event{Type: checkpoint.EventCorrupt, Path: "some/file", Problem: "checksum"})
	_, err := h.s.Sync(h.Context())
	h.must(err)
	h.create(s.ID, "x") // journal order: the events before it are there now
	h.twice(func() {
		events := h.since(start)
		h.equal("events", len(events), 3)
		h.equal("failed", []any{events[0].Type, events[0].Problem, events[0].Cause}, []any{checkpoint.EventAutoFailed, "a <problem>", checkpoint.CauseCron})
		h.equal("corrupt", []any{events[1].Type, events[1].Path}, []any{checkpoint.EventCorrupt, "some/file"})
	})
}

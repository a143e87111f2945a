package storagetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var sessionTests = map[string]func(*harness){
	"SessionsAreFoundByIDAndKey":     sessionsAreFound,
	"SessionIDsAndKeysAreUnique":     sessionsAreUnique,
	"OneKeyAskedForAtOnce":           oneKeyAtOnce,
	"SessionsAreListedByActivity":    sessionsAreListed,
	"SessionListFilters":             sessionFilters,
	"SessionChangesAreKept":          sessionChanges,
	"ClosedSessionsTakeNoCreates":    closedSessions,
	"DeletedSessionsAreGone":         deletedSessions,
	"StatsAndUsageCount":             statsCount,
	"UnknownSessionsAreNotFound":     unknownSessions,
	"HealthOfASoundStoreHasNoFaults": healthIsGood,
}

func sessionsAreFound(h *harness) {
	before := h.now()
	auto := checkpoint.DefaultAuto()
	made, existing, err := h.s.CreateSession(h.Context(), storage.NewSession{
		Key: "agent:1", Name: "a ünïcode name", Labels: map[string]string{"repo": "x", "": "empty name"}, OwnerUID: 7, Auto: &auto,
	})
	h.must(err)
	if existing || made.ID.IsZero() || made.Status != checkpoint.Active || made.CreatedAt.Before(before.Add(-time.Second)) {
		h.Fatalf("%+v", made)
	}
	plain := h.session("plain")
	h.equal("labels left out", plain.Labels, map[string]string{})
	h.twice(func() {
		for _, ref := range []storage.Ref{{ID: made.ID}, {Key: "agent:1"}} {
			got, err := h.s.Session(h.Context(), ref)
			h.must(err)
			h.equal("session", got, made)
		}
		got, err := h.s.Session(h.Context(), storage.Ref{ID: plain.ID})
		h.must(err)
		h.equal("session", got, plain)
	})
}

func sessionsAreUnique(h *harness) {
	id := checkpoint.NewID()
	first, _, err := h.s.CreateSession(h.Context(), storage.NewSession{ID: id, Key: "k", Name: "first"})
	h.must(err)
	h.twice(func() {
		for _, n := range []storage.NewSession{{ID: id, Key: "k", Name: "second"}, {ID: id, Name: "second"}, {Key: "k", Name: "second"}} {
			got, existing, err := h.s.CreateSession(h.Context(), n)
			h.must(err)
			if !existing {
				h.Fatalf("%+v made a new session", n)
			}
			h.equal("existing session", got, first)
		}
		_, _, err := h.s.CreateSession(h.Context(), storage.NewSession{ID: checkpoint.NewID(), Key: "k"})
		h.want(err, checkpoint.ErrConflict)
	})
}

func oneKeyAtOnce(h *harness) {
	var wg sync.WaitGroup
	var made atomic.Int32
	got := make([]checkpoint.ID, 16)
	for i := range got {
		wg.Go(func() {
			s, existing, err := h.s.CreateSession(h.Context(), storage.NewSession{Key: "same"})
			if err != nil {
				h.Error(err)
			}
			if got[i] = s.ID; !existing {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	for _, id := range got {
		if id != got[0] || made.Load() != 1 {
			h.Fatalf("%d sessions were made for one key", made.Load())
		}
	}
}

func (h *harness) sessions(q storage.SessionQuery) []string {
	h.Helper()
	names := []string{}
	for {
		page, err := h.s.Sessions(h.Context(), q)
		h.must(err)
		for _, s := range page.Sessions {
			names = append(names, s.Name)
		}
		if q.Limit > 0 && len(page.Sessions) > q.Limit {
			h.Fatalf("%d sessions on a page of %d", len(page.Sessions), q.Limit)
		}
		if page.Next == "" {
			return names
		}
		q.Cursor = page.Next
	}
}

func sessionsAreListed(h *harness) {
	h.equal("none", h.sessions(storage.SessionQuery{}), []string{})
	a, b := h.session("a"), h.session("b")
	h.session("c")
	h.create(a.ID, "activity")
	_, err := h.s.ChangeSession(h.Context(), b.ID, storage.SessionChange{Status: ptr(checkpoint.Closed)})
	h.must(err)
	h.twice(func() {
		for _, limit := range []int{0, 1, 2, 3, 100} {
			h.equal("order", h.sessions(storage.SessionQuery{Limit: limit}), []string{"b", "a", "c"})
		}
	})
	_, err = h.s.Sessions(h.Context(), storage.SessionQuery{Cursor: "no cursor"})
	h.want(err, checkpoint.ErrInvalidParams)
}

func sessionFilters(h *harness) {
	for _, n := range []storage.NewSession{
		{Name: "one", Labels: map[string]string{"a": "1", "b": "2"}, OwnerUID: 1},
		{Name: "two", Labels: map[string]string{"a": "1"}, OwnerUID: 2},
		{Name: "three", OwnerUID: 1},
	} {
		s, _, err := h.s.CreateSession(h.Context(), n)
		h.must(err)
		if n.Name == "two" {
			_, err := h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{Status: ptr(checkpoint.Closed)})
			h.must(err)
		}
	}
	for _, c := range []struct {
		q    storage.SessionQuery
		want []string
	}{
		{storage.SessionQuery{Status: checkpoint.Active}, []string{"three", "one"}},
		{storage.SessionQuery{Status: checkpoint.Closed}, []string{"two"}},
		{storage.SessionQuery{Labels: map[string]string{"a": "1"}}, []string{"two", "one"}},
		{storage.SessionQuery{Labels: map[string]string{"a": "1", "b": "2"}}, []string{"one"}},
		{storage.SessionQuery{Labels: map[string]string{"a": "2"}}, []string{}},
		{storage.SessionQuery{Labels: map[string]string{"none": ""}}, []string{}},
		{storage.SessionQuery{Owner: ptr(uint32(1))}, []string{"three", "one"}},
		{storage.SessionQuery{Owner: ptr(uint32(0))}, []string{}},
	} {
		// "two" was closed before "three" was made.
		c.q.Limit = 1
		got := h.sessions(c.q)
		h.equal("sessions", got, c.want)
	}
}

func sessionChanges(h *harness) {
	s := h.session("s")
	auto := checkpoint.DefaultAuto()
	auto.Cron = "0 3 * * *"
	change := func(c storage.SessionChange) checkpoint.Session {
		h.Helper()
		got, err := h.s.ChangeSession(h.Context(), s.ID, c)
		h.must(err)
		return got
	}
	state := func() string {
		h.Helper()
		raw, err := h.s.AutoState(h.Context(), s.ID)
		h.must(err)
		return string(raw)
	}
	h.equal("no state yet", state(), "")
	got := change(storage.SessionChange{Auto: ptr(&auto), AutoState: json.RawMessage(`{"taken":3}`), Name: ptr("new"), Labels: &map[string]string{"x": "y"}})
	h.equal("name", got.Name, "new")
	h.twice(func() {
		got, err := h.s.Session(h.Context(), storage.Ref{ID: s.ID})
		h.must(err)
		h.equal("name", got.Name, "new")
		h.equal("labels", got.Labels, map[string]string{"x": "y"})
		h.equal("auto", got.Auto, &auto)
		h.equal("state", state(), `{"taken":3}`)
	})
	// What is not set stays; a pointer to nil takes the automation away.
	change(storage.SessionChange{AutoState: json.RawMessage(`{"taken":4}`)})
	got = change(storage.SessionChange{Auto: ptr[*checkpoint.AutoConfig](nil)})
	h.twice(func() {
		got, err := h.s.Session(h.Context(), storage.Ref{ID: s.ID})
		h.must(err)
		if got.Auto != nil {
			h.Fatal("auto is still there")
		}
		h.equal("name", got.Name, "new")
		h.equal("state", state(), `{"taken":4}`)
	})
	// It may go with a checkpoint, large or small; not with one that is refused or there already.
	for i, c := range []*storage.NewCheckpoint{draft(s.ID, "small"), draft(s.ID, "large")} {
		if i == 1 {
			c.State = json.RawMessage(`"` + strings.Repeat("x", 300_000) + `"`)
		}
		want := fmt.Sprintf(`{"taken":%d}`, 5+i)
		c.AutoState = json.RawMessage(want)
		r, err := storage.Create(h.Context(), h.s, c)
		h.must(err)
		again := *c
		again.ID, again.AutoState = r.CheckpointID, json.RawMessage(`{"taken":0}`)
		r, err = storage.Create(h.Context(), h.s, &again)
		h.must(err)
		h.equal("existing", r.Existing, true)
		refused := draft(s.ID, "refused")
		refused.ExpectedHead, refused.AutoState = &checkpoint.ID{}, json.RawMessage(`{"taken":0}`)
		_, err = storage.Create(h.Context(), h.s, refused)
		h.want(err, checkpoint.ErrConflict)
		h.twice(func() { h.equal("state", state(), want) })
	}
}

func closedSessions(h *harness) {
	s := h.session("s")
	first := h.create(s.ID, "first")
	closed := ptr(checkpoint.Closed)
	_, err := h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{Status: closed})
	h.must(err)
	before := h.lastCursor()
	h.twice(func() {
		_, err := storage.Create(h.Context(), h.s, draft(s.ID, "refused"))
		h.want(err, checkpoint.ErrInvalidState)
		h.get(first.CheckpointID)
	})
	again, err := h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{Status: closed})
	h.must(err)
	h.equal("status", again.Status, checkpoint.Closed)
	h.equal("closing again is no event", len(h.since(before)), 0)
	_, err = h.s.Annotate(h.Context(), first.CheckpointID, "note", checkpoint.Info)
	h.must(err)
	h.must(h.s.Delete(h.Context(), first.CheckpointID))
	_, err = h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{Status: ptr(checkpoint.Active)})
	h.must(err)
	h.create(s.ID, "taken again")
}

func deletedSessions(h *harness) {
	made, _, err := h.s.CreateSession(h.Context(), storage.NewSession{Key: "k", Name: "old"})
	h.must(err)
	other := h.session("other")
	kept := h.create(other.ID, "kept")
	first, last := h.create(made.ID, "1"), h.create(made.ID, "2")
	n, err := h.s.DeleteSession(h.Context(), made.ID)
	h.must(err)
	h.equal("deleted", n, 2)
	h.twice(func() {
		_, err := h.s.Session(h.Context(), storage.Ref{Key: "k"})
		h.want(err, checkpoint.ErrNotFound)
		for _, r := range []checkpoint.Receipt{first, last} {
			_, err := h.s.Get(h.Context(), r.CheckpointID)
			h.want(err, checkpoint.ErrNotFound)
		}
		_, err = storage.Create(h.Context(), h.s, draft(made.ID, "no session"))
		h.want(err, checkpoint.ErrNotFound)
		_, err = h.s.DeleteSession(h.Context(), made.ID)
		h.want(err, checkpoint.ErrNotFound)
		h.equal("left", messages(h.all(storage.Query{})), []string{"kept"})
		h.get(kept.CheckpointID)
	})
	// Key and id are free; the numbers are not.
	again, existing, err := h.s.CreateSession(h.Context(), storage.NewSession{ID: made.ID, Key: "k", Name: "new"})
	h.must(err)
	if existing || again.Name != "new" || again.CheckpointCount != 0 {
		h.Fatalf("%+v", again)
	}
	if r := h.create(made.ID, "3"); r.Sequence <= last.Sequence {
		h.Fatalf("number %d was used again", r.Sequence)
	}
}

func statsCount(h *harness) {
	stats := func() storage.Stats {
		h.Helper()
		st, err := h.s.Stats(h.Context())
		h.must(err)
		return st
	}
	st := stats()
	h.equal("empty", []int{st.Checkpoints, st.Sessions, st.ActiveSessions, int(st.Sequence)}, []int{0, 0, 0, 0})
	a, b := h.session("a"), h.session("b")
	first := h.create(a.ID, "1")
	last := h.create(a.ID, "2", file("f", "content"))
	h.must(h.s.Delete(h.Context(), first.CheckpointID))
	_, err := h.s.ChangeSession(h.Context(), b.ID, storage.SessionChange{Status: ptr(checkpoint.Closed)})
	h.must(err)
	_, err = h.s.DeleteSession(h.Context(), h.session("gone").ID)
	h.must(err)
	h.twice(func() {
		st := stats()
		h.equal("counts", []int{st.Checkpoints, st.Sessions, st.ActiveSessions, int(st.SessionsCreated)}, []int{1, 2, 1, 3})
		if st.Sequence < last.Sequence || st.BlobBytes <= 0 {
			h.Fatalf("%+v", st)
		}
		u, err := h.s.Usage(h.Context(), a.ID)
		h.must(err)
		if u.Checkpoints != 1 || u.Bytes <= 0 || u.BlobBytes <= 0 || u.Partial {
			h.Fatalf("%+v", u)
		}
		s, err := h.s.Session(h.Context(), storage.Ref{ID: a.ID})
		h.must(err)
		h.equal("count", s.CheckpointCount, 1)
		h.equal("last", s.Last, checkpoint.Last{ID: last.CheckpointID, Sequence: last.Sequence, Timestamp: last.Timestamp})
	})
	n, err := h.s.Sync(h.Context())
	h.must(err)
	if n < last.Sequence || stats().Unpublished != 0 {
		h.Fatalf("sync to %d leaves %+v", n, stats())
	}
}

func unknownSessions(h *harness) {
	id := checkpoint.NewID()
	for name, do := range map[string]func() error{
		"session": func() error { _, err := h.s.Session(h.Context(), storage.Ref{ID: id}); return err },
		"key":     func() error { _, err := h.s.Session(h.Context(), storage.Ref{Key: "none"}); return err },
		"change": func() error {
			_, err := h.s.ChangeSession(h.Context(), id, storage.SessionChange{Name: ptr("x")})
			return err
		},
		"auto state":   func() error { _, err := h.s.AutoState(h.Context(), id); return err },
		"usage":        func() error { _, err := h.s.Usage(h.Context(), id); return err },
		"latest":       func() error { _, err := h.s.Latest(h.Context(), id); return err },
		"at":           func() error { _, err := h.s.At(h.Context(), id, storage.Point{Sequence: 1}); return err },
		"list":         func() error { _, err := h.s.List(h.Context(), storage.Query{SessionID: id}); return err },
		"restore":      func() error { _, err := h.s.Restore(h.Context(), id, id, true); return err },
		"validate all": func() error { _, err := h.s.ValidateAll(h.Context(), id, nil); return err },
		"export":       func() error { _, err := h.s.Export(h.Context(), storage.ExportQuery{SessionID: id}); return err },
		"compact": func() error {
			_, err := h.s.Compact(h.Context(), id, checkpoint.Retention{KeepManual: true}, storage.CompactOptions{})
			return err
		},
	} {
		h.Log(name)
		h.want(do(), checkpoint.ErrNotFound)
	}
}

func healthIsGood(h *harness) {
	h.create(h.session("s").ID, "c")
	health := h.s.Health()
	if health.ReadOnly || len(health.Checks) == 0 {
		h.Fatalf("%+v", health)
	}
	for _, c := range health.Checks {
		if !c.OK {
			h.Fatalf("%+v", c)
		}
	}
}

package storagetest

import (
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var headTests = map[string]func(*harness){
	"TheHeadIsTheParentOfWhatComesNext": headIsParent,
	"RestoreMovesTheHead":               restoreMoves,
	"DeletingTheHeadMovesIt":            deletedHead,
	"ExpectedHeadHoldsOthersOff":        expectedHead,
	"LatestAndAt":                       latestAndAt,
	"AForkIsACopyOfItsOwn":              fork,
}

func (h *harness) head(session checkpoint.ID) checkpoint.ID {
	h.Helper()
	s, err := h.s.Session(h.Context(), storage.Ref{ID: session})
	h.must(err)
	return s.HeadID
}

func headIsParent(h *harness) {
	s, other := h.session("s"), h.session("other")
	h.equal("no head", h.head(s.ID), checkpoint.ID{})
	a, x := h.create(s.ID, "a"), h.create(other.ID, "x")
	b := h.create(s.ID, "b")
	c := h.create(s.ID, "c", parent(a.CheckpointID))
	d := h.create(s.ID, "d")
	h.twice(func() {
		for _, p := range []struct{ of, want checkpoint.ID }{
			{a.CheckpointID, checkpoint.ID{}}, {x.CheckpointID, checkpoint.ID{}}, {b.CheckpointID, a.CheckpointID},
			{c.CheckpointID, a.CheckpointID}, {d.CheckpointID, c.CheckpointID},
		} {
			h.equal("parent", h.get(p.of).Summary.ParentID, p.want)
		}
		h.equal("head", h.head(s.ID), d.CheckpointID)
	})
}

func restoreMoves(h *harness) {
	s, other := h.session("s"), h.session("other")
	a, b := h.create(s.ID, "a"), h.create(s.ID, "b")
	x := h.create(other.ID, "x")
	st, err := h.s.Restore(h.Context(), s.ID, a.CheckpointID, false)
	h.must(err)
	h.sound(st)
	h.equal("only read", h.head(s.ID), b.CheckpointID)
	st, err = h.s.Restore(h.Context(), s.ID, a.CheckpointID, true)
	h.must(err)
	h.equal("state", string(st.State), `{"message":"a"}`)
	_, err = h.s.Restore(h.Context(), s.ID, x.CheckpointID, true)
	h.want(err, checkpoint.ErrNotFound)
	h.twice(func() { h.equal("moved", h.head(s.ID), a.CheckpointID) })
	c := h.create(s.ID, "c")
	h.twice(func() {
		h.equal("grown from there", h.get(c.CheckpointID).Summary.ParentID, a.CheckpointID)
		h.equal("head", h.head(s.ID), c.CheckpointID)
	})
}

func deletedHead(h *harness) {
	s := h.session("s")
	a, b, c := h.create(s.ID, "a"), h.create(s.ID, "b"), h.create(s.ID, "c")
	h.must(h.s.Delete(h.Context(), c.CheckpointID))
	h.twice(func() { h.equal("the newest of the rest", h.head(s.ID), b.CheckpointID) })
	_, err := h.s.Restore(h.Context(), s.ID, a.CheckpointID, true)
	h.must(err)
	h.must(h.s.Delete(h.Context(), b.CheckpointID))
	h.twice(func() { h.equal("another one's deletion", h.head(s.ID), a.CheckpointID) })
	h.must(h.s.Delete(h.Context(), a.CheckpointID))
	h.twice(func() { h.equal("none", h.head(s.ID), checkpoint.ID{}) })
	d := h.create(s.ID, "d")
	h.equal("no parent", h.get(d.CheckpointID).Summary.ParentID, checkpoint.ID{})
}

func expectedHead(h *harness) {
	s := h.session("s")
	expect := func(id checkpoint.ID) func(*storage.NewCheckpoint) {
		return func(c *storage.NewCheckpoint) { c.ExpectedHead = &id }
	}
	a := h.create(s.ID, "a", expect(checkpoint.ID{}))
	h.twice(func() {
		_, err := storage.Create(h.Context(), h.s, draft(s.ID, "late", expect(checkpoint.ID{})))
		e := h.want(err, checkpoint.ErrConflict)
		h.equal("head_id", e.Data["head_id"], a.CheckpointID)
	})
	b := h.create(s.ID, "b", expect(a.CheckpointID))
	_, err := storage.Create(h.Context(), h.s, draft(s.ID, "late", expect(a.CheckpointID)))
	h.equal("head_id", h.want(err, checkpoint.ErrConflict).Data["head_id"], b.CheckpointID)
	empty := h.session("empty")
	_, err = storage.Create(h.Context(), h.s, draft(empty.ID, "early", expect(a.CheckpointID)))
	e := h.want(err, checkpoint.ErrConflict)
	if got, there := e.Data["head_id"]; !there || got != nil {
		h.Fatalf("head_id of an empty session is %v, not null", got)
	}
	h.equal("made", messages(h.all(storage.Query{})), []string{"a", "b"})
}

func latestAndAt(h *harness) {
	s := h.session("s")
	for _, check := range []func() (*storage.Stored, error){
		func() (*storage.Stored, error) { return h.s.Latest(h.Context(), s.ID) },
		func() (*storage.Stored, error) { return h.s.At(h.Context(), s.ID, storage.Point{Sequence: 1 << 60}) },
	} {
		if st, err := check(); err != nil || st != nil {
			h.Fatalf("an empty session has %v, %v", st, err)
		}
	}
	var made []checkpoint.Receipt
	other := h.session("other")
	for _, m := range []string{"a", "b", "c"} {
		made = append(made, h.create(s.ID, m))
		h.create(other.ID, "between")
		h.advance(time.Minute)
	}
	at := func(p storage.Point) string {
		h.Helper()
		st, err := h.s.At(h.Context(), s.ID, p)
		h.must(err)
		if st == nil {
			return ""
		}
		h.sound(st)
		return st.Summary.Message
	}
	_, err := h.s.Restore(h.Context(), s.ID, made[0].CheckpointID, true)
	h.must(err)
	h.twice(func() {
		st, err := h.s.Latest(h.Context(), s.ID)
		h.must(err)
		h.sound(st)
		h.equal("latest is the newest, not the head", st.Summary.Message, "c")
		for i, want := range []string{"a", "b", "c"} {
			r := made[i]
			before := []string{"", "a", "b"}[i]
			h.equal("at its number", at(storage.Point{Sequence: r.Sequence}), want)
			h.equal("before its number", at(storage.Point{Sequence: r.Sequence - 1}), before)
			h.equal("at its time", at(storage.Point{Time: r.Timestamp}), want)
			h.equal("before its time", at(storage.Point{Time: r.Timestamp.Add(-1)}), before)
			h.equal("after its number", at(storage.Point{Sequence: r.Sequence + 1}), want)
		}
		h.equal("far ahead", at(storage.Point{Time: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}), "c")
	})
}

func fork(h *harness) {
	s := h.session("s")
	orig := h.create(s.ID, "orig", tags("t"), metadata(`{"m":1.0}`), state(`{"s":[1,2]}`), cause(checkpoint.CauseError), file("f", "content"))
	_, err := h.s.Annotate(h.Context(), orig.CheckpointID, "note", checkpoint.Info)
	h.must(err)
	before := h.get(orig.CheckpointID)
	made, err := h.s.Fork(h.Context(), orig.CheckpointID, storage.NewSession{Key: "k", Name: "branch", OwnerUID: 5})
	h.must(err)
	_, err = h.s.Fork(h.Context(), orig.CheckpointID, storage.NewSession{Key: "k", Name: "again"})
	h.want(err, checkpoint.ErrConflict)
	h.twice(func() {
		h.equal("original", h.get(orig.CheckpointID).Summary, before.Summary)
		got, err := h.s.Session(h.Context(), storage.Ref{Key: "k"})
		h.must(err)
		h.equal("session", got, made)
		h.equal("parent", got.Parent, checkpoint.Parent{SessionID: s.ID, CheckpointID: orig.CheckpointID})
		h.equal("owner", got.OwnerUID, 5)
		h.equal("count", got.CheckpointCount, 1)
		st, err := h.s.Latest(h.Context(), made.ID)
		h.must(err)
		h.sound(st)
		c := st.Summary
		if c.ID == orig.CheckpointID || c.Sequence <= orig.Sequence || c.Trigger != checkpoint.Manual || c.Cause != "" || c.HasNotes {
			h.Fatalf("%+v", c)
		}
		h.equal("copy", []any{c.Message, c.Tags, c.Metadata, c.ParentID, got.HeadID},
			[]any{"orig", []string{"t"}, before.Summary.Metadata, orig.CheckpointID, c.ID})
		h.equal("state", string(st.State), `{"s":[1,2]}`)
		_, content, err := h.s.ReadFile(h.Context(), c.ID, "f")
		h.must(err)
		h.equal("file", string(content), "content")
	})
	// The files of a fork outlive the original.
	h.must(h.s.Delete(h.Context(), orig.CheckpointID))
	_, err = h.s.Sync(h.Context())
	h.must(err)
	h.twice(func() {
		_, content, err := h.s.ReadFile(h.Context(), made.HeadID, "f")
		h.must(err)
		h.equal("file", string(content), "content")
	})
}

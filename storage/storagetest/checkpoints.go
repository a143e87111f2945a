package storagetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var checkpointTests = map[string]func(*harness){
	"WhatIsGivenComesBack":             givenComesBack,
	"NumbersRiseInTheOrderOfSubmit":    submitOrder,
	"NumbersRiseAfterEachAnswer":       risingNumbers,
	"NumbersAreNeverUsedTwice":         numbersOnce,
	"TheSameCreateAgainIsOne":          idempotency,
	"AnIDMayBeUsedAnewAfterDeletion":   idAnew,
	"DeletedCheckpointsAreGone":        deleted,
	"NotesAreKept":                     notes,
	"UnknownCheckpointsAreNotFound":    unknownCheckpoints,
	"ValidateReadsTheStoredBytes":      validates,
	"ManyWritersAndReadersAtOnce":      manyAtOnce,
	"ChangesAfterSubmitComeAfterwards": changesAfterSubmit,
}

func givenComesBack(h *harness) {
	s := h.session("s")
	deep := strings.Repeat("[", 900) + strings.Repeat("]", 900)
	states := []string{
		`null`, `{}`, `[]`, `""`, `0`, `true`, `1.0`, `1e400`, `-0`, `123456789012345678901234567890`,
		`{"b":1,"a":2,"b":3}`, `"\u00e9\ud800<>&\/"`, "\"\u2028\u2029é\"", deep,
		`{"state":{"sequence_number":7,"parent_id":"x","state":1},"checksum":"sha256:00"}`,
		`"` + strings.Repeat("0123456789abcdef", 1<<14) + `"`, `["` + strings.Repeat("large ", 1<<18) + `"]`,
	}
	var made []checkpoint.Receipt
	for i, st := range states {
		made = append(made, h.create(s.ID, fmt.Sprintf("message %d \"quoted\" <&> \u2028 ünï", i), state(st),
			tags("a", "", "a b", "ü"), metadata(`{"n":1.0,"state":{"x":"\/"},"n":2}`)))
	}
	h.twice(func() {
		for i, r := range made {
			st := h.get(r.CheckpointID)
			if string(st.State) != states[i] {
				h.Fatalf("state %.80s came back as %.80s", states[i], st.State)
			}
			if string(st.Summary.Metadata) != `{"n":1.0,"state":{"x":"\/"},"n":2}` {
				h.Fatalf("metadata came back as %s", st.Summary.Metadata)
			}
			h.equal("tags", st.Summary.Tags, []string{"a", "", "a b", "ü"})
			h.equal("message", st.Summary.Message, fmt.Sprintf("message %d \"quoted\" <&> \u2028 ünï", i))
			h.equal("checksum", st.Summary.Checksum, r.Checksum)
			h.equal("number", st.Summary.Sequence, r.Sequence)
			h.equal("time", st.Summary.Timestamp, r.Timestamp)
			sum, err := h.s.Summary(h.Context(), r.CheckpointID)
			h.must(err)
			h.equal("summary", sum, st.Summary)
		}
		h.equal("list", h.all(storage.Query{SessionID: s.ID, Limit: 3}), func() (want []checkpoint.Summary) {
			for _, r := range made {
				want = append(want, h.get(r.CheckpointID).Summary)
			}
			return want
		}())
	})
}

func submitOrder(h *harness) {
	sessions := []checkpoint.ID{h.session("a").ID, h.session("b").ID, h.session("c").ID}
	const n = 300
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := make([]checkpoint.Receipt, n)
	for i := range n {
		wg.Add(1)
		size := 10
		if i%50 == 7 {
			size = 400_000 // large ones take another way to the disk and must not be overtaken
		}
		c := draft(sessions[i%len(sessions)], fmt.Sprint(i), state(`"`+strings.Repeat("x", size)+`"`))
		h.s.Submit(h.Context(), c, func(r checkpoint.Receipt, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if got[i] = r; err != nil {
				h.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	for i, r := range got {
		if seen[r.Sequence] || r.Sequence == 0 {
			h.Fatalf("number %d twice", r.Sequence)
		}
		seen[r.Sequence] = true
		if before := i - len(sessions); before >= 0 && got[before].Sequence >= r.Sequence {
			h.Fatalf("create %d of a session has number %d, the one before it %d", i, r.Sequence, got[before].Sequence)
		}
	}
	h.twice(func() {
		for i, id := range sessions {
			var want []string
			var last checkpoint.ID
			for j := i; j < n; j += len(sessions) {
				want = append(want, fmt.Sprint(j))
			}
			list := h.all(storage.Query{SessionID: id})
			h.equal("order", messages(list), want)
			for _, s := range list {
				if s.ParentID != last {
					h.Fatalf("the parent of %s is %s, not the one before it, %s", s.Message, s.ParentID, last)
				}
				last = s.ID
			}
		}
	})
}

func risingNumbers(h *harness) {
	s := h.session("s")
	if r := h.create(s.ID, "first"); r.Sequence != 1 {
		h.Fatalf("the first number is %d, not 1", r.Sequence)
	}
	var mu sync.Mutex
	var acknowledged uint64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			id := h.session(fmt.Sprint(w)).ID
			for range 20 {
				mu.Lock()
				before := acknowledged
				mu.Unlock()
				r, err := storage.Create(h.Context(), h.s, draft(id, "x"))
				if err != nil {
					h.Error(err)
					return
				}
				if r.Sequence <= before {
					h.Errorf("number %d after %d had been acknowledged", r.Sequence, before)
				}
				mu.Lock()
				acknowledged = max(acknowledged, r.Sequence)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func numbersOnce(h *harness) {
	s := h.session("s")
	last := uint64(0)
	for range 5 {
		var r checkpoint.Receipt
		for range 3 {
			if r = h.create(s.ID, "x"); r.Sequence <= last {
				h.Fatalf("number %d after %d", r.Sequence, last)
			}
			last = r.Sequence
		}
		h.must(h.s.Delete(h.Context(), r.CheckpointID))
		h.reopen()
	}
	_, err := h.s.Compact(h.Context(), s.ID, checkpoint.Retention{KeepRecent: ptr(int64(0))}, storage.CompactOptions{})
	h.must(err)
	h.reopen()
	if r := h.create(s.ID, "x"); r.Sequence <= last {
		h.Fatalf("number %d after %d, all compacted away", r.Sequence, last)
	}
}

func idempotency(h *harness) {
	s, other := h.session("s"), h.session("other")
	base := h.create(s.ID, "base")
	id := checkpoint.NewID()
	all := []func(*storage.NewCheckpoint){withID(id), tags("a", "b"), metadata(`{"m":1}`), state(`{"s":1}`), parent(base.CheckpointID)}
	first := h.create(s.ID, "message", all...)
	h.create(s.ID, "later")
	h.twice(func() {
		again := h.create(s.ID, "message", all...)
		if !again.Existing {
			h.Fatal("the same create again made another")
		}
		again.Existing = false
		h.equal("answer", again, first)
		for what, change := range map[string]func(*storage.NewCheckpoint){
			"message":     func(c *storage.NewCheckpoint) { c.Message = "another" },
			"tags":        tags("a"),
			"order":       tags("b", "a"),
			"metadata":    metadata(`{"m":2}`),
			"no metadata": func(c *storage.NewCheckpoint) { c.Metadata = nil },
			"state":       state(`{"s":2}`),
			"parent":      parent(first.CheckpointID),
			"no parent":   parent(checkpoint.ID{}),
			"session":     func(c *storage.NewCheckpoint) { c.SessionID = other.ID },
		} {
			h.Log(what)
			_, err := storage.Create(h.Context(), h.s, draft(s.ID, "message", append(slices.Clone(all), change)...))
			h.want(err, checkpoint.ErrConflict)
		}
		h.equal("made", messages(h.all(storage.Query{})), []string{"base", "message", "later"})
	})
	// Asked for at once, it is made once.
	id = checkpoint.NewID()
	var wg sync.WaitGroup
	got := make([]checkpoint.Receipt, 8)
	for i := range got {
		wg.Go(func() { got[i] = h.create(s.ID, "same", withID(id)) })
	}
	wg.Wait()
	fresh := 0
	for _, r := range got {
		if r.Sequence != got[0].Sequence {
			h.Fatal("one id got two numbers")
		}
		if !r.Existing {
			fresh++
		}
	}
	h.equal("made anew", fresh, 1)
}

func idAnew(h *harness) {
	s := h.session("s")
	id := checkpoint.NewID()
	first := h.create(s.ID, "old", withID(id))
	_, err := h.s.Annotate(h.Context(), id, "of the old one", checkpoint.Info)
	h.must(err)
	h.must(h.s.Delete(h.Context(), id))
	second := h.create(s.ID, "new", withID(id))
	if second.Existing || second.Sequence <= first.Sequence {
		h.Fatalf("%+v", second)
	}
	h.twice(func() {
		st := h.get(id)
		h.equal("message", st.Summary.Message, "new")
		h.equal("notes", len(st.Annotations), 0)
		h.equal("list", messages(h.all(storage.Query{})), []string{"new"})
	})
	h.must(h.s.Delete(h.Context(), id))
	h.reopen()
	_, err = h.s.Get(h.Context(), id)
	h.want(err, checkpoint.ErrNotFound)
}

func deleted(h *harness) {
	s := h.session("s")
	a, b, c := h.create(s.ID, "a"), h.create(s.ID, "b"), h.create(s.ID, "c")
	h.must(h.s.Delete(h.Context(), b.CheckpointID))
	h.twice(func() {
		_, err := h.s.Get(h.Context(), b.CheckpointID)
		h.want(err, checkpoint.ErrNotFound)
		h.want(h.s.Delete(h.Context(), b.CheckpointID), checkpoint.ErrNotFound)
		h.equal("left", messages(h.all(storage.Query{SessionID: s.ID})), []string{"a", "c"})
		h.equal("the child keeps its parent", h.get(c.CheckpointID).Summary.ParentID, b.CheckpointID)
		r, err := h.s.ValidateAll(h.Context(), checkpoint.ID{}, nil)
		h.must(err)
		h.equal("nothing is damaged", r, storage.Report{Valid: 2, Total: 2})
	})
	h.get(a.CheckpointID)
}

func notes(h *harness) {
	s := h.session("s")
	c := h.create(s.ID, "c")
	plain := h.create(s.ID, "plain")
	var want []checkpoint.Annotation
	for _, severity := range []checkpoint.Severity{checkpoint.Info, checkpoint.Warning, checkpoint.Critical} {
		a, err := h.s.Annotate(h.Context(), c.CheckpointID, "note \u2028 <"+string(severity)+">", severity)
		h.must(err)
		if a.ID.IsZero() || a.Severity != severity || a.Timestamp.IsZero() {
			h.Fatalf("%+v", a)
		}
		want = append(want, a)
	}
	h.twice(func() {
		h.equal("notes", h.get(c.CheckpointID).Annotations, want)
		h.equal("notes of another", len(h.get(plain.CheckpointID).Annotations), 0)
		h.equal("checksum is as before", h.get(c.CheckpointID).Summary.Checksum, c.Checksum)
		list := h.all(storage.Query{})
		h.equal("counts", []int{list[0].AnnotationCount, list[1].AnnotationCount}, []int{3, 0})
	})
}

func unknownCheckpoints(h *harness) {
	s := h.session("s")
	id := checkpoint.NewID()
	for name, do := range map[string]func() error{
		"get":      func() error { _, err := h.s.Get(h.Context(), id); return err },
		"summary":  func() error { _, err := h.s.Summary(h.Context(), id); return err },
		"restore":  func() error { _, err := h.s.Restore(h.Context(), s.ID, id, true); return err },
		"fork":     func() error { _, err := h.s.Fork(h.Context(), id, storage.NewSession{Name: "f"}); return err },
		"delete":   func() error { return h.s.Delete(h.Context(), id) },
		"annotate": func() error { _, err := h.s.Annotate(h.Context(), id, "n", checkpoint.Info); return err },
		"file":     func() error { _, _, err := h.s.ReadFile(h.Context(), id, "f"); return err },
		"validate": func() error { _, err := h.s.Validate(h.Context(), id); return err },
		"create":   func() error { _, err := storage.Create(h.Context(), h.s, draft(id, "no such session")); return err },
		"parent":   func() error { _, err := storage.Create(h.Context(), h.s, draft(s.ID, "p", parent(id))); return err },
	} {
		h.Log(name)
		h.want(do(), checkpoint.ErrNotFound)
	}
	h.equal("sessions", h.sessions(storage.SessionQuery{}), []string{"s"})
	h.equal("checkpoints", len(h.all(storage.Query{})), 0)
}

func validates(h *harness) {
	a, b := h.session("a"), h.session("b")
	first := h.create(a.ID, "1")
	h.create(a.ID, "2", state(`"`+strings.Repeat("x", 400_000)+`"`), file("f", "content"))
	h.create(b.ID, "3")
	h.twice(func() {
		v, err := h.s.Validate(h.Context(), first.CheckpointID)
		h.must(err)
		h.equal("verdict", v, storage.Verdict{Valid: true, Checksum: first.Checksum})
		bytes := int64(0)
		r, err := h.s.ValidateAll(h.Context(), checkpoint.ID{}, func(n int64) error { bytes += n; return nil })
		h.must(err)
		h.equal("report", r, storage.Report{Valid: 3, Total: 3})
		if bytes < 400_000 {
			h.Fatalf("pace was told of %d bytes only", bytes)
		}
		r, err = h.s.ValidateAll(h.Context(), a.ID, nil)
		h.must(err)
		h.equal("of one session", r, storage.Report{Valid: 2, Total: 2})
	})
}

func changesAfterSubmit(h *harness) {
	s := h.session("s")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Add(1)
		h.s.Submit(h.Context(), draft(s.ID, fmt.Sprint(i), state(`"`+strings.Repeat("x", i*40_000)+`"`)), func(_ checkpoint.Receipt, err error) {
			defer wg.Done()
			if err != nil {
				h.Error("a close overtook a create:", err)
			}
		})
	}
	_, err := h.s.ChangeSession(h.Context(), s.ID, storage.SessionChange{Status: ptr(checkpoint.Closed)})
	h.must(err)
	wg.Wait()
	h.equal("made", len(h.all(storage.Query{SessionID: s.ID})), 20)
}

func manyAtOnce(h *harness) {
	s := h.session("s")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 15 {
				r, err := storage.Create(h.Context(), h.s, draft(s.ID, fmt.Sprint(w, i)))
				if err != nil {
					h.Error(err)
					return
				}
				st, err := h.s.Get(h.Context(), r.CheckpointID)
				if err != nil || st.Summary.Sequence != r.Sequence {
					h.Errorf("what was acknowledged cannot be read: %v", err)
					return
				}
				if _, err := h.s.Annotate(h.Context(), r.CheckpointID, "n", checkpoint.Info); err != nil {
					h.Error(err)
				}
				if i%3 == 0 {
					if err := h.s.Delete(h.Context(), r.CheckpointID); err != nil {
						h.Error(err)
					}
				}
				if page, err := h.s.List(h.Context(), storage.Query{SessionID: s.ID, Limit: 1000}); err != nil {
					h.Error(err)
				} else if !slices.IsSortedFunc(page.Summaries, bySequence) {
					h.Error("a list out of order")
				}
			}
		})
	}
	wg.Wait()
	h.twice(func() { h.equal("left", len(h.all(storage.Query{})), 8*10) })
}

func bySequence(a, b json.RawMessage) int {
	var x, y checkpoint.Summary
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return 1
	}
	return int(x.Sequence) - int(y.Sequence)
}

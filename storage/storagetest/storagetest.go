// Package storagetest holds what every driver of package storage must do. A driver's own
// test is one call of Run with a function that makes an empty place and opens it.
package storagetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// Opener opens one store, always the same, as a new process would; it is closed before it
// is opened again. now is the clock that the store must use.
type Opener func(now func() time.Time) (storage.Store, error)

// Run holds a driver against the contract. place makes an empty store's place.
func Run(t *testing.T, place func(t *testing.T) Opener) {
	for _, group := range []map[string]func(*harness){
		sessionTests, checkpointTests, headTests, listTests, compactTests, eventTests, exportTests, fileTests,
	} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := &harness{T: t, place: place}
				h.start()
				test(h)
			})
		}
	}
}

// harness is one store under test and its clock.
type harness struct {
	*testing.T
	place func(*testing.T) Opener
	open  Opener
	s     storage.Store
	ahead atomic.Int64 // nanoseconds that the clock is ahead of the real one
}

func (h *harness) now() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) }

func (h *harness) advance(d time.Duration) { h.ahead.Add(int64(d)) }

func (h *harness) start() {
	h.Helper()
	h.open = h.place(h.T)
	h.s = h.must1(h.open(h.now))
	h.Cleanup(func() {
		if h.s != nil {
			h.must(h.s.Close())
		}
	})
}

// other opens a further, empty store.
func (h *harness) other() *harness {
	h.Helper()
	o := &harness{T: h.T, place: h.place}
	o.start()
	return o
}

// reopen closes the store and opens it again.
func (h *harness) reopen() {
	h.Helper()
	err := h.s.Close()
	h.s = nil
	h.must(err)
	h.s = h.must1(h.open(h.now))
}

// twice runs a check on the store as it is and again after it was opened anew.
func (h *harness) twice(check func()) {
	h.Helper()
	check()
	h.reopen()
	check()
}

func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) must1(s storage.Store, err error) storage.Store {
	h.Helper()
	h.must(err)
	return s
}

// want fails unless err is of the kind of the sentinel; a nil sentinel wants no error.
// Every error of a store is a *checkpoint.Error.
func (h *harness) want(err error, sentinel *checkpoint.Error) *checkpoint.Error {
	h.Helper()
	if sentinel == nil {
		h.must(err)
		return nil
	}
	var e *checkpoint.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) {
		h.Fatalf("got %v, want %s", err, sentinel.Kind)
	}
	return e
}

func (h *harness) equal(what string, got, want any) {
	h.Helper()
	g, err := json.Marshal(got)
	h.must(err)
	w, err := json.Marshal(want)
	h.must(err)
	if !bytes.Equal(g, w) {
		h.Fatalf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func (h *harness) session(name string) checkpoint.Session {
	h.Helper()
	s, existing, err := h.s.CreateSession(h.Context(), storage.NewSession{Name: name, OwnerUID: 1000})
	h.must(err)
	if existing {
		h.Fatal("a session without key and id is a new one")
	}
	return s
}

// create makes a manual checkpoint with a small state; change may alter it first.
func (h *harness) create(session checkpoint.ID, message string, change ...func(*storage.NewCheckpoint)) checkpoint.Receipt {
	h.Helper()
	r, err := storage.Create(h.Context(), h.s, draft(session, message, change...))
	h.must(err)
	return r
}

func draft(session checkpoint.ID, message string, change ...func(*storage.NewCheckpoint)) *storage.NewCheckpoint {
	c := &storage.NewCheckpoint{
		SessionID: session, Message: message, Tags: []string{}, Trigger: checkpoint.Manual,
		State: json.RawMessage(fmt.Sprintf(`{"message":%q}`, message)),
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func tags(tags ...string) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) { c.Tags = tags }
}

func cause(cause checkpoint.Cause) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) { c.Trigger, c.Cause = cause.Trigger(), cause }
}

func state(state string) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) { c.State = json.RawMessage(state) }
}

func metadata(metadata string) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) { c.Metadata = json.RawMessage(metadata) }
}

func withID(id checkpoint.ID) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) { c.ID = id }
}

func parent(id checkpoint.ID) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) { c.ParentID = id }
}

func file(path, content string) func(*storage.NewCheckpoint) {
	return func(c *storage.NewCheckpoint) {
		c.Files = append(c.Files, storage.FileContent{
			Path: path, Mode: 0o640, ModifiedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Content: []byte(content),
		})
	}
}

func (h *harness) get(id checkpoint.ID) *storage.Stored {
	h.Helper()
	st, err := h.s.Get(h.Context(), id)
	h.must(err)
	h.sound(st)
	return st
}

// sound checks that what was read agrees with its checksum and with itself.
func (h *harness) sound(st *storage.Stored) {
	h.Helper()
	sum := sha256.Sum256(st.Raw)
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != st.Summary.Checksum {
		h.Fatalf("the checksum is %s, that of the bytes %s", st.Summary.Checksum, got)
	}
	c := h.decode(st)
	h.equal("state", json.RawMessage(st.State), c.State)
	h.equal("id", c.ID, st.Summary.ID)
	h.equal("session", c.SessionID, st.Summary.SessionID)
	h.equal("number", c.Sequence, st.Summary.Sequence)
	h.equal("time", c.Timestamp, st.Summary.Timestamp)
	h.equal("parent", c.ParentID, st.Summary.ParentID)
	h.equal("message", c.Message, st.Summary.Message)
	h.equal("tags", c.Tags, st.Summary.Tags)
	h.equal("length", len(st.State), st.Summary.StateBytes)
	h.equal("notes", len(st.Annotations), st.Summary.AnnotationCount)
	h.equal("has notes", len(st.Annotations) > 0, st.Summary.HasNotes)
}

func (h *harness) decode(st *storage.Stored) checkpoint.Checkpoint {
	h.Helper()
	var c checkpoint.Checkpoint
	h.must(json.Unmarshal(st.Raw, &c))
	return c
}

// all lists everything that a query selects, page by page.
func (h *harness) all(q storage.Query) []checkpoint.Summary {
	h.Helper()
	list := []checkpoint.Summary{}
	for {
		page, err := h.s.List(h.Context(), q)
		h.must(err)
		for _, raw := range page.Summaries {
			var s checkpoint.Summary
			h.must(json.Unmarshal(raw, &s))
			list = append(list, s)
		}
		if q.Limit > 0 && len(page.Summaries) > q.Limit {
			h.Fatalf("%d summaries on a page of %d", len(page.Summaries), q.Limit)
		}
		if page.Next == "" {
			return list
		}
		if len(page.Summaries) == 0 {
			h.Fatal("an empty page that is not the last")
		}
		q.Cursor = page.Next
	}
}

func messages(list []checkpoint.Summary) []string {
	m := make([]string, len(list))
	for i, s := range list {
		m[i] = s.Message
	}
	return m
}

func ptr[T any](v T) *T { return &v }

package storagetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var exportTests = map[string]func(*harness){
	"ExportIntoAnEmptyStoreIsLossless": exportLossless,
	"ImportSkipsWhatIsThere":           importSkips,
	"ImportRenumbersWhatIsTaken":       importRenumbers,
	"ImportRejectsWhatDoesNotVerify":   importRejects,
	"ImportRaisesTheCounter":           importRaises,
	"ImportTakesForgeReasoning":        importForgeReasoning,
	"ExportOfOneSessionOrOwnerOrNewer": exportParts,
	"ImportRefusesAnUnknownVersion":    importVersion,
}

func (h *harness) export(q storage.ExportQuery) [][]byte {
	h.Helper()
	var pages [][]byte
	for {
		page, err := h.s.Export(h.Context(), q)
		h.must(err)
		if q.MaxBytes > 0 && len(page.JSON) > q.MaxBytes {
			h.Fatalf("a page of %d bytes, the limit is %d", len(page.JSON), q.MaxBytes)
		}
		if !json.Valid(page.JSON) {
			h.Fatalf("a page is not JSON: %.200s", page.JSON)
		}
		pages = append(pages, page.JSON)
		if q.Cursor = page.Next; page.Next == "" {
			return pages
		}
	}
}

func (h *harness) importAll(pages [][]byte) storage.ImportResult {
	h.Helper()
	total := storage.ImportResult{Rejected: []storage.Rejected{}}
	for _, p := range pages {
		r, err := h.s.Import(h.Context(), p, 0)
		h.must(err)
		total.Imported += r.Imported
		total.Skipped += r.Skipped
		total.Renumbered += r.Renumbered
		total.Rejected = append(total.Rejected, r.Rejected...)
	}
	return total
}

// filled is a store with a bit of everything.
func (h *harness) filled() []checkpoint.Receipt {
	h.Helper()
	a, _, err := h.s.CreateSession(h.Context(), storage.NewSession{Key: "k", Name: "a", Labels: map[string]string{"x": "y"}, OwnerUID: 3})
	h.must(err)
	b := h.session("b")
	made := []checkpoint.Receipt{
		h.create(a.ID, "one", tags("t"), metadata(`{"n":1.0}`), state(`{"dup":1,"dup":2,"big":1e400}`), file("f", "content"), file("bin", "\xff\x00")),
		h.create(b.ID, "two", cause(checkpoint.CauseError), state(`"`+strings.Repeat("x", 300_000)+`"`)),
		h.create(a.ID, "three", file("f", "content"), file("g", strings.Repeat("line of a log\n", 30_000))),
	}
	_, err = h.s.Annotate(h.Context(), made[0].CheckpointID, "note", checkpoint.Warning)
	h.must(err)
	_, err = h.s.Restore(h.Context(), a.ID, made[0].CheckpointID, true)
	h.must(err)
	f, err := h.s.Fork(h.Context(), made[0].CheckpointID, storage.NewSession{Name: "fork"})
	h.must(err)
	_, err = h.s.ChangeSession(h.Context(), b.ID, storage.SessionChange{Status: ptr(checkpoint.Closed)})
	h.must(err)
	st, err := h.s.Latest(h.Context(), f.ID)
	h.must(err)
	return append(made, checkpoint.Receipt{CheckpointID: st.Summary.ID, SessionID: f.ID, Sequence: st.Summary.Sequence})
}

func exportLossless(h *harness) {
	made := h.filled()
	for _, limit := range []int{0, 600_000} {
		o := h.other()
		r := o.importAll(h.export(storage.ExportQuery{MaxBytes: limit}))
		h.equal("imported", r, storage.ImportResult{Imported: len(made), Rejected: []storage.Rejected{}})
		o.twice(func() {
			for _, m := range made {
				want, got := h.get(m.CheckpointID), o.get(m.CheckpointID)
				if !bytes.Equal(want.Raw, got.Raw) {
					h.Fatalf("%.300s\ncame out as\n%.300s", want.Raw, got.Raw)
				}
				h.equal("notes", got.Annotations, want.Annotations)
				for _, f := range h.decode(want).Context.Files {
					_, was, err := h.s.ReadFile(h.Context(), m.CheckpointID, f.Path)
					h.must(err)
					_, is, err := o.s.ReadFile(h.Context(), m.CheckpointID, f.Path)
					h.must(err)
					h.equal("file", is, was)
				}
			}
			h.equal("list", o.all(storage.Query{}), h.all(storage.Query{}))
			for _, m := range made {
				want, err := h.s.Session(h.Context(), storage.Ref{ID: m.SessionID})
				h.must(err)
				got, err := o.s.Session(h.Context(), storage.Ref{ID: m.SessionID})
				h.must(err)
				want.UpdatedAt, got.UpdatedAt = want.CreatedAt, want.CreatedAt // the import is activity
				h.equal("session", got, want)
			}
			rep, err := o.s.ValidateAll(h.Context(), checkpoint.ID{}, nil)
			h.must(err)
			h.equal("sound", rep, storage.Report{Valid: len(made), Total: len(made)})
		})
	}
}

func importSkips(h *harness) {
	made := h.filled()
	pages := h.export(storage.ExportQuery{})
	before := h.all(storage.Query{})
	h.equal("again", h.importAll(pages), storage.ImportResult{Skipped: len(made), Rejected: []storage.Rejected{}})
	o := h.other()
	o.importAll(pages)
	h.equal("twice", o.importAll(pages), storage.ImportResult{Skipped: len(made), Rejected: []storage.Rejected{}})
	h.twice(func() { h.equal("unchanged", h.all(storage.Query{}), before) })
}

func importRenumbers(h *harness) {
	made := h.filled()
	o := h.other()
	own := o.create(o.session("own").ID, "has number 1")
	h.equal("both are first", own.Sequence, made[0].Sequence)
	r := o.importAll(h.export(storage.ExportQuery{}))
	h.equal("imported", r, storage.ImportResult{Imported: len(made), Renumbered: 1, Rejected: []storage.Rejected{}})
	o.twice(func() {
		got := o.decode(o.get(made[0].CheckpointID))
		if got.Sequence <= made[len(made)-1].Sequence && got.Sequence <= own.Sequence {
			h.Fatalf("the new number is %d", got.Sequence)
		}
		h.equal("the old number is kept", got.Context.ImportedSequence, made[0].Sequence)
		h.equal("state", string(got.State), `{"dup":1,"dup":2,"big":1e400}`)
		h.equal("own", o.get(own.CheckpointID).Summary.Sequence, own.Sequence)
		seen := map[uint64]bool{}
		for _, s := range o.all(storage.Query{}) {
			if seen[s.Sequence] {
				h.Fatalf("number %d twice", s.Sequence)
			}
			seen[s.Sequence] = true
		}
	})
}

func importRejects(h *harness) {
	made := h.filled()
	page := h.export(storage.ExportQuery{})[0]
	o := h.other()
	r := o.importAll([][]byte{bytes.Replace(page, []byte(`"message":"one"`), []byte(`"message":"One"`), 1)})
	if r.Imported != len(made)-1 || len(r.Rejected) != 1 || r.Rejected[0].CheckpointID != made[0].CheckpointID.String() || r.Rejected[0].Problem == "" {
		h.Fatalf("%+v", r)
	}
	_, err := o.s.Get(h.Context(), made[0].CheckpointID)
	h.want(err, checkpoint.ErrNotFound)
	// What was rejected can come later, whole.
	h.equal("whole", o.importAll([][]byte{page}), storage.ImportResult{Imported: 1, Skipped: len(made) - 1, Rejected: []storage.Rejected{}})
}

func importRaises(h *harness) {
	s := h.session("s")
	var last checkpoint.Receipt
	for i := range 50 {
		last = h.create(s.ID, fmt.Sprint(i))
	}
	pages := h.export(storage.ExportQuery{Cursor: storage.ExportAfter(last.Sequence - 1)})
	o := h.other()
	h.equal("one", o.importAll(pages).Imported, 1)
	o.reopen()
	if r := o.create(o.session("new").ID, "x"); r.Sequence <= last.Sequence {
		h.Fatalf("number %d after %d was imported", r.Sequence, last.Sequence)
	}
}

func importForgeReasoning(h *harness) {
	page := []byte(`{"checkpoints":[
		{"id":"0f8fad5b-d9cb-469f-a165-70867728950e","session_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","sequence_number":5,
		 "timestamp":"2026-01-02T03:04:05Z","message":"by hand","tags":["a"],"trigger":"Manual","parent_id":null,
		 "state":{"hypotheses":[1.0]},"checksum":"feedface","annotations":[]},
		{"id":"0f8fad5b-d9cb-469f-a165-70867728950f","session_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","sequence_number":6,
		 "timestamp":"2026-01-02T03:05:05Z","message":"gap","tags":[],"trigger":{"Automatic":"gap_filled"},
		 "parent_id":"0f8fad5b-d9cb-469f-a165-70867728950e","state":null},
		{"id":"not an id","session_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","sequence_number":7,"timestamp":"2026-01-02T03:04:05Z",
		 "message":"","tags":[],"trigger":"Scheduled","state":{}},
		{"id":"0f8fad5b-d9cb-469f-a165-708677289510","session_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","sequence_number":9007199254740993,
		 "timestamp":"2026-01-02T03:04:05Z","message":"too high","tags":[],"trigger":"Scheduled","state":{}}
	],"global_sequence":6,"exported_at":"2026-01-02T04:04:05Z"}`)
	r := h.importAll([][]byte{page})
	if r.Imported != 2 || len(r.Rejected) != 2 || r.Rejected[0].CheckpointID != "not an id" {
		h.Fatalf("%+v", r)
	}
	h.twice(func() {
		list := h.all(storage.Query{})
		h.equal("list", messages(list), []string{"by hand", "gap"})
		h.equal("numbers", []uint64{list[0].Sequence, list[1].Sequence}, []uint64{5, 6})
		h.equal("triggers", []any{list[0].Trigger, list[1].Trigger, list[1].Cause}, []any{checkpoint.Manual, checkpoint.Automatic, checkpoint.CauseGapFilled})
		first := h.get(list[0].ID)
		h.equal("state", string(first.State), `{"hypotheses":[1.0]}`)
		var m map[string]any
		h.must(json.Unmarshal(first.Summary.Metadata, &m))
		h.equal("its checksum", m["unverified_checksum"], "feedface")
		h.equal("parent", h.get(list[1].ID).Summary.ParentID, list[0].ID)
	})
	if next := h.create(h.session("s").ID, "x"); next.Sequence <= 6 {
		h.Fatalf("number %d after 6 was imported", next.Sequence)
	}
}

func exportParts(h *harness) {
	made := h.filled()
	count := func(q storage.ExportQuery) int {
		h.Helper()
		n := 0
		for _, p := range h.export(q) {
			var page struct {
				Format         string
				Version        int
				Checkpoints    []json.RawMessage
				GlobalSequence uint64 `json:"global_sequence"`
			}
			h.must(json.Unmarshal(p, &page))
			if page.Format != "forge-cpd-export" || page.Version != 1 || page.GlobalSequence < made[len(made)-1].Sequence {
				h.Fatalf("%+v", page)
			}
			n += len(page.Checkpoints)
		}
		return n
	}
	h.equal("all", count(storage.ExportQuery{}), 4)
	h.equal("one session", count(storage.ExportQuery{SessionID: made[0].SessionID}), 2)
	h.equal("one owner", count(storage.ExportQuery{Owner: ptr(uint32(3))}), 2)
	h.equal("newer", count(storage.ExportQuery{Cursor: storage.ExportAfter(made[1].Sequence)}), 2)
	h.equal("newer, in small pages", count(storage.ExportQuery{Cursor: storage.ExportAfter(made[1].Sequence), MaxBytes: 9 << 10}), 2)
	for _, cursor := range []string{"after:", "after:-1", "after:x", "x", "c", "YzAuMC4wLjA"} { // the last: c0.0.0.0
		_, err := h.s.Export(h.Context(), storage.ExportQuery{Cursor: cursor})
		h.want(err, checkpoint.ErrInvalidParams)
	}
}

func importVersion(h *harness) {
	for _, page := range []string{
		`{"format":"forge-cpd-export","version":2,"checkpoints":[],"sessions":[]}`, `{"format":"else","version":1,"checkpoints":[]}`, `[]`, `{`, `null`,
	} {
		_, err := h.s.Import(h.Context(), []byte(page), 0)
		h.want(err, checkpoint.ErrInvalidParams)
	}
}

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

func pages(t *testing.T, s Store, max int) [][]byte {
	t.Helper()
	var out [][]byte
	cursor := ""
	for {
		p, err := s.Export(t.Context(), ExportQuery{Cursor: cursor, MaxBytes: max})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.JSON) > max {
			t.Fatalf("a page of %d bytes", len(p.JSON))
		}
		out = append(out, p.JSON)
		if cursor = p.Next; cursor == "" {
			return out
		}
	}
}

func TestExportAndImportLoseNothing(t *testing.T) {
	a := openAt(t, vfs.NewMem(), Options{})
	id := newSession(t, a, "k")
	content := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	var made []checkpoint.Receipt
	for i := range 20 {
		c := &NewCheckpoint{SessionID: id, Message: fmt.Sprint("m<", i), State: []byte(`{"n":1.0,"i":` + fmt.Sprint(i) + `}`)}
		if i%5 == 0 {
			c.Files = []FileContent{{Path: "/f", Mode: 0o644, Content: append(content, byte(i/10))}}
		}
		r, err := Create(t.Context(), a, c)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, r)
	}
	if _, err := a.Annotate(t.Context(), made[3].CheckpointID, "n", checkpoint.Info); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Restore(t.Context(), id, made[5].CheckpointID, true); err != nil {
		t.Fatal(err)
	}
	b := openAt(t, vfs.NewMem(), Options{})
	all := pages(t, a, 20000)
	if len(all) < 3 {
		t.Fatalf("%d pages", len(all))
	}
	for _, p := range all {
		r, err := b.Import(t.Context(), p, 0)
		if err != nil || r.Renumbered > 0 || len(r.Rejected) > 0 {
			t.Fatalf("%+v %v", r, err)
		}
	}
	for i, m := range made {
		x, errX := a.Get(t.Context(), m.CheckpointID)
		y, errY := b.Get(t.Context(), m.CheckpointID)
		if err := errors.Join(errX, errY); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x.Raw, y.Raw) || x.Summary.Checksum != y.Summary.Checksum || len(x.Annotations) != len(y.Annotations) {
			t.Fatalf("%s\n%s", x.Raw, y.Raw)
		}
		if i%5 == 0 {
			if _, got, err := b.ReadFile(t.Context(), m.CheckpointID, "/f"); err != nil || len(got) != len(content)+1 {
				t.Fatal(len(got), err)
			}
		}
	}
	x, _ := a.Session(t.Context(), Ref{ID: id})
	y, err := b.Session(t.Context(), Ref{Key: "k"})
	if err != nil || fmt.Sprint(x.HeadID, x.UpdatedAt, x.Name, x.CheckpointCount) != fmt.Sprint(y.HeadID, y.UpdatedAt, y.Name, y.CheckpointCount) {
		t.Fatalf("%+v\n%+v %v", x, y, err)
	}
	for _, p := range all {
		if r, err := b.Import(t.Context(), p, 0); err != nil || r.Imported > 0 || len(r.Rejected) > 0 {
			t.Fatalf("twice: %+v %v", r, err)
		}
	}
	c := openAt(t, vfs.NewMem(), Options{})
	create(t, c, newSession(t, c, "k"), `{}`)
	renumbered := 0
	for _, p := range all {
		r, err := c.Import(t.Context(), bytes.Replace(p, []byte(`"i":7}`), []byte(`"i":8}`), 1), 0)
		if err != nil {
			t.Fatal(err)
		}
		renumbered += r.Renumbered
		if bytes.Contains(p, []byte(`"i":7}`)) && (len(r.Rejected) != 1 || r.Rejected[0].CheckpointID != made[7].CheckpointID.String()) {
			t.Fatalf("%+v", r)
		}
	}
	if renumbered != 1 { // number 1 is taken; the others are above it
		t.Fatalf("%d renumbered", renumbered)
	}
	if got, err := c.Get(t.Context(), made[0].CheckpointID); err != nil || !strings.Contains(string(got.Raw), `"imported_sequence_number":1`) {
		t.Fatal(err)
	}
	for _, s := range []*dirStore{a, b, c} {
		if _, err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		clean(t, s)
	}
}

func TestImportTakesForgeReasoning(t *testing.T) {
	s := openAt(t, vfs.NewMem(), Options{})
	page := `{"checkpoints":[
	{"id":"0190b5a0-0000-7000-8000-000000000001","session_id":"0190b5a0-0000-7000-8000-0000000000aa","sequence_number":4,"timestamp":"2026-01-02T03:04:05.6Z","message":"m","tags":["x"],"trigger":{"Automatic":"BranchSwitch"},"state":{"a": 1.0},"metadata":{"k":1},"checksum":"abc"},
	{"id":"../etc","session_id":"0190b5a0-0000-7000-8000-0000000000aa","sequence_number":5,"timestamp":"2026-01-02T03:04:05Z","message":"","tags":[],"trigger":"Manual","state":null,"checksum":""}],
	"global_sequence":9,"exported_at":"2026-01-02T03:04:05Z"}`
	r, err := s.Import(t.Context(), []byte(page), 0)
	if err != nil || r.Imported != 1 || len(r.Rejected) != 1 || r.Rejected[0].CheckpointID != "../etc" {
		t.Fatalf("%+v %v", r, err)
	}
	got := list(t, s, Query{})
	if len(got) != 1 || got[0].Sequence != 4 || got[0].Cause != checkpoint.CauseBranchSwitch ||
		string(got[0].Metadata) != `{"k":1,"unverified_checksum":"abc"}` {
		t.Fatalf("%+v", got)
	}
	if _, err := s.Import(t.Context(), []byte(`{"format":"forge-cpd-export","version":2,"checkpoints":[]}`), 0); !errors.Is(err, checkpoint.ErrInvalidParams) {
		t.Fatal(err)
	}
}

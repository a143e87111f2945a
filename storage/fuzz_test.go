package storage

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// seeds are the files of a store that was killed, by what they are.
func seeds(f *testing.F) (journal, files [][]byte) {
	f.Helper()
	mem := vfs.NewMem()
	s, err := Open(f.Context(), Options{FS: mem, SegmentBytes: 8 << 10, ReserveBytes: -1})
	if err != nil {
		f.Fatal(err)
	}
	v, _, err := s.CreateSession(f.Context(), NewSession{Name: "s", Key: "k"})
	if err != nil {
		f.Fatal(err)
	}
	add := func(state string) {
		if _, err := Create(f.Context(), s, &NewCheckpoint{SessionID: v.ID, Tags: []string{"t"}, State: json.RawMessage(state)}); err != nil {
			f.Fatal(err)
		}
	}
	add(`{"n":1.0}`)
	if _, err := s.Sync(f.Context()); err != nil {
		f.Fatal(err)
	}
	add(`{"dup":1,"dup":2}`)
	disk := mem.Clone()
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	for _, dir := range []struct {
		name string
		list *[][]byte
	}{{"journal", &journal}, {"sessions", &files}} {
		for _, path := range vfstest.Files(disk, dir.name) {
			*dir.list = append(*dir.list, bytes.TrimRight(vfstest.ReadFile(disk, path), "\x00"))
		}
	}
	return journal, files
}

// What the journal reader takes for a record carries its own right checksum.
func FuzzJournal(f *testing.F) {
	journal, _ := seeds(f)
	for _, b := range journal {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, newest bool) {
		r := &segmentRead{seg: &segment{number: 1}, data: b}
		r.scan(newest)
		for i := range r.entries {
			e := &r.entries[i]
			if e.off < 0 || e.n <= 0 || e.off+e.n > int64(len(b)) {
				t.Fatalf("a record of %d bytes at %d of %d", e.n, e.off, len(b))
			}
			if l, err := parseLine(b[e.off : e.off+e.n]); err != nil || l.sum != e.sum || hexSum(l.body) != l.sum {
				t.Fatalf("a record that does not verify was taken: %v", err)
			}
		}
	})
}

// What the file reader takes is, byte for byte, what its checksum says.
func FuzzFile(f *testing.F) {
	_, files := seeds(f)
	for _, b := range files {
		for l := range bytes.Lines(b) {
			f.Add(l)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLine(b)
		if err != nil {
			return
		}
		if hexSum(l.body) != l.sum || !bytes.Contains(b, l.body) {
			t.Fatal("a line was taken that does not verify")
		}
		if l.isCheckpoint {
			if p, err := parseCheckpoint(l.body, l.sum); err == nil && !bytes.Contains(b, p.state) {
				t.Fatal("a state that is not in the file")
			}
			return
		}
		_, _ = parseRecord(b) // it must only not panic
	})
}

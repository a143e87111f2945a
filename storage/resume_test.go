package storage

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// A first round that was cut after its events and before head.json is done again whole.
func TestEventsAreNumberedOnWithoutHead(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	id := newSession(t, s, "")
	s.round.Lock() // nothing is published
	create(t, s, id, `{}`)
	disk := mem.Clone()
	s.round.Unlock()
	first := openAt(t, disk.Clone(), Options{})
	if _, err := first.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := first.readAll(eventPath(1))
	if err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open(eventPath(1), os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(0, b); err != nil {
		t.Fatal(err)
	}
	again := openAt(t, disk, Options{})
	create(t, again, id, `{}`)
	if _, err := again.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean(t, again)
	if p, err := again.Events(t.Context(), again.cursor(0), 10); err != nil || len(p.Events) != 3 {
		t.Fatalf("%+v %v", p, err)
	}
}

func TestMissingSegmentsAreNamed(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{SegmentBytes: 4 << 10})
	id := newSession(t, s, "")
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.round.Lock()
	for range 12 {
		create(t, s, id, `"`+strings.Repeat("x", 1000)+`"`)
	}
	disk := mem.Clone()
	s.round.Unlock()
	entries, err := disk.ReadDir("journal")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".jsonl") {
			names = append(names, "journal/"+e.Name)
		}
	}
	slices.Sort(names)
	if len(names) < 4 {
		t.Fatal(names)
	}
	for _, name := range names {
		work := disk.Clone()
		if err := work.Remove(name); err != nil {
			t.Fatal(err)
		}
		again := openAt(t, work, Options{})
		for range 2 { // also after the next start
			r, err := again.ValidateAll(t.Context(), checkpoint.ID{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Path == name }) || again.Health().Checks[3].OK {
				t.Fatalf("%s: %+v", name, r)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			again = openAt(t, work, Options{})
		}
	}
}

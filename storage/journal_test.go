package storage

import (
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// A commit line says how long the file is: one that is shorter would be taken for a cut. So
// it must be where a group ends just before the zeros that were written ahead do.
func TestTheJournalIsAsLongAsItSays(t *testing.T) {
	s := openAt(t, vfs.NewMem(), Options{})
	session := newSession(t, s, "")
	j := &s.journal
	last := func(state int) int64 { // what a group takes beside its state
		before := j.off
		create(t, s, session, `"`+strings.Repeat("x", state)+`"`)
		return j.off - before - int64(state)
	}
	last(1000)
	beside := last(60_000)
	for _, gap := range []int64{400, 150, 100, 50, 10} {
		for j.filled-gap-j.off < beside {
			last(1000)
		}
		last(int(j.filled - gap - j.off - beside))
		data, err := s.readAll(j.current.path)
		if err != nil {
			t.Fatal(err)
		}
		r := segmentRead{seg: j.current, data: data}
		r.scan(true)
		if r.checkLength(); r.problem != "" {
			t.Fatalf("%d bytes before the end of the zeros: %s", gap, r.problem)
		}
	}
}

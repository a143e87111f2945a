package storage

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// numbered is a page with one checkpoint.
func numbered(id int, number uint64) []byte {
	return fmt.Appendf(nil, `{"checkpoints":[{"id":"0190b5a0-0000-7000-8000-%012d","session_id":"0190b5a0-0000-7000-8000-0000000000aa",
	"sequence_number":%d,"timestamp":"2026-01-02T03:04:05.6Z","message":"m","tags":[],"trigger":"Manual","state":{},"checksum":""}],
	"global_sequence":%d,"exported_at":"2026-01-02T03:04:05Z"}`, id, number, number)
}

// Numbers end at 2^53-1: a create that would get one more is refused and nothing is lost,
// before a crash and after it.
func TestNumbersEndWhereJSONCannotHoldThem(t *testing.T) {
	for _, left := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(left), func(t *testing.T) {
			mem := vfs.NewMem()
			s := openAt(t, mem, Options{SequenceBlock: 64})
			session := newSession(t, s, "k")
			create(t, s, session, `"before"`)
			if r, err := s.Import(t.Context(), numbered(1, uint64(maxNumber-left)), 0); err != nil || r.Imported != 1 {
				t.Fatalf("%+v %v", r, err)
			}
			for i := range left {
				if r := create(t, s, session, `{}`); r.Sequence != uint64(maxNumber-left+i+1) {
					t.Fatalf("number %d", r.Sequence)
				}
			}
			full := func(s Store) {
				t.Helper()
				for _, state := range []string{`{}`, `"` + strings.Repeat("large", 60<<10) + `"`} {
					_, err := Create(t.Context(), s, &NewCheckpoint{SessionID: session, State: []byte(state)})
					if !errors.Is(err, checkpoint.ErrInvalidState) || !strings.Contains(err.Error(), "import it into a new data directory") {
						t.Fatalf("after the last number: %v", err)
					}
				}
				r, err := s.Import(t.Context(), numbered(2, 1), 0)
				if err != nil || r.Imported != 0 || len(r.Rejected) != 1 || !strings.Contains(r.Rejected[0].Problem, "no number left") {
					t.Fatalf("an import that needs a new number: %+v %v", r, err)
				}
				if got := list(t, s, Query{}); len(got) != 2+left || got[len(got)-1].Sequence != maxNumber {
					t.Fatalf("%+v", got)
				}
			}
			full(s)
			for range 2 { // a crash, and a clean stop
				crashed := openAt(t, mem.Clone(), Options{SequenceBlock: 64})
				full(crashed)
				if crashed.journal.ceiling != maxNumber {
					t.Errorf("numbers up to %d are reserved", crashed.journal.ceiling)
				}
				if _, err := crashed.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				clean(t, crashed)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A number that no name should tell is not overflowed: what is given again is worse than nothing given.
func TestACeilingDoesNotOverflow(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	session := newSession(t, s, "k")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range markerNames(s.journal.number, math.MaxUint64-1) {
		if err := s.createFile(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	again := openAt(t, mem, Options{})
	if _, err := Create(t.Context(), again, &NewCheckpoint{SessionID: session}); !errors.Is(err, checkpoint.ErrInvalidState) {
		t.Fatal(err)
	}
	newSession(t, again, "needs a segment")
	if again.journal.ceiling != math.MaxUint64-1 {
		t.Fatalf("numbers up to %d are reserved", again.journal.ceiling)
	}
}

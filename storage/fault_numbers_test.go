package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// allocate opens a store, takes a number and leaves as a process does: in order, or killed.
func allocate(mem *vfs.Mem, kill bool, wrap func(vfs.FS) vfs.FS) (left *vfs.Mem, number uint64, err error) {
	s, err := storage.Open(context.Background(), small(wrap(mem)))
	if err != nil {
		return nil, 0, err
	}
	session, _, err := s.CreateSession(context.Background(), storage.NewSession{Key: "numbers"})
	if err == nil {
		var r checkpoint.Receipt
		r, err = storage.Create(context.Background(), s, &storage.NewCheckpoint{
			SessionID: session.ID, Trigger: checkpoint.Manual, State: json.RawMessage(`{}`),
		})
		number = r.Sequence
	}
	left = mem
	if kill {
		left = mem.Clone()
	}
	return left, number, errors.Join(err, s.Close())
}

// harm damages the content of any set of files, or removes any one.
func harm(mem *vfs.Mem, r *rand.Rand) string {
	var files []string
	for _, f := range vfstest.Files(mem, ".") {
		if f != "FORMAT" && f != "LOCK" { // a damaged FORMAT is mended by hand
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return "nothing"
	}
	if r.IntN(3) == 0 {
		f := files[r.IntN(len(files))]
		if err := mem.Remove(f); err != nil {
			panic(err) // a disk in memory takes it
		}
		return f + " is gone"
	}
	var done []string
	share := r.Float64()
	for _, f := range files {
		info, err := mem.Lstat(f)
		if err != nil || !info.Mode.IsRegular() || r.Float64() > share {
			continue
		}
		b := vfstest.ReadFile(mem, f)
		switch r.IntN(4) {
		case 0:
			b = nil
		case 1:
			clear(b)
		case 2:
			b = b[:r.IntN(len(b)+1)]
		case 3:
			for i := range b {
				b[i] ^= byte(r.Uint32())
			}
		}
		vfstest.WriteFile(mem, f, b)
		done = append(done, f)
	}
	return strings.Join(done, ", ") + " are damaged"
}

// numbers restarts and allocates, a generation of stores after another.
func numbers(seed uint64, rounds int, wrap func(vfs.FS) vfs.FS) error {
	r := rand.New(rand.NewPCG(seed, 7))
	const generation = 40 // damage leaves files in quarantine: a fresh store keeps it fast
	for done := 0; done < rounds; {
		mem, last := vfs.NewMem(), uint64(0)
		what := "a new store"
		for range generation {
			left, n, err := allocate(mem, r.IntN(2) == 0, wrap)
			if err != nil {
				return fmt.Errorf("after %s: %w", what, err)
			}
			if n <= last {
				return fmt.Errorf("after %s: number %d is given after %d", what, n, last)
			}
			mem, last = left, n
			what = harm(mem, r)
			done++
		}
	}
	return nil
}

func TestFaultNumbersAreNeverUsedTwice(t *testing.T) {
	rounds := 100_000
	if !full(t) {
		rounds = 4_000
	}
	t.Parallel()
	const lanes = 4
	for lane := range uint64(lanes) {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			t.Parallel()
			if err := numbers(lane, rounds/lanes, same); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A store that kept its counter in the content of files would give numbers again.
func TestFaultNumbersNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	err := numbers(1, 4_000, func(f vfs.FS) vfs.FS { return vfstest.NoNames(f, "journal/") })
	if err == nil {
		t.Fatal("a counter that is kept in contents alone was not noticed")
	}
	t.Log("noticed:", err)
}

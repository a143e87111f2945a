package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

const sector = 512

// rot changes bytes of one file, and cuts it short, and returns the first change that is
// not found. values says which of the 255 other values a byte gets.
func (r *rotting) rot(path string, values func(was byte) []byte, stride int) (cases int64, err error) {
	was := vfstest.ReadFile(r.mem, path)
	for i := 0; i < len(was); i += stride {
		for _, v := range values(was[i]) {
			m := r.mem.Clone()
			b := bytes.Clone(was)
			b[i] = v
			vfstest.WriteFile(m, path, b)
			if err := r.hold(m, path, false); err != nil {
				return cases, fmt.Errorf("%s, byte %d: %#x for %#x: %w", path, i, v, was[i], err)
			}
			cases++
		}
		m := r.mem.Clone()
		vfstest.WriteFile(m, path, was[:i])
		if err := r.hold(m, path, false); err != nil {
			return cases, fmt.Errorf("%s, cut to %d bytes: %w", path, i, err)
		}
		cases++
	}
	return cases, nil
}

func everyValue(was byte) []byte {
	list := make([]byte, 0, 255)
	for v := range 256 {
		if byte(v) != was {
			list = append(list, byte(v))
		}
	}
	return list
}

// someValues are those that mean something: another bit, the end of a line, zero, a blank.
func someValues(was byte) []byte {
	list := []byte{was ^ 1, was ^ 0x20, 0, '\n', ' '}
	return slices.DeleteFunc(list, func(v byte) bool { return v == was })
}

// newBytes is a small store, so that all of its bytes can be changed: two checkpoints, one
// with a file and a note. With rotten, a third was found damaged and is in quarantine.
func newBytes(t *testing.T, left rest, rotten bool) *rotting {
	t.Helper()
	a := checkpoint.NewID()
	id := []checkpoint.ID{checkpoint.NewID(), checkpoint.NewID(), checkpoint.NewID()}
	r := &rotting{mem: vfs.NewMem(), left: left, w: newWorld(), busy: a, wrap: same}
	run := func(do func(c *client)) {
		s, err := storage.Open(context.Background(), small(r.mem))
		if err != nil {
			t.Fatal(err)
		}
		c := &client{s: s, w: r.w}
		release, mem := storage.HoldPublisher(s), r.mem // one round makes the shortest files
		do(c)
		if left == behind {
			r.mem = mem.Clone()
		}
		release()
		if err := errors.Join(append(c.errs, s.Close())...); err != nil {
			t.Fatal(err)
		}
	}
	run(func(c *client) {
		c.createSession(a)
		c.create(a, id[0], `{"n":0}`, "a file")
		c.annotate(id[0], "a note")
		c.create(a, id[1], `{"n":1}`, "")
		if rotten {
			c.create(a, id[2], `{"n":2}`, "")
		}
	})
	if !rotten {
		return r
	}
	for _, path := range vfstest.Files(r.mem, "sessions") {
		if strings.HasSuffix(path, id[2].String()+".json") {
			vfstest.WriteFile(r.mem, path, []byte("damaged"))
		}
	}
	run(func(c *client) {
		if _, err := c.s.Get(context.Background(), id[2]); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Fatal(err)
		}
	})
	delete(r.w.made, id[2])
	return r
}

// shape is a path without what tells files of the same kind apart.
func shape(path string) string {
	return regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{64}|[0-9]{20}`).ReplaceAllString(path, "*")
}

// Every byte of a file of each kind becomes every other value, and every file is cut at
// each of its bytes.
func TestFaultEveryByte(t *testing.T) {
	values, stride := everyValue, 1
	if !full(t) {
		values, stride = someValues, 7
	}
	t.Parallel()
	var cases atomic.Int64
	done := map[string]bool{}
	for _, r := range []*rotting{newBytes(t, closed, false), newBytes(t, closed, true)} {
		for _, path := range vfstest.Files(r.mem, ".") {
			if !promised(path) || done[shape(path)] {
				continue
			}
			done[shape(path)] = true
			t.Run(shape(path), func(t *testing.T) {
				t.Parallel()
				n, err := r.rot(path, values, stride)
				if err != nil {
					t.Error(err)
				}
				cases.Add(n)
			})
		}
	}
	t.Cleanup(func() { t.Logf("%d changes to %d kinds of files", cases.Load(), len(done)) })
}

// The journal of a killed store, and its LOCK: what was acknowledged is in the journal's
// groups, and those before the last one cannot be torn.
func TestFaultEveryByteOfTheJournal(t *testing.T) {
	values, stride := everyValue, 1
	if !full(t) {
		values, stride = someValues, 7
	}
	t.Parallel()
	var cases atomic.Int64
	r := newBytes(t, behind, false)
	for _, path := range append(vfstest.Files(r.mem, "journal"), "LOCK") {
		was := vfstest.ReadFile(r.mem, path)
		end := len(was)
		if path != "LOCK" {
			lines := bytes.SplitAfter(bytes.TrimRight(was, "\x00"), []byte("\n"))
			end = 0 // bytes before the last group: one line, its commit, and nothing after it
			for _, l := range lines[:max(0, len(lines)-3)] {
				end += len(l)
			}
		}
		const lanes = 4
		for lane := range lanes {
			t.Run(fmt.Sprint(shape(path), lane), func(t *testing.T) {
				t.Parallel()
				for i := lane * stride; i < end; i += lanes * stride {
					for _, v := range values(was[i]) {
						m := r.mem.Clone()
						b := bytes.Clone(was)
						b[i] = v
						vfstest.WriteFile(m, path, b)
						if err := r.hold(m, path, false); err != nil {
							t.Fatalf("byte %d of %d: %#x for %#x: %v", i, end, v, was[i], err)
						}
						cases.Add(1)
					}
				}
				// LOCK may be empty, and any cut of the journal is found, its zeros' too.
				for i := lane*stride + 1; i < len(was); i += lanes * stride {
					if i > 2*end {
						i += sector
					}
					m := r.mem.Clone()
					vfstest.WriteFile(m, path, was[:min(i, len(was)-1)])
					if err := r.hold(m, path, false); err != nil {
						t.Fatalf("cut to %d bytes of %d: %v", i, len(was), err)
					}
					cases.Add(1)
				}
			})
		}
	}
	t.Cleanup(func() { t.Logf("%d changes", cases.Load()) })
}

func TestFaultEveryByteNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	r := newRotting(t, closed)
	original := r.mem.Clone()
	r.wrap = func(f vfs.FS) vfs.FS { return vfstest.SameMeaning(f, original) }
	for _, path := range vfstest.Files(r.mem, "sessions") {
		if _, err := r.rot(path, someValues, 1); err != nil {
			t.Log("noticed:", err)
			return
		}
	}
	t.Fatal("a checksum over what is meant, not over what is stored, was not noticed")
}

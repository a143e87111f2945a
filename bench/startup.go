package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// start measures opening a store of n checkpoints of 8 KB until every row is known: with the
// index, against reading a compact index of as many entries into memory, and without,
// against reading and hashing every file.
func (r *report) start(root string, n, rounds int) error {
	dir, err := os.MkdirTemp(root, "start")
	if err != nil {
		return err
	}
	k, err := newStore(storage.Options{Dir: dir})
	if err != nil {
		return err
	}
	for w := range 10 {
		if err := k.fill(w, n/10, document(8192, uint64(w))); err != nil {
			return err
		}
	}
	if err := k.close(); err != nil {
		return err
	}
	reopen := func() (time.Duration, error) {
		begun := time.Now()
		s, err := newStore(storage.Options{Dir: dir})
		if err != nil {
			return 0, err
		}
		st, err := s.s.Stats(context.Background())
		if err == nil && st.Checkpoints != n {
			err = fmt.Errorf("%d checkpoints after a restart, want %d", st.Checkpoints, n)
		}
		if err == nil { // answered when every row is known
			_, err = s.s.List(context.Background(), storage.Query{Trigger: checkpoint.Manual, Limit: 1})
		}
		took := time.Since(begun)
		return took, errors.Join(err, s.close())
	}
	compact := filepath.Join(root, fmt.Sprint("compact", n))
	if err := writeCompact(compact, n); err != nil {
		return err
	}
	if _, err := reopen(); err != nil { // what it wrote last is on the disk now
		return err
	}
	ms, err := spans(rounds, reopen, timed(func() error { return readCompact(compact, n) }))
	if err != nil {
		return err
	}
	what := fmt.Sprintf("start, %d checkpoints", n)
	r.Times = append(r.Times, timing{what, "with the index", ms[0]}, timing{what, "reading a compact index into memory", ms[1]})
	rebuilt, err := spans(max(2, rounds/2),
		func() (time.Duration, error) {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				return 0, err
			}
			return reopen()
		},
		timed(func() error { return hashTree(filepath.Join(dir, "sessions")) }))
	if err != nil {
		return err
	}
	r.Times = append(r.Times, timing{what, "without the index", rebuilt[0]}, timing{what, "reading and hashing every file", rebuilt[1]})
	r.goal(what+", with the index, to reading a compact one", 1.5, false, ms[0]/ms[1], fmt.Sprintf("%.0f ms", ms[0]))
	r.goal(what+", without, to read + SHA-256", 1.3, false, rebuilt[0]/rebuilt[1], fmt.Sprintf("%.0f ms", rebuilt[0]))
	return nil
}

// hashTree reads and hashes every file, one after the other.
func hashTree(dir string) error {
	buf := make([]byte, 1<<20)
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		for {
			n, err := f.Read(buf)
			h.Write(buf[:n])
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// A compact index is what a start cannot do with less of: entries of 80 bytes, an id and a
// check in each, which become a list and a map from id to place.
const compactEntry = 80

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func writeCompact(path string, n int) error {
	b := make([]byte, 0, n*compactEntry)
	for range n {
		var e [compactEntry]byte
		id := checkpoint.NewID()
		copy(e[:], id[:])
		binary.LittleEndian.PutUint32(e[compactEntry-4:], crc32.Checksum(e[:compactEntry-4], castagnoli))
		b = append(b, e[:]...)
	}
	return os.WriteFile(path, b, 0o600)
}

func readCompact(path string, n int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	list := make([][compactEntry]byte, 0, len(b)/compactEntry)
	places := make(map[checkpoint.ID]uint32, len(b)/compactEntry)
	for ; len(b) >= compactEntry; b = b[compactEntry:] {
		e := [compactEntry]byte(b)
		if crc32.Checksum(e[:compactEntry-4], castagnoli) != binary.LittleEndian.Uint32(e[compactEntry-4:]) {
			return fmt.Errorf("%s: an entry does not verify", path)
		}
		places[checkpoint.ID(e[:16])] = uint32(len(list))
		list = append(list, e)
	}
	if len(list) != n || len(places) != n {
		return fmt.Errorf("%s: %d entries, %d ids, want %d", path, len(list), len(places), n)
	}
	return nil
}

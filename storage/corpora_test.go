package storage

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

var corpora = flag.Bool("corpora", false, "write testdata/indexed and the corpora of the fuzz targets anew")

// busy does everything that leaves a record of its own. It ends with all of it published.
func busy(t *testing.T, s *dirStore) {
	t.Helper()
	ctx := context.Background()
	a, b, gone := newSession(t, s, "a"), newSession(t, s, "b"), newSession(t, s, "gone")
	var made []checkpoint.Receipt
	for i := range 4 {
		made = append(made, create(t, s, a, fmt.Sprint(i)))
	}
	create(t, s, gone, `null`)
	large, err := Create(ctx, s, &NewCheckpoint{SessionID: b, Cause: checkpoint.CauseToolCall, State: []byte(`"` + strings.Repeat("large", 200) + `"`)})
	name := "another"
	_, err1 := s.Annotate(ctx, made[0].CheckpointID, "a note", checkpoint.Info)
	_, err2 := s.ChangeSession(ctx, b, SessionChange{Name: &name})
	s.LogEvent(checkpoint.Event{Type: checkpoint.EventCorrupt, SessionID: b, CheckpointID: large.CheckpointID, Problem: "not really"})
	err3 := Published(ctx, s)
	_, err4 := s.Annotate(ctx, made[0].CheckpointID, "another", checkpoint.Critical)
	_, err5 := s.DeleteSession(ctx, gone)
	if err := errors.Join(err, err1, err2, err3, err4, err5, s.Delete(ctx, made[1].CheckpointID), Published(ctx, s)); err != nil {
		t.Fatal(err)
	}
}

// writeSeed writes a file of a corpus: values as Go writes them.
func writeSeed(t *testing.T, target, name string, values ...any) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("go test fuzz v1\n")
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			fmt.Fprintf(&b, "[]byte(%q)\n", v)
		default:
			fmt.Fprintf(&b, "%T(%v)\n", v, v)
		}
	}
	dir := filepath.Join("testdata/fuzz", target)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestMakeCorpora writes what real stores hold of each kind. Finds and damage that are there stay.
func TestMakeCorpora(t *testing.T) {
	if !*corpora {
		t.Skip("-corpora is not given: it writes the corpora anew")
	}
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{SegmentBytes: 64 << 10, LargeBytes: 1000, SequenceBlock: 64, ReserveBytes: -1})
	busy(t, s)
	killed := mem.Clone()
	for i, path := range vfstest.Files(killed, "journal") {
		if b := bytes.TrimRight(vfstest.ReadFile(killed, path), "\x00"); len(b) > 0 {
			writeSeed(t, "FuzzJournal", fmt.Sprintf("store-%d", i), b, true)
		}
	}
	var ended []byte
	path := s.journal.current.path
	err := s.do(&op{eval: func(*tx) error { return nil }, after: func() error {
		defer HoldPublisher(s)() // it would go at once
		err := s.endSegment()
		ended, _ = s.readAll(path)
		writeSeed(t, "FuzzJournal", "store-ended", ended, false)
		return err
	}})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	makeIndexed(t, mem)

	damaged := mem.Clone()
	vfstest.WriteFile(damaged, headPath, []byte("x"))
	if err := openAt(t, damaged, Options{ReserveBytes: -1}).Close(); err != nil {
		t.Fatal(err)
	}
	files := [][]byte{ended}
	for _, m := range []*vfs.Mem{killed, mem, damaged} {
		for _, path := range vfstest.Files(m, ".") {
			files = append(files, vfstest.ReadFile(m, path))
		}
	}
	seen := map[string]bool{"": true}
	for _, b := range files {
		for l := range bytes.Lines(b) {
			if kind := kindOf(l); !seen[kind] {
				seen[kind] = true
				writeSeed(t, "FuzzFile", "kind-"+kind, l)
			}
		}
	}
}

var recordType = regexp.MustCompile(`^\{"checksum":"sha256:[0-9a-f]{64}","(checkpoint)?(?:record":\{"type":"([a-z_]+))?`)

// kindOf is a line's record type, or checkpoint.
func kindOf(l []byte) string {
	m := recordType.FindSubmatch(l)
	if _, err := parseLine(l); err != nil || m == nil {
		return ""
	}
	return string(m[1]) + string(m[2])
}

// makeIndexed keeps a closed store with its index, and makes that FuzzIndex's corpus.
func makeIndexed(t *testing.T, mem *vfs.Mem) {
	t.Helper()
	if err := os.RemoveAll(indexedStore); err != nil {
		t.Fatal(err)
	}
	for _, path := range vfstest.Files(mem, ".") {
		to := filepath.Join(indexedStore, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, vfstest.ReadFile(mem, path), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	rows, sums := vfstest.ReadFile(mem, rowsPath), vfstest.ReadFile(mem, summariesPath)
	writeSeed(t, "FuzzIndex", "whole", rows, sums, false)
	writeSeed(t, "FuzzIndex", "whole-forged", rows, sums, true)
	writeSeed(t, "FuzzIndex", "no-summaries", rows, []byte{}, false)
	writeSeed(t, "FuzzIndex", "half-summaries", rows, sums[:len(sums)/2], false)
	letters, ends := entries(rows)
	for _, kind := range []byte("HSRDNP") {
		i := slices.Index(letters, kind)
		if i < 0 {
			t.Fatalf("the index has no %c", kind)
		}
		writeSeed(t, "FuzzIndex", fmt.Sprintf("first-%c", kind), rows[:ends[i]], sums, false)
		writeSeed(t, "FuzzIndex", fmt.Sprintf("cut-in-%c", kind), rows[:ends[i]-5], sums, true)
	}
}

// Each target's corpus holds every kind of record that it reads.
func TestCorporaHoldEveryKind(t *testing.T) {
	journal := []string{recSegment, recCommit, recEnd, recSession, recChange, recSessionDelete, recDelete, recAnnotate, recEvent, recLarge, "checkpoint"}
	for target, want := range map[string][]string{
		"FuzzJournal": journal,
		"FuzzFile":    append(journal, recAdded, recRemoved, recAnnotations, recDescribed, recQuarantine, recHead),
		"FuzzIndex":   strings.Split("HSRDNP", ""),
	} {
		have := map[string]bool{}
		err := filepath.WalkDir(filepath.Join("testdata/fuzz", target), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			for l := range strings.Lines(string(b)) {
				text, ok := strings.CutPrefix(strings.TrimSpace(l), "[]byte(")
				if !ok {
					continue
				}
				value, unquoteErr := strconv.Unquote(strings.TrimSuffix(text, ")"))
				if unquoteErr != nil {
					return fmt.Errorf("%s: %w", path, unquoteErr)
				}
				for v := range bytes.Lines([]byte(value)) {
					have[kindOf(v)] = true
				}
				if target == "FuzzIndex" {
					letters, _ := entries([]byte(value))
					for _, c := range letters {
						have[string(c)] = true
					}
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range want {
			if !have[kind] {
				t.Errorf("the corpus of %s holds no %q: go test -run TestMakeCorpora -corpora writes it", target, kind)
			}
		}
	}
}

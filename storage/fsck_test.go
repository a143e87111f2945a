package storage

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// flip changes a byte in the middle of a file.
func flip(t *testing.T, fsys vfs.FS, path string) {
	t.Helper()
	f, err := fsys.Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, size/2); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(size/2, []byte{b[0] ^ 1}); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, fsys vfs.FS, dir string) (out []string) {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := strings.TrimPrefix(dir+"/"+e.Name, "/")
		if e.Mode.IsDir() {
			out = append(out, files(t, fsys, path)...)
		} else {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// bytesOf names every file and the checksum of its bytes.
func bytesOf(t *testing.T, fsys vfs.FS) string {
	t.Helper()
	s := &dirStore{fs: fsys}
	var b strings.Builder
	for _, path := range files(t, fsys, "") {
		content, err := s.readAll(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\n", path, hexSum(content))
	}
	return b.String()
}

// TestLookingChangesNothing looks at damage in a store that is open, and in one that was
// killed with everything still in its journal.
func TestLookingChangesNothing(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	id := newSession(t, s, "k")
	good, bad := create(t, s, id, `{"a":1}`), create(t, s, id, `{"a":2}`)
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	flip(t, mem, checkpointPath(id, bad.Sequence, bad.CheckpointID))
	before := bytesOf(t, mem)
	if v, err := s.Inspect(t.Context(), good.CheckpointID); err != nil || v != (Verdict{Valid: true, Checksum: good.Checksum}) {
		t.Fatalf("%+v %v", v, err)
	}
	v, err := s.Inspect(t.Context(), bad.CheckpointID)
	if err != nil || v.Valid || !strings.Contains(v.Problem, "checksum") {
		t.Fatalf("%+v %v", v, err)
	}
	if after := bytesOf(t, mem); after != before {
		t.Fatalf("looking changed\n%s\nto\n%s", before, after)
	}
	if sum, err := s.Summary(t.Context(), bad.CheckpointID); err != nil || sum.Corrupt {
		t.Fatalf("looking marked it: %+v %v", sum, err)
	}
	if w, err := s.Validate(t.Context(), bad.CheckpointID); err != nil || w != v {
		t.Fatalf("%+v %v, looking said %+v", w, err, v)
	}
	if again, err := s.Inspect(t.Context(), bad.CheckpointID); err != nil || again != v {
		t.Fatalf("in quarantine: %+v %v", again, err)
	}
	if _, err := s.Inspect(t.Context(), checkpoint.NewID()); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Fatal(err)
	}

	killed := vfs.NewMem()
	s = openAt(t, killed, Options{})
	s.round.Lock() // nothing is published
	defer s.round.Unlock()
	last := create(t, s, newSession(t, s, "k"), `{"a":3}`)
	disk := killed.Clone()
	before = bytesOf(t, disk)
	r, err := Fsck(t.Context(), Options{FS: disk}, false)
	if err != nil || r.Valid != 1 || len(r.Problems) > 0 || !r.Newest.Equal(last.Timestamp) {
		t.Fatalf("%+v %v, newest of %v", r, err, last.Timestamp)
	}
	if after := bytesOf(t, disk); after != before {
		t.Fatalf("fsck changed\n%s\nto\n%s", before, after)
	}
}

func TestFsckOfNoStore(t *testing.T) {
	for _, repair := range []bool{false, true} {
		dir := t.TempDir()
		if _, err := Fsck(t.Context(), Options{Dir: dir}, repair); !errors.Is(err, checkpoint.ErrNotFound) || !strings.Contains(err.Error(), dir) {
			t.Errorf("repair %v: %v", repair, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("repair %v made %v, %v", repair, left, err)
		}
	}
}

// TestEveryFileIsWatched damages one file after the other of a store at rest.
func TestEveryFileIsWatched(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	id := newSession(t, s, "k")
	var made []checkpoint.Receipt
	for range 3 {
		made = append(made, create(t, s, id, `{"a":1}`))
	}
	if _, err := s.Annotate(t.Context(), made[0].CheckpointID, "n", checkpoint.Info); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), s, &NewCheckpoint{SessionID: id, Files: []FileContent{{Path: "f", Content: []byte("content")}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range files(t, mem, "") {
		if strings.HasPrefix(path, "index/") || strings.HasPrefix(path, "tmp/") || path == "LOCK" {
			continue
		}
		if info, err := mem.Lstat(path); err != nil || info.Size == 0 {
			continue
		}
		t.Run(path, func(t *testing.T) {
			disk := mem.Clone()
			flip(t, disk, path)
			before := bytesOf(t, disk)
			r, err := Fsck(t.Context(), Options{FS: disk}, false)
			if path == "FORMAT" {
				if !errors.Is(err, checkpoint.ErrCorrupt) {
					t.Fatal(err)
				}
			} else if err != nil || !names(r, path) {
				t.Fatalf("without repair: %+v %v", r, err)
			}
			if after := bytesOf(t, disk); after != before {
				t.Fatalf("fsck without repair changed\n%s\nto\n%s", before, after)
			}
			if r, err = Fsck(t.Context(), Options{FS: disk}, true); err != nil || !names(r, path) {
				t.Fatalf("with repair: %+v %v", r, err)
			}
			if r, err = Fsck(t.Context(), Options{FS: disk}, false); err != nil || len(r.Problems) > 0 {
				t.Fatalf("after repair: %+v %v", r, err)
			}
			again := openAt(t, disk, Options{})
			sound := 0
			for _, m := range made {
				st, err := again.Get(t.Context(), m.CheckpointID)
				if err == nil && st.Summary.Checksum == m.Checksum {
					sound++
				} else if !errors.Is(err, checkpoint.ErrCorrupt) {
					t.Fatal(err)
				}
			}
			if want := 3; sound < want-1 || !strings.Contains(path, "/checkpoints/") && sound != want {
				t.Fatalf("%d of %d are served", sound, want)
			}
			if got := list(t, again, Query{SessionID: id}); len(got) != 4 {
				t.Fatalf("%d are listed", len(got))
			}
			if v, err := again.Session(t.Context(), Ref{Key: "k"}); err != nil || v.ID != id || v.Name != "test" {
				t.Fatalf("%+v %v", v, err)
			}
			if r := create(t, again, id, `{}`); r.Sequence <= made[2].Sequence {
				t.Fatalf("number %d again", r.Sequence)
			}
		})
	}
}

func names(r Report, path string) bool {
	for _, p := range r.Problems {
		if p.Path == path {
			return true
		}
	}
	return false
}

// What a start writes anew is told of once: repairing puts nothing away that is in use.
func TestFsckMendsLockAndMarkers(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	create(t, s, newSession(t, s, "k"), `{}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	marker := ""
	for _, path := range files(t, mem, "") {
		if strings.HasSuffix(path, ".b") {
			marker = path
		}
	}
	if err := mem.Remove(marker); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Open("LOCK", os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, repair := range []bool{false, true} {
		r, err := Fsck(t.Context(), Options{FS: mem}, repair)
		if err != nil || !names(r, "LOCK") || !names(r, marker) || len(r.Problems) != 2 {
			t.Fatalf("repair %v: %+v %v", repair, r, err)
		}
	}
	if r, err := Fsck(t.Context(), Options{FS: mem}, false); err != nil || len(r.Problems) > 0 {
		t.Fatalf("after repair: %+v %v", r, err)
	}
	s = openAt(t, mem, Options{})
	if r := create(t, s, newSession(t, s, "again"), `{}`); r.Sequence != 2 {
		t.Fatalf("number %d", r.Sequence)
	}
}

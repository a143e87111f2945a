package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// backupStore is a store in a directory of its own with all that a copy must keep.
func backupStore(t *testing.T) (s *dirStore, dir string, session checkpoint.ID) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	opened, err := Open(t.Context(), Options{Dir: dir, LargeBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() }) // a test that minds has closed it before
	s = opened.(*dirStore)
	session = newSession(t, s, "k")
	transcript := bytes.Repeat([]byte("a line of a transcript\n"), 3000)
	for i := range 30 {
		c := &NewCheckpoint{SessionID: session, Message: "m", State: fmt.Appendf(nil, `{"i":%d,"pad":"%s"}`, i, strings.Repeat("x", i*300))}
		if i%3 == 0 {
			c.Files = []FileContent{{Path: "/f", Mode: 0o600, Content: fmt.Appendf(transcript[:len(transcript)-i*1000:len(transcript)-i*1000], "line %d\n", i)}}
		}
		r, err := Create(t.Context(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 {
			if _, err := s.Annotate(t.Context(), r.CheckpointID, fmt.Sprint("note ", i), checkpoint.Info); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s, dir, session
}

func backupOf(t *testing.T, s *dirStore, from, to string) *BackupReport {
	t.Helper()
	r, err := Backup(t.Context(), BackupOptions{From: from, To: to, Sync: func(ctx context.Context) error {
		_, err := s.Sync(ctx)
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// exported is all that a store holds, as the stream that moves stores.
func exported(t *testing.T, s Store) string {
	t.Helper()
	all := bytes.Join(pages(t, s, 8<<20), nil)
	if !exportTime.Match(all) {
		t.Fatal("an export does not tell its time")
	}
	return string(exportTime.ReplaceAll(all, nil))
}

// exportTime is what differs between exports of the same: when it was, and the highest
// number, which a copy takes from what was reserved.
var exportTime = regexp.MustCompile(`,"exported_at":"[^"]*"|,"global_sequence":\d+`)

// openCopy opens a copy as a store; one that is not whole fails the test.
func openCopy(t *testing.T, dir string) *dirStore {
	t.Helper()
	r, err := Fsck(t.Context(), Options{Dir: dir}, false)
	if err != nil || len(r.Problems) > 0 || r.Invalid > 0 {
		t.Fatalf("the copy: %+v, %v", r, err)
	}
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // it is only read
	return s.(*dirStore)
}

func TestBackupIsAStore(t *testing.T) {
	s, dir, session := backupStore(t)
	to := filepath.Join(t.TempDir(), "copy")
	r := backupOf(t, s, dir, to)
	if r.Sessions != 1 || r.Checkpoints != 30 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
	c := openCopy(t, to)
	if exported(t, c) != exported(t, s) {
		t.Error("the copy does not hold what the store holds")
	}
	page, err := s.Events(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if page, err = c.Events(t.Context(), page.Cursor, 0); err != nil || !page.Fresh {
		t.Errorf("a cursor of the store is taken by its copy: %+v, %v", page, err)
	}
	made := create(t, c, session, `{}`)
	if made.Sequence <= 30 {
		t.Errorf("the copy gave the number %d again", made.Sequence)
	}
	infos, err := os.Stat(to)
	if err != nil || infos.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", infos.Mode(), err)
	}
}

func TestBackupCostsWhatIsNew(t *testing.T) {
	s, dir, session := backupStore(t)
	to := filepath.Join(t.TempDir(), "copy")
	first := backupOf(t, s, dir, to)
	again := backupOf(t, s, dir, to)
	if again.Copied != 0 || again.Linked != first.Copied {
		t.Errorf("nothing is new, and %d of %d files were copied", again.Copied, first.Copied)
	}
	create(t, s, session, `{"new":1}`)
	if err := s.Delete(t.Context(), firstOf(t, s)); err != nil {
		t.Fatal(err)
	}
	third := backupOf(t, s, dir, to)
	if third.Copied != 3 || third.Checkpoints != 30 { // the checkpoint, session.json, the manifest
		t.Errorf("one is new and one gone: %+v", third)
	}
	if holds(t, to) != exported(t, s) {
		t.Error("the copy does not hold what the store holds")
	}
}

func firstOf(t *testing.T, s *dirStore) checkpoint.ID {
	t.Helper()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index.row(s.index.order[0]).id
}

func TestBackupKeepsTheLastGoodOne(t *testing.T) {
	s, dir, session := backupStore(t)
	to := filepath.Join(t.TempDir(), "copy")
	backupOf(t, s, dir, to)
	want := holds(t, to)
	create(t, s, session, `{"new":1}`)
	boom := errors.New("boom")
	if _, err := Backup(t.Context(), BackupOptions{From: dir, To: to, Sync: func(context.Context) error { return boom }}); !errors.Is(err, boom) {
		t.Fatalf("%v", err)
	}
	// What a killed one leaves: a part of a copy, unlocked.
	if err := os.CopyFS(to+".new", os.DirFS(to)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(to+".new", "sessions")); err != nil {
		t.Fatal(err)
	}
	if got := holds(t, to); got != want {
		t.Error("the earlier copy has changed")
	}
	if r := backupOf(t, s, dir, to); r.Checkpoints != 31 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Lstat(to + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s.new: %v", to, err)
	}
}

// holds is what a copy holds; it is closed again.
func holds(t *testing.T, dir string) string {
	t.Helper()
	c := openCopy(t, dir)
	all := exported(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBackupOfADamagedStore(t *testing.T) {
	for _, earlier := range []bool{false, true} {
		t.Run(fmt.Sprintf("earlier copy %v", earlier), func(t *testing.T) {
			s, dir, session := backupStore(t)
			to := filepath.Join(t.TempDir(), "copy")
			if earlier {
				backupOf(t, s, dir, to)
			} else if _, err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			whole := exported(t, s)
			names, err := filepath.Glob(filepath.Join(dir, sessionDir(session), "checkpoints", "*.json"))
			if err != nil || len(names) != 30 {
				t.Fatal(len(names), err)
			}
			flipFile(t, names[3])
			if err := os.Remove(names[7]); err != nil {
				t.Fatal(err)
			}
			r := backupOf(t, s, dir, to)
			if earlier {
				if len(r.Problems) != 0 || r.Checkpoints != 30 {
					t.Errorf("%+v", r)
				}
				if got := holds(t, to); got != whole {
					t.Error("the copy does not hold what the store held")
				}
				return
			}
			if len(r.Problems) != 2 || r.Checkpoints != 28 {
				t.Fatalf("%+v", r)
			}
			for _, p := range r.Problems {
				if p.Path != rel(t, dir, names[3]) && p.Path != rel(t, dir, names[7]) {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

func rel(t *testing.T, dir, name string) string {
	t.Helper()
	p, err := filepath.Rel(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func flipFile(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		b[len(b)/2] ^= 1
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestBackupRefuses(t *testing.T) {
	s, dir, _ := backupStore(t)
	parent := t.TempDir()
	other := filepath.Join(parent, "other")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t2, dir2, _ := backupStore(t)
	copy2 := filepath.Join(parent, "copy2")
	backupOf(t, t2, dir2, copy2)
	used := filepath.Join(parent, "used")
	backupOf(t, s, dir, used)
	openCopy(t, used)
	for _, c := range []struct{ to, want string }{
		{other, "no backup wrote"},
		{dir, "one inside the other"},
		{filepath.Join(dir, "backups"), "one inside the other"},
		{filepath.Dir(dir), "one inside the other"},
		{copy2, "another store"},
		{used, "holds the store " + used},
	} {
		_, err := Backup(t.Context(), BackupOptions{From: dir, To: c.to, Sync: func(context.Context) error { return nil }})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.to, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(other, "precious")); err != nil {
		t.Error(err)
	}
}

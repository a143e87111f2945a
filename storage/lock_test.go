package storage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// LOCK holds nothing that could be lost, and still no byte of the store changes unseen
// under a daemon.
func TestValidateAllNamesAChangedReserve(t *testing.T) {
	dir := t.TempDir()
	for _, damage := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		os.Remove,
	} {
		s, err := storage.Open(t.Context(), storage.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil); err != nil || len(r.Problems) != 0 {
			t.Errorf("a restart makes it anew: %+v, %v", r.Problems, err)
		}
		if err := damage(filepath.Join(dir, "tmp/reserve")); err != nil {
			t.Fatal(err)
		}
		r, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil)
		if err != nil || len(r.Problems) != 1 || r.Problems[0].Path != "tmp/reserve" {
			t.Errorf("%+v, %v", r.Problems, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheSecondDaemonSaysWhoHoldsTheStore(t *testing.T) {
	dir := t.TempDir()
	s, err := storage.Open(t.Context(), storage.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = storage.Open(t.Context(), storage.Options{Dir: dir})
	if want := fmt.Sprintf("(process %d)", os.Getpid()); !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Fatalf("not %s: %v", want, err)
	}
}

func TestValidateAllNamesAChangedLock(t *testing.T) {
	dir := t.TempDir()
	s, err := storage.Open(t.Context(), storage.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil); err != nil || len(r.Problems) != 0 {
		t.Fatalf("a whole store: %+v, %v", r.Problems, err)
	}
	for _, damage := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		os.Remove,
	} {
		if err := damage(filepath.Join(dir, "LOCK")); err != nil {
			t.Fatal(err)
		}
		r, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil)
		if err != nil || len(r.Problems) != 1 || r.Problems[0].Path != "LOCK" {
			t.Errorf("%+v, %v", r.Problems, err)
		}
	}
}

// LOCK may be removed, or replaced, under a daemon: the store is still held.
func TestTheStoreIsHeldWithoutLOCK(t *testing.T) {
	dir := t.TempDir()
	onDisk := storage.Options{Dir: dir}
	inMemory := storage.Options{FS: vfs.NewMem()}
	for name, c := range map[string]struct {
		o      storage.Options
		remove func() error
		make   func() error
	}{
		"on disk": {
			onDisk, func() error { return os.Remove(filepath.Join(dir, "LOCK")) },
			func() error { return os.WriteFile(filepath.Join(dir, "LOCK"), nil, 0o600) },
		},
		"in memory": {
			inMemory, func() error { return inMemory.FS.Remove("LOCK") },
			func() error { vfstest.WriteFile(inMemory.FS.(*vfs.Mem), "LOCK", nil); return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := storage.Open(t.Context(), c.o)
			if err != nil {
				t.Fatal(err)
			}
			refused := func(why string) {
				t.Helper()
				_, opened := storage.Open(t.Context(), c.o)
				_, looked := storage.Fsck(t.Context(), c.o, false)
				_, mended := storage.Fsck(t.Context(), c.o, true)
				for _, err := range []error{opened, looked, mended} {
					if !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), why) {
						t.Errorf("not %q: %v", why, err)
					}
				}
			}
			if err := c.remove(); err != nil {
				t.Fatal(err)
			}
			refused("whose LOCK was removed")
			if err := c.make(); err != nil {
				t.Fatal(err)
			}
			refused("another daemon holds")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := storage.Open(t.Context(), c.o)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

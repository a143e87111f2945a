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

package storage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// LOCK holds nothing that could be lost, and still no byte of the store changes unseen
// under a daemon.
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

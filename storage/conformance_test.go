package storage_test

import (
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/storagetest"
)

func TestDirectoryDriver(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Opener {
		dir := t.TempDir()
		return func(now func() time.Time) (storage.Store, error) {
			return storage.Open(t.Context(), storage.Options{Dir: dir, Now: now, SegmentBytes: 256 << 10})
		}
	})
}

func TestDirectoryDriverWithSyncFS(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Opener {
		dir := t.TempDir()
		return func(now func() time.Time) (storage.Store, error) {
			return storage.Open(t.Context(), storage.Options{Dir: dir, Now: now, SyncFS: true})
		}
	})
}

func TestMemoryDriver(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Opener {
		mem := vfs.NewMem()
		return func(now func() time.Time) (storage.Store, error) {
			return storage.Open(t.Context(), storage.Options{FS: mem, Now: now})
		}
	})
}

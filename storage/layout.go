package storage

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// File systems whose locks or flushes are another machine's word.
var networkFS = map[int64]string{
	0x6969: "NFS", 0x517b: "SMB", 0xff534d42: "CIFS", 0xfe534d42: "SMB2", 0x01021997: "9p", 0x65735546: "FUSE",
	0x00c36400: "Ceph", 0x5346414f: "AFS",
}

func (s *dirStore) checkFS() error {
	info, err := s.fs.Statfs()
	if err != nil {
		return s.storageError("looking at the file system", err)
	}
	if name := NetworkFS(info.Type); name != "" && !s.opts.AllowNetworkFS {
		return checkpoint.Errorf(checkpoint.KindStorage,
			"the data directory %s is on %s, where locks and flushes do not hold: use a local disk, or set storage.allow_network_fs", s.opts.Dir, name)
	}
	return nil
}

func (s *dirStore) checkFormat() error {
	b, err := s.readAll("FORMAT")
	switch {
	case errors.Is(err, syscall.ENOENT):
		if entries, err := s.fs.ReadDir("sessions"); err == nil && len(entries) > 0 {
			return checkpoint.Errorf(checkpoint.KindCorrupt, "FORMAT is gone from %s, which holds sessions: run forge-cpd fsck --repair", s.opts.Dir)
		}
		return s.makeStore()
	case errors.Is(err, errStrange):
		return checkpoint.Errorf(checkpoint.KindCorrupt, "FORMAT is no file: run forge-cpd fsck --repair")
	case err != nil:
		return s.storageError("reading FORMAT", err)
	case string(b) == formatText:
		return s.makeStore()
	}
	var version int
	if n, _ := fmt.Sscanf(string(b), `{"format":"forge-cpd","version":%d}`, &version); n == 1 && version > formatVersion {
		return checkpoint.Errorf(checkpoint.KindInvalidState,
			"the store %s has format %d, this program knows up to %d: use a newer forge-cpd", s.opts.Dir, version, formatVersion)
	}
	return checkpoint.Errorf(checkpoint.KindCorrupt, "FORMAT is damaged: run forge-cpd fsck --repair")
}

// makeStore makes what is missing of the layout. FORMAT comes whole or not at all: a first
// start that is cut must leave something that starts.
func (s *dirStore) makeStore() error {
	made := false
	for _, dir := range []string{"journal", "sessions", "events", "index", "quarantine", "tmp", "blobs"} {
		switch err := s.fs.Mkdir(dir); {
		case err == nil:
			made = true
		case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EEXIST):
		default:
			return s.storageError("making "+dir, err)
		}
	}
	if _, err := s.fs.Lstat("FORMAT"); errors.Is(err, syscall.ENOENT) {
		if err := s.fs.SyncDir(""); err != nil { // what belongs to a store is there before its FORMAT
			return s.storageError("flushing the data directory", err)
		}
		if err := s.replaceFile("FORMAT", []byte(formatText)); err != nil {
			return s.storageError("writing FORMAT", err)
		}
		made = true
	} else if err != nil {
		return s.storageError("looking for FORMAT", err)
	}
	// Also when all was there: the first start may have been killed before it came to this.
	if err := s.fs.SyncDir(""); err != nil && (made || !errors.Is(err, syscall.EROFS)) {
		return s.storageError("flushing the data directory", err)
	}
	return nil
}

func makeDataDir(dir string) error {
	if dir == "" {
		return fmt.Errorf("no data directory is given")
	}
	return os.MkdirAll(dir, 0o700)
}

var errStrange = errors.New("it is no regular file")

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// PrivateDir makes a directory of mode 0700, parents too, or checks the one that is
// there: a real directory of this uid that no one else may write or, unless shared,
// enter. It mends nothing that it did not make. Shared directories get 0711, so that
// the peers of an open socket can reach it.
func PrivateDir(dir string, shared bool) error { return Host().privateDir(dir, shared) }

// CheckPrivateDir is PrivateDir for those who only use it: a client asks before it hands
// its state to whoever listens there. A missing directory is fs.ErrNotExist. Root's
// directories are trusted too, since root can replace any.
func CheckPrivateDir(dir string) error {
	err := Host().checkPrivate(dir, true)
	if info, statErr := os.Lstat(dir); err != nil && statErr == nil && info.IsDir() && info.Mode().Perm()&0o022 == 0 {
		if owner, ok := ownerOf(info); ok && owner == 0 {
			return nil
		}
	}
	return err
}

func (s System) privateDir(dir string, shared bool) error {
	mode := fs.FileMode(0o700)
	if shared {
		mode = 0o711
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("making %s: %w", filepath.Dir(dir), err)
	}
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return s.checkPrivate(dir, shared)
	case err != nil:
		return fmt.Errorf("making %s: %w", dir, err)
	}
	// The directory is new and ours; Mkdir's mode went through the umask.
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	return nil
}

func (s System) checkPrivate(dir string, shared bool) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("checking %s: %w", dir, err)
	}
	forbidden, want := fs.FileMode(0o077), "chmod 700 it"
	if shared {
		forbidden, want = 0o022, "chmod 711 it"
	}
	owner, known := ownerOf(info)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link, which another user could turn elsewhere: remove it or name another place", dir)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: remove it or name another place", dir)
	case known && owner != s.UID:
		return fmt.Errorf("%s belongs to uid %d, and this is uid %d: name another place, or remove it as its owner", dir, owner, s.UID)
	case info.Mode().Perm()&forbidden != 0:
		return fmt.Errorf("%s is open to others (mode %04o): %s, or name another place", dir, info.Mode().Perm(), want)
	}
	return nil
}

// owns says that a directory is this uid's and that nobody else can write it.
func (s System) owns(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return false
	}
	owner, ok := ownerOf(info)
	return ok && owner == s.UID
}

func ownerOf(info fs.FileInfo) (int, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// lockLine is what LOCK holds while a process has the store open. Every one is of the same
// length and less than a sector, so that one is written over another whole or not at all.
func lockLine(pid int) []byte {
	body := fmt.Sprintf(`{"type":"lock","process":"%010d"}`, pid)
	return []byte(lineStart + hexSum([]byte(body)) + recordStart + body + lineEnd)
}

// lockHolder is the process that wrote LOCK, 0 when none did. ok is false for what no
// process leaves there: the file is empty after a clean stop, and after a power cut it may
// have its length and nothing in it. Earlier versions wrote the number alone.
func lockHolder(b []byte) (pid int, ok bool) {
	text := bytes.TrimRight(b, "\x00")
	if len(text) == 0 {
		return 0, len(b) == 0 || len(b) == len(lockLine(0))
	}
	if n, _ := fmt.Sscanf(string(text), "%d\n", &pid); n == 1 && string(text) == fmt.Sprintf("%d\n", pid) {
		return pid, true
	}
	if l, err := parseLine(b); err == nil {
		_, err = fmt.Sscanf(string(l.body), `{"type":"lock","process":"%010d"}`, &pid)
		return pid, err == nil
	}
	return 0, false
}

// takeLock takes the store for this process, and looks at what LOCK holds before it is
// written over. The directory is locked too, and first: LOCK can be removed under a daemon,
// and the next one would make another.
func (s *dirStore) takeLock() (err error) {
	if s.root, err = s.fs.Lock("."); err != nil {
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return s.heldByOther()
		case !s.opts.AllowNetworkFS: // NFS locks no directory; there LOCK has to do
			return s.storageError("locking the data directory", err)
		}
		s.root = nil
	}
	_, missing := s.fs.Lstat("LOCK")
	_, unmade := s.fs.Lstat("FORMAT")
	f, err := s.fs.Lock("LOCK")
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return s.heldByOther()
	case strange(err):
		// Putting it away could part two daemons that both hold the store.
		return checkpoint.Errorf(checkpoint.KindCorrupt, "LOCK is no file: make sure that no daemon runs, then remove it")
	case err != nil:
		return s.storageError("locking the store", err)
	}
	s.lock = f
	if errors.Is(missing, syscall.ENOENT) && unmade == nil {
		s.lockProblem = "the file is gone"
	} else if s.lockFound, err = s.readAll("LOCK"); err == nil {
		if _, ok := lockHolder(s.lockFound); !ok {
			s.lockProblem = "it is not as a daemon leaves it"
		}
	}
	return nil
}

func (s *dirStore) heldByOther() error {
	holder := ""
	switch b, err := s.readAll("LOCK"); {
	case errors.Is(err, syscall.ENOENT):
		holder = ", whose LOCK was removed,"
	case err == nil:
		if pid, _ := lockHolder(b); pid > 0 {
			holder = fmt.Sprintf(" (process %d)", pid)
		}
	}
	return &checkpoint.Error{
		Kind: checkpoint.KindInvalidState, Err: ErrLocked, Retry: true,
		Message: fmt.Sprintf("another daemon%s holds the store %s; stop it first, or use it", holder, s.opts.Dir),
	}
}

// signLock writes who holds the store. A lock holds without it: on a medium that cannot be
// written it is left out.
func (s *dirStore) signLock() error {
	line := lockLine(os.Getpid())
	if n, err := s.lock.WriteAt(0, line); err != nil {
		if n > 0 {
			err = s.lock.Truncate(0) // half a line is nobody's
		}
		if n > 0 && err != nil {
			return s.storageError("writing LOCK", err)
		}
		return nil
	}
	if err := s.lock.Truncate(int64(len(line))); err != nil {
		return s.storageError("writing LOCK", err)
	}
	s.lockText = string(line)
	return nil
}

// noteLock keeps what was found wrong with LOCK.
func (s *dirStore) noteLock() error {
	switch {
	case s.lockProblem == "":
		return nil
	case s.lockFound == nil:
		return s.noteGone("LOCK")
	}
	return s.quarantineCopy("LOCK", s.lockFound, s.lockProblem)
}

// unlock leaves LOCK empty: what is in it the next time was put there by somebody else.
func (s *dirStore) unlock() (err error) {
	if s.root != nil {
		defer func() { err = errors.Join(err, s.root.Close()) }()
	}
	if s.lock == nil {
		return nil
	}
	if s.lockText != "" {
		if err := s.lock.Truncate(0); err != nil {
			s.opts.Logger.Warn("LOCK keeps the number of this process; the next one writes over it", "error", err)
		}
	}
	return s.lock.Close()
}

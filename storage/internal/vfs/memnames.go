package vfs

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Mkdir makes one directory.
func (m *Mem) Mkdir(path string) error {
	return m.make("mkdir", path, fs.ModeDir, "")
}

// Symlink makes a symbolic link. The store never does; tests put one in a file's place.
func (m *Mem) Symlink(target, path string) error {
	return m.make("symlink", path, fs.ModeSymlink, target)
}

// Mkfifo makes a FIFO. The store never does; tests put one in a file's place.
func (m *Mem) Mkfifo(path string) error {
	return m.make("mkfifo", path, fs.ModeNamedPipe, "")
}

func (m *Mem) make(op, path string, mode fs.FileMode, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, n, name, errno := m.walk(path)
	switch {
	case errno != 0:
		return fail(op, path, errno)
	case n != nil:
		return fail(op, path, syscall.EEXIST)
	case m.used >= m.capacity:
		return fail(op, path, syscall.ENOSPC)
	}
	made := m.newNode(mode)
	made.target = target
	m.add(parent, name, made)
	return nil
}

// Rename replaces the target.
func (m *Mem) Rename(from, to string) error { return m.rename("rename", from, to, true) }

// RenameNew fails with EEXIST when the target exists.
func (m *Mem) RenameNew(from, to string) error { return m.rename("renamenew", from, to, false) }

func (m *Mem) rename(op, from, to string, replace bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if errno := m.move(from, to, replace); errno != 0 {
		return &os.LinkError{Op: op, Old: from, New: to, Err: errno}
	}
	return nil
}

func (m *Mem) move(from, to string, replace bool) syscall.Errno {
	fromDir, n, fromName, errno := m.walk(from)
	if errno == 0 && n == nil {
		errno = syscall.ENOENT
	}
	if errno != 0 {
		return errno
	}
	toDir, old, toName, errno := m.walk(to)
	switch {
	case errno != 0:
		return errno
	case fromDir == nil || toDir == nil:
		return syscall.EBUSY // the root
	case old != nil && !replace:
		return syscall.EEXIST
	case old == n:
		return 0
	case n.mode.IsDir() && strings.HasPrefix(to+"/", from+"/"):
		return syscall.EINVAL
	case old != nil && n.mode.IsDir() && !old.mode.IsDir():
		return syscall.ENOTDIR
	case old != nil && !n.mode.IsDir() && old.mode.IsDir():
		return syscall.EISDIR
	case old != nil && len(old.entries) > 0:
		return syscall.ENOTEMPTY
	}
	if old != nil {
		m.unlink(toDir, toName)
	}
	m.add(toDir, toName, n)
	m.unlink(fromDir, fromName)
	return 0
}

// Remove removes a file or an empty directory.
func (m *Mem) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, n, name, errno := m.walk(path)
	switch {
	case errno != 0:
	case n == nil:
		errno = syscall.ENOENT
	case parent == nil:
		errno = syscall.EBUSY
	case len(n.entries) > 0:
		errno = syscall.ENOTEMPTY
	}
	if errno != 0 {
		return fail("remove", path, errno)
	}
	m.unlink(parent, name)
	return nil
}

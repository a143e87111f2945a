// Package vfs is the one seam between the store and the kernel: every system call that
// the store makes goes through FS and File, so that a test can fail the N-th of them,
// stop the process there, or enumerate what a power cut may leave. OS is the real one.
package vfs

import (
	"io/fs"
	"time"
)

// FS is a tree of files. Paths are relative to its root, slash-separated, never with "..".
// No method follows a symbolic link in the last element. Errors are *fs.PathError with a
// syscall.Errno inside.
type FS interface {
	// Open opens with the flags of package os (O_RDONLY, O_CREATE|O_EXCL|O_WRONLY, …);
	// O_NOFOLLOW and O_CLOEXEC are added. New files are 0600.
	Open(path string, flag int) (File, error)
	// Mkdir makes one directory, 0700.
	Mkdir(path string) error
	// ReadDir lists names and types in no order.
	ReadDir(path string) ([]Entry, error)
	// Lstat does not follow links.
	Lstat(path string) (Info, error)
	// Rename replaces the target.
	Rename(from, to string) error
	// RenameNew fails with EEXIST when the target exists.
	RenameNew(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
	// SyncFS flushes the whole file system.
	SyncFS() error
	// Lock takes an exclusive flock without waiting, for the life of the returned file. It
	// makes the file if need be; "." is the root itself.
	Lock(path string) (File, error)
	// Statfs tells free space and the kind of file system.
	Statfs() (FSInfo, error)
	// Close releases the root.
	Close() error
}

// File is an open file.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all the buffers, one after the other, at off: one pwritev where possible.
	WriteAt(off int64, bufs ...[]byte) (int, error)
	// Sync is fsync.
	Sync() error
	// Datasync is fdatasync.
	Datasync() error
	Truncate(size int64) error
	// Reserve takes room on the disk for size bytes; what the file is seen to hold does not change.
	Reserve(size int64) error
	Size() (int64, error)
	Close() error
}

// Entry is one name of a directory.
type Entry struct {
	Name string
	Mode fs.FileMode // type bits only
}

// Info describes a file.
type Info struct {
	Size    int64
	Mode    fs.FileMode
	ModTime time.Time
	UID     uint32
	Ino     uint64
}

// FSInfo describes the file system.
type FSInfo struct {
	Type      int64 // the magic of statfs(2)
	Free      uint64
	Total     uint64
	FreeFiles uint64
	ReadOnly  bool
}

package vfs

import (
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	pageSize   = 4096
	memType    = 0x01021994 // the magic of tmpfs
	nameMax    = 255
	memDefault = 1 << 40
)

// page holds up to pageSize bytes; those that data does not reach to are zeros. It may be
// written in place by the tree whose owner token it carries; any other tree copies it
// first, which makes Clone cheap.
type page struct {
	owner *token
	data  []byte
}

type token struct{ _ byte }

// zeroPage stands for a page of zeros that was written, not skipped: it costs a place on
// the disk and none in memory.
var zeroPage = &page{}

// Mem is a file system in memory with the errors of a real one. It is the disk of the
// memory driver, and what tests damage, cut and fill.
type Mem struct {
	mu       sync.RWMutex
	own      *token
	root     *node
	lastIno  uint64
	capacity uint64 // bytes
	used     uint64
}

type node struct {
	mode    fs.FileMode // type bits
	ino     uint64
	modTime time.Time
	entries map[string]*node // directories
	pages   []*page          // files; nil is a hole
	size    int64
	target  string // symbolic links
	links   int
	opens   int
	locked  bool
}

// NewMem returns an empty tree of 1 TiB.
func NewMem() *Mem {
	m := &Mem{own: &token{}, capacity: memDefault}
	m.root = m.newNode(fs.ModeDir)
	m.root.links = 1
	return m
}

// SetCapacity sets the size of the disk in bytes; what does not fit gets ENOSPC.
func (m *Mem) SetCapacity(bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// Used is the number of bytes that files take, in whole pages.
func (m *Mem) Used() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.used
}

// Clone copies the tree as it is now. Nothing is open and nothing is locked in the copy:
// it is what another process finds after this one was killed.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Mem{own: &token{}, lastIno: m.lastIno, capacity: m.capacity}
	m.own = &token{} // the pages are shared from now on
	c.root = c.adopt(m.root)
	c.root.links = 1
	return c
}

func (m *Mem) adopt(n *node) *node {
	d := &node{mode: n.mode, ino: n.ino, modTime: n.modTime, size: n.size, target: n.target, links: 1}
	d.pages = append([]*page(nil), n.pages...)
	m.used += d.blocks() * pageSize
	if n.entries != nil {
		d.entries = make(map[string]*node, len(n.entries))
		for name, child := range n.entries {
			d.entries[name] = m.adopt(child)
		}
	}
	return d
}

func (m *Mem) newNode(mode fs.FileMode) *node {
	m.lastIno++
	n := &node{mode: mode, ino: m.lastIno, modTime: time.Now()}
	if mode.IsDir() {
		n.entries = map[string]*node{}
	}
	return n
}

func (n *node) blocks() (count uint64) {
	for _, p := range n.pages {
		if p != nil {
			count++
		}
	}
	return count
}

// release gives the space of a file back once it has neither a name nor a descriptor.
func (m *Mem) release(n *node) {
	if n.links == 0 && n.opens == 0 {
		m.used -= n.blocks() * pageSize
		n.pages = nil
	}
}

func fail(op, path string, errno syscall.Errno) error {
	return &fs.PathError{Op: op, Path: path, Err: errno}
}

// walk finds the directory that holds path and the node itself, nil when there is none.
// Like openat2 with RESOLVE_NO_SYMLINKS it refuses links on the way.
func (m *Mem) walk(path string) (parent, n *node, name string, errno syscall.Errno) {
	n = m.root
	if path == "" || path == "." {
		return nil, n, "", 0
	}
	for rest, more := path, true; more; {
		name, rest, more = strings.Cut(rest, "/")
		switch {
		case n == nil:
			return nil, nil, "", syscall.ENOENT
		case n.mode&fs.ModeSymlink != 0:
			return nil, nil, "", syscall.ELOOP
		case !n.mode.IsDir():
			return nil, nil, "", syscall.ENOTDIR
		case name == "" || name == "." || name == "..":
			return nil, nil, "", syscall.EINVAL
		case len(name) > nameMax:
			return nil, nil, "", syscall.ENAMETOOLONG
		}
		parent, n = n, n.entries[name]
	}
	return parent, n, name, 0
}

// find is walk for what must be there.
func (m *Mem) find(path string) (*node, syscall.Errno) {
	_, n, _, errno := m.walk(path)
	if errno == 0 && n == nil {
		errno = syscall.ENOENT
	}
	return n, errno
}

func (m *Mem) add(parent *node, name string, n *node) {
	parent.entries[name] = n
	parent.modTime = time.Now()
	n.links++
}

func (m *Mem) unlink(parent *node, name string) {
	n := parent.entries[name]
	delete(parent.entries, name)
	parent.modTime = time.Now()
	n.links--
	m.release(n)
}

// Open opens a file, a directory (for reading) or a FIFO; see FS.
func (m *Mem) Open(path string, flag int) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.open(path, flag)
	if errno != 0 {
		return nil, fail("open", path, errno)
	}
	n.opens++
	access := flag & (os.O_WRONLY | os.O_RDWR)
	return &memFile{m: m, n: n, path: path, read: access != os.O_WRONLY, write: access != os.O_RDONLY}, nil
}

func (m *Mem) open(path string, flag int) (*node, syscall.Errno) {
	parent, n, name, errno := m.walk(path)
	if errno != 0 {
		return nil, errno
	}
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, syscall.ENOENT
		}
		if m.used >= m.capacity {
			return nil, syscall.ENOSPC
		}
		n = m.newNode(0)
		m.add(parent, name, n)
		return n, 0
	}
	writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
	switch {
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, syscall.EEXIST
	case n.mode&fs.ModeSymlink != 0:
		return nil, syscall.ELOOP
	case n.mode.IsDir() && (writes || flag&os.O_CREATE != 0):
		return nil, syscall.EISDIR
	case n.mode&fs.ModeNamedPipe != 0 && writes:
		return nil, syscall.ENXIO // no reader, and never waited for
	}
	if flag&os.O_TRUNC != 0 && n.mode.IsRegular() {
		m.truncate(n, 0)
	}
	return n, 0
}

// ReadDir lists a directory.
func (m *Mem) ReadDir(path string) ([]Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, errno := m.find(path)
	if errno != 0 {
		return nil, fail("readdir", path, errno)
	}
	if n.mode&fs.ModeSymlink != 0 {
		return nil, fail("readdir", path, syscall.ELOOP)
	}
	if !n.mode.IsDir() {
		return nil, fail("readdir", path, syscall.ENOTDIR)
	}
	list := make([]Entry, 0, len(n.entries))
	for name, child := range n.entries {
		list = append(list, Entry{Name: name, Mode: child.mode})
	}
	return list, nil
}

// Lstat describes a file, not following a link.
func (m *Mem) Lstat(path string) (Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, errno := m.find(path)
	if errno != 0 {
		return Info{}, fail("lstat", path, errno)
	}
	size := n.size
	if n.mode&fs.ModeSymlink != 0 {
		size = int64(len(n.target))
	}
	return Info{Size: size, Mode: n.mode | n.perm(), ModTime: n.modTime, UID: uint32(os.Getuid()), Ino: n.ino}, nil
}

func (n *node) perm() fs.FileMode {
	switch {
	case n.mode.IsDir():
		return 0o700
	case n.mode&fs.ModeSymlink != 0:
		return 0o777
	}
	return 0o600
}

// SyncDir does nothing but find the directory: memory is all there is.
func (m *Mem) SyncDir(path string) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, errno := m.find(path)
	if errno == 0 && !n.mode.IsDir() {
		errno = syscall.ENOTDIR
	}
	if errno != 0 {
		return fail("syncdir", path, errno)
	}
	return nil
}

// SyncFS does nothing.
func (m *Mem) SyncFS() error { return nil }

// Lock takes an exclusive lock: EWOULDBLOCK when it is taken.
func (m *Mem) Lock(path string) (File, error) {
	flag := os.O_RDWR | os.O_CREATE
	if path == "." {
		flag = os.O_RDONLY
	}
	f, err := m.Open(path, flag)
	if err != nil {
		return nil, err
	}
	mf := f.(*memFile)
	m.mu.Lock()
	taken := mf.n.locked
	if !taken {
		mf.n.locked, mf.locks = true, true
	}
	m.mu.Unlock()
	if taken {
		if err := f.Close(); err != nil {
			return nil, err
		}
		return nil, fail("flock", path, syscall.EWOULDBLOCK)
	}
	return f, nil
}

// Statfs tells the space that SetCapacity gave.
func (m *Mem) Statfs() (FSInfo, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	free := uint64(0)
	if m.capacity > m.used {
		free = m.capacity - m.used
	}
	return FSInfo{Type: memType, Free: free, Total: m.capacity, FreeFiles: 1 << 32}, nil
}

// Close does nothing: what is open stays usable, and the tree goes with its last reference.
func (m *Mem) Close() error { return nil }

var _ io.Closer = (*Mem)(nil)

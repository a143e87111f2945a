package vfs

import (
	"io"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

// memFile is a descriptor of a node. It goes on working after the node lost its name.
type memFile struct {
	m           *Mem
	n           *node
	path        string
	read, write bool
	locks       bool
	closed      bool
}

// ready says whether the descriptor can do an operation on a regular file's bytes.
func (f *memFile) ready(allowed bool) syscall.Errno {
	switch {
	case f.closed || !allowed:
		return syscall.EBADF
	case f.n.mode.IsDir():
		return syscall.EISDIR
	case f.n.mode&fs.ModeNamedPipe != 0:
		return syscall.ESPIPE
	}
	return 0
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if errno := f.ready(f.read); errno != 0 {
		return 0, fail("read", f.path, errno)
	}
	if off < 0 {
		return 0, fail("read", f.path, syscall.EINVAL)
	}
	done := 0
	for done < len(p) && off < f.n.size {
		at := int(off % pageSize)
		want := int(min(pageSize-int64(at), f.n.size-off, int64(len(p)-done)))
		part := p[done : done+want]
		if pg := f.n.pages[off/pageSize]; pg != nil && at < len(pg.data) {
			part = part[copy(part, pg.data[at:]):]
		}
		clear(part)
		done += want
		off += int64(want)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (f *memFile) WriteAt(off int64, bufs ...[]byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if errno := f.ready(f.write); errno != 0 {
		return 0, fail("write", f.path, errno)
	}
	if off < 0 {
		return 0, fail("write", f.path, syscall.EINVAL)
	}
	total := 0
	for _, b := range bufs {
		n, errno := f.m.write(f.n, off+int64(total), b)
		total += n
		if errno != 0 {
			return total, fail("write", f.path, errno)
		}
	}
	return total, nil
}

// write stores b as far as there is room.
func (m *Mem) write(n *node, off int64, b []byte) (int, syscall.Errno) {
	done := 0
	for done < len(b) {
		index, at := int(off/pageSize), int(off%pageSize)
		want := min(pageSize-at, len(b)-done)
		if errno := m.put(n, index, at, b[done:done+want]); errno != 0 {
			return done, errno
		}
		done += want
		off += int64(want)
		n.size = max(n.size, off)
	}
	n.modTime = time.Now()
	return done, 0
}

func (m *Mem) put(n *node, index, at int, b []byte) syscall.Errno {
	if index >= len(n.pages) {
		n.pages = append(n.pages, make([]*page, index+1-len(n.pages))...)
	}
	pg := n.pages[index]
	if pg == nil {
		if m.used+pageSize > m.capacity {
			return syscall.ENOSPC
		}
		m.used += pageSize
		pg = zeroPage
		n.pages[index] = pg
	}
	if at >= len(pg.data) && isZero(b) {
		return 0
	}
	size := max(len(pg.data), at+len(b))
	if pg.owner != m.own || size > cap(pg.data) {
		own := &page{owner: m.own, data: make([]byte, size, min(pageSize, max(size, 2*len(pg.data))))}
		copy(own.data, pg.data)
		n.pages[index], pg = own, own
	}
	pg.data = pg.data[:size] // what was never written of it is zeros
	copy(pg.data[at:], b)
	return 0
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (f *memFile) Sync() error     { return f.sync("fsync") }
func (f *memFile) Datasync() error { return f.sync("fdatasync") }

func (f *memFile) sync(op string) error {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if f.closed {
		return fail(op, f.path, syscall.EBADF)
	}
	if f.n.mode&fs.ModeNamedPipe != 0 {
		return fail(op, f.path, syscall.EINVAL)
	}
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return fail("truncate", f.path, syscall.EBADF)
	}
	if !f.write || !f.n.mode.IsRegular() || size < 0 {
		return fail("truncate", f.path, syscall.EINVAL)
	}
	f.m.truncate(f.n, size)
	return nil
}

// truncate cuts the file or extends it with a hole.
func (m *Mem) truncate(n *node, size int64) {
	keep := int((size + pageSize - 1) / pageSize)
	for i := keep; i < len(n.pages); i++ {
		if n.pages[i] != nil {
			m.used -= pageSize
		}
	}
	if keep < len(n.pages) {
		clear(n.pages[keep:])
		n.pages = n.pages[:keep]
	} else {
		n.pages = append(n.pages, make([]*page, keep-len(n.pages))...)
	}
	// What lies after the end in the last page must read as zeros if the file grows again.
	if at := size % pageSize; at != 0 && size < n.size {
		if pg := n.pages[keep-1]; pg != nil && pg != zeroPage {
			n.pages[keep-1] = &page{owner: m.own, data: slices.Clone(pg.data[:min(int(at), len(pg.data))])}
		}
	}
	n.size = size
	n.modTime = time.Now()
}

func (f *memFile) Reserve(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if errno := f.ready(f.write); errno != 0 {
		return fail("fallocate", f.path, errno)
	}
	pages := int((size + pageSize - 1) / pageSize)
	have := int(f.n.blocks())
	if want := uint64(max(0, pages-have)) * pageSize; f.m.used+want > f.m.capacity {
		return fail("fallocate", f.path, syscall.ENOSPC)
	}
	for i := 0; i < pages; i++ {
		if i >= len(f.n.pages) {
			f.n.pages = append(f.n.pages, nil)
		}
		if f.n.pages[i] == nil {
			f.n.pages[i] = zeroPage
			f.m.used += pageSize
		}
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if f.closed {
		return 0, fail("fstat", f.path, syscall.EBADF)
	}
	return f.n.size, nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return fail("close", f.path, syscall.EBADF)
	}
	f.closed = true
	if f.locks {
		f.n.locked = false
	}
	f.n.opens--
	f.m.release(f.n)
	return nil
}

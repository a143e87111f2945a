package vfs

import (
	"bytes"
	"io/fs"
	"slices"
	"syscall"
)

// Content is what a file holds, to be put into any number of trees: they share its pages
// until they write to them.
type Content struct {
	pages []*page
	size  int64
}

// NewContent copies b.
func NewContent(b []byte) *Content {
	c := &Content{size: int64(len(b))}
	for part := range slices.Chunk(b, pageSize) {
		c.pages = append(c.pages, &page{data: bytes.Clone(bytes.TrimRight(part, "\x00"))})
	}
	return c
}

// Put makes a file that holds c.
func (m *Mem) Put(path string, c *Content) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, n, name, errno := m.walk(path)
	used := uint64(len(c.pages)) * pageSize
	switch {
	case errno != 0:
	case n != nil:
		errno = syscall.EEXIST
	case m.used+used > m.capacity:
		errno = syscall.ENOSPC
	}
	if errno != 0 {
		return fail("put", path, errno)
	}
	n = m.newNode(fs.FileMode(0))
	n.pages, n.size = slices.Clone(c.pages), c.size
	m.used += used
	m.add(parent, name, n)
	return nil
}

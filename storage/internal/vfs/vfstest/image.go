package vfstest

import (
	"hash/maphash"
	"io/fs"
	"maps"
	"slices"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// image is a tree by inode.
type image struct {
	root  uint64
	dirs  map[uint64]map[string]uint64
	files map[uint64][]byte
	owned map[uint64]bool // directories that may be changed in place
	other map[uint64]fs.FileMode

	hashes map[uint64]uint64       // of files
	built  map[uint64]*vfs.Content // by hash; shared with clones
}

func readImage(m *vfs.Mem) *image {
	img := &image{dirs: map[uint64]map[string]uint64{}, files: map[uint64][]byte{}, other: map[uint64]fs.FileMode{}, hashes: map[uint64]uint64{}, built: map[uint64]*vfs.Content{}}
	var walk func(dir string) uint64
	walk = func(dir string) uint64 {
		info, err := m.Lstat(dir)
		must(err)
		entries, err := m.ReadDir(dir)
		must(err)
		names := map[string]uint64{}
		for _, e := range entries {
			file := dir + "/" + e.Name
			if dir == "." {
				file = e.Name
			}
			child, err := m.Lstat(file)
			must(err)
			switch {
			case child.Mode.IsDir():
				walk(file)
			case child.Mode.IsRegular():
				b := ReadFile(m, file)
				img.files[child.Ino], img.hashes[child.Ino] = b, hashOf(b)
			default:
				img.other[child.Ino] = child.Mode.Type()
			}
			names[e.Name] = child.Ino
		}
		img.dirs[info.Ino] = names
		return info.Ino
	}
	img.root = walk(".")
	return img
}

// must is for calls that cannot fail on a disk in memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (m *image) clone() *image {
	return &image{
		root: m.root, dirs: maps.Clone(m.dirs), files: maps.Clone(m.files), owned: map[uint64]bool{}, other: m.other, hashes: maps.Clone(m.hashes), built: m.built,
	}
}

func (m *image) dir(ino uint64) map[string]uint64 {
	if !m.owned[ino] {
		m.owned[ino] = true
		m.dirs[ino] = maps.Clone(m.dirs[ino])
	}
	if m.dirs[ino] == nil {
		m.dirs[ino] = map[string]uint64{}
	}
	return m.dirs[ino]
}

func (m *image) link(dir uint64, name string, ino uint64, isDir bool) {
	m.dir(dir)[name] = ino
	if isDir {
		m.dir(ino)
	}
}

func (m *image) unlink(dir uint64, name string, ino uint64) {
	if m.dirs[dir][name] == ino {
		delete(m.dir(dir), name)
	}
}

// reachable lists the files that have a name.
func (m *image) reachable() (files []uint64) {
	var walk func(dir uint64)
	walk = func(dir uint64) {
		for _, child := range m.dirs[dir] {
			if _, isDir := m.dirs[child]; isDir {
				walk(child)
			} else if !slices.Contains(files, child) {
				files = append(files, child)
			}
		}
	}
	walk(m.root)
	return files
}

var seed = maphash.MakeSeed()

func hashOf(b []byte) uint64 { return maphash.Bytes(seed, b) ^ uint64(len(b)) }

// hash is of the names and of what they hold; the inodes do not count.
func (m *image) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	var walk func(ino uint64)
	walk = func(ino uint64) {
		names := slices.Sorted(maps.Keys(m.dirs[ino]))
		maphash.WriteComparable(&h, len(names))
		for _, name := range names {
			child := m.dirs[ino][name]
			_, isDir := m.dirs[child]
			h.WriteString(name)
			maphash.WriteComparable(&h, [3]uint64{uint64(len(name)), m.hashes[child], uint64(m.other[child])})
			if isDir {
				walk(child)
			}
		}
	}
	walk(m.root)
	return h.Sum64()
}

func (m *image) build() *vfs.Mem {
	t := vfs.NewMem()
	var walk func(ino uint64, dir string)
	walk = func(ino uint64, dir string) {
		for name, child := range m.dirs[ino] {
			if _, isDir := m.dirs[child]; isDir {
				must(t.Mkdir(dir + name))
				walk(child, dir+name+"/")
				continue
			}
			if mode, ok := m.other[child]; ok {
				must(other(t, mode, dir+name))
				continue
			}
			must(t.Put(dir+name, m.content(child)))
		}
	}
	walk(m.root, "")
	return t
}

// set changes what a file holds; its hash is not known then.
func (m *image) set(ino uint64, b []byte) {
	m.files[ino] = b
	delete(m.hashes, ino)
}

func (m *image) content(ino uint64) *vfs.Content {
	h, ok := m.hashes[ino]
	if !ok {
		return vfs.NewContent(m.files[ino])
	}
	c := m.built[h]
	if c == nil {
		c = vfs.NewContent(m.files[ino])
		m.built[h] = c
	}
	return c
}

func other(t *vfs.Mem, mode fs.FileMode, file string) error {
	if mode&fs.ModeSymlink != 0 {
		return t.Symlink("nowhere", file)
	}
	return t.Mkfifo(file)
}

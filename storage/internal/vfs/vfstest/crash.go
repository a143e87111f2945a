package vfstest

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

type opKind uint8

const (
	opMark opKind = iota
	opLink
	opUnlink
	opRename
	opWrite
	opTruncate
	opSync
	opDrop
	opSyncDir
	opSyncFS
)

type op struct {
	kind     opKind
	path     string
	grows    bool // a write beyond the end
	dir      uint64
	name     string
	ino      uint64
	isDir    bool
	fromDir  uint64
	fromName string
	off      int64
	data     []byte
	mark     any
}

// sector is what a disk writes whole or not at all.
const sector = 512

// State is one thing that a power cut may leave.
type State struct {
	Mem   *vfs.Mem
	Marks []any // what had happened before it
}

// Crashes is how often, and how completely, EachCrash looked.
type Crashes struct {
	Points  int // moments at which the power went
	States  int // different states
	Sampled int // moments with more states than limit, of which limit were drawn
}

// EachCrash calls fn for every state that a power cut at any moment may leave, each once,
// until it returns an error. A write that was not flushed may be there, or missing, or
// there in some of its sectors; a file may have its length and none of its bytes; a name
// that was not flushed may be there or not, whatever happened to others; a renamed file
// may have its old name, its new one or both. Where a moment has more than limit states,
// limit of them are drawn, and counted as sampled.
//
// What is written to the files that cache names, which their owner never flushes, is
// there up to some moment: none of it, half or all.
//
// A moment between two flushes leaves nothing that the moment just before the next flush
// may not leave as well, so only those are looked at.
func (d *Disk) EachCrash(limit int, cache func(path string) bool, fn func(State) error) (Crashes, error) {
	d.mu.Lock()
	log := slices.Clone(d.log)
	d.mu.Unlock()
	e := &enumeration{base: readImage(d.base), log: log, limit: limit, cache: cache, seen: map[uint64]int{}, fn: fn, rand: rand.New(rand.NewPCG(1, 2))}
	for i, o := range log {
		if o.kind == opSync || o.kind == opSyncDir || o.kind == opSyncFS || o.kind == opDrop {
			if err := e.at(i); err != nil {
				return e.count, err
			}
		}
	}
	err := e.at(len(log))
	return e.count, err
}

// Flushed is what a power cut now leaves at least: nothing but what was flushed.
func (d *Disk) Flushed() State {
	d.mu.Lock()
	e := &enumeration{base: readImage(d.base), log: slices.Clone(d.log)}
	d.mu.Unlock()
	img := e.base.clone()
	for _, s := range e.steps(len(e.log)) {
		if !s.optional {
			s.apply(img)
		}
	}
	return State{Mem: img.build(), Marks: e.marks(len(e.log))}
}

type enumeration struct {
	base  *image
	log   []op
	limit int
	cache func(path string) bool
	seen  map[uint64]int // state to the number of marks that it was shown with
	fn    func(State) error
	rand  *rand.Rand
	count Crashes
}

// step is a part of an operation that is or is not on the disk.
type step struct {
	apply    func(*image)
	optional bool
	cache    bool
}

func (e *enumeration) marks(end int) (marks []any) {
	for _, o := range e.log[:end] {
		if o.kind == opMark {
			marks = append(marks, o.mark)
		}
	}
	return marks
}

func (e *enumeration) at(end int) error {
	e.count.Points++
	marks := e.marks(end)
	steps := e.steps(end)
	var open, cached []int
	for i, s := range steps {
		switch {
		case s.optional && s.cache:
			cached = append(cached, i)
		case s.optional:
			open = append(open, i)
		}
	}
	show := func(chosen func(n int) bool) error {
		for _, upTo := range []int{0, len(cached) / 2, len(cached)} {
			if err := e.show(steps, chosen, upTo, marks); err != nil {
				return err
			}
			if len(cached) == 0 {
				break
			}
		}
		return nil
	}
	if len(open) < 30 && 1<<len(open) <= e.limit {
		for bits := range 1 << len(open) {
			if err := show(func(n int) bool { return bits>>n&1 == 1 }); err != nil {
				return err
			}
		}
		return nil
	}
	e.count.Sampled++
	// The likely ones first: each prefix, each single loss, each single survivor.
	for n := range open {
		for _, chosen := range []func(int) bool{
			func(i int) bool { return i < n }, func(i int) bool { return i != n }, func(i int) bool { return i == n },
		} {
			if err := show(chosen); err != nil {
				return err
			}
		}
	}
	for range e.limit {
		p := e.rand.Float64()
		picked := make([]bool, len(open))
		for i := range picked {
			picked[i] = e.rand.Float64() < p
		}
		if err := show(func(n int) bool { return picked[n] }); err != nil {
			return err
		}
	}
	return nil
}

func (e *enumeration) show(steps []step, chosen func(n int) bool, upTo int, marks []any) error {
	img := e.base.clone()
	n, cached := 0, 0
	for _, s := range steps {
		take := true
		switch {
		case s.optional && s.cache:
			take = cached < upTo
			cached++
		case s.optional:
			take = chosen(n)
			n++
		}
		if take {
			s.apply(img)
		}
	}
	h := img.hash()
	if shown, ok := e.seen[h]; ok && shown >= len(marks) {
		return nil
	}
	e.seen[h] = len(marks)
	e.count.States++
	return e.fn(State{Mem: img.build(), Marks: marks})
}

// steps turns the log up to end into steps, and says which of them are not certain.
func (e *enumeration) steps(end int) []step {
	var steps []step
	for i, o := range e.log[:end] {
		from := len(steps)
		steps = append(steps, stepsOf(o, e.log[i+1:end])...)
		for j := range steps[from:] {
			steps[from+j].cache = e.cache != nil && e.cache(o.path)
		}
	}
	return steps
}

// stepsOf says what o did, and by the operations after it whether that is certain.
func stepsOf(o op, rest []op) []step {
	switch o.kind {
	case opLink:
		return []step{{apply: func(m *image) { m.link(o.dir, o.name, o.ino, o.isDir) }, optional: !flushedDir(rest, o.dir)}}
	case opUnlink:
		return []step{{apply: func(m *image) { m.unlink(o.dir, o.name, o.ino) }, optional: !flushedDir(rest, o.dir)}}
	case opRename:
		left := flushedDir(rest, o.fromDir)
		return []step{
			{apply: func(m *image) { m.link(o.dir, o.name, o.ino, false) }, optional: !left && !flushedDir(rest, o.dir)},
			// The old name goes only after the new one is there: no file system loses both.
			{apply: func(m *image) {
				if m.dirs[o.dir][o.name] == o.ino {
					m.unlink(o.fromDir, o.fromName, o.ino)
				}
			}, optional: !left},
		}
	case opTruncate:
		return []step{{apply: func(m *image) { m.resize(o.ino, o.off) }, optional: !flushed(rest, o.ino)}}
	case opWrite:
		return writeSteps(o, !flushed(rest, o.ino))
	}
	return nil
}

func flushedDir(rest []op, dir uint64) bool {
	return slices.ContainsFunc(rest, func(o op) bool { return o.kind == opSyncFS || o.kind == opSyncDir && o.dir == dir })
}

// flushed says whether a flush succeeded before one failed.
func flushed(rest []op, ino uint64) bool {
	for _, o := range rest {
		switch {
		case o.kind == opSyncFS, o.kind == opSync && o.ino == ino:
			return true
		case o.kind == opDrop && o.ino == ino:
			return false
		}
	}
	return false
}

// writeSteps are the length and the sectors of a write; many sectors make up four parts.
func writeSteps(o op, optional bool) []step {
	end := o.off + int64(len(o.data))
	if !optional {
		return []step{{apply: func(m *image) { m.write(o.ino, o.off, o.data) }}}
	}
	var steps []step
	if o.grows {
		steps = append(steps, step{apply: func(m *image) { m.resize(o.ino, max(end, int64(len(m.files[o.ino])))) }, optional: true})
	}
	if len(bytes.Trim(o.data, "\x00")) == 0 && o.grows {
		return steps // zeros beyond the end are there with the length
	}
	var cuts []int
	first := sector - int(o.off%sector)
	for at := first; at < len(o.data); at += sector {
		cuts = append(cuts, at)
	}
	if len(cuts) > 3 {
		cuts = []int{cuts[0], cuts[len(cuts)/2], cuts[len(cuts)-1]}
	}
	from := 0
	for _, to := range append(cuts, len(o.data)) {
		off, data := o.off+int64(from), o.data[from:to]
		// A sector on the disk lies within the length, or nobody can read it.
		steps = append(steps, step{apply: func(m *image) {
			if n := int64(len(m.files[o.ino])); off < n {
				m.write(o.ino, off, data[:min(int64(len(data)), n-off)])
			}
		}, optional: true})
		from = to
	}
	return steps
}

// image is a tree by inode.
type image struct {
	root  uint64
	dirs  map[uint64]map[string]uint64
	files map[uint64][]byte
	owned map[uint64]bool // files and directories that may be changed in place
	other map[uint64]fs.FileMode
}

func readImage(m *vfs.Mem) *image {
	img := &image{dirs: map[uint64]map[string]uint64{}, files: map[uint64][]byte{}, other: map[uint64]fs.FileMode{}}
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
				img.files[child.Ino] = ReadFile(m, file)
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
	return &image{root: m.root, dirs: maps.Clone(m.dirs), files: maps.Clone(m.files), owned: map[uint64]bool{}, other: m.other}
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

func (m *image) file(ino uint64) []byte {
	if !m.owned[ino] {
		m.owned[ino] = true
		m.files[ino] = bytes.Clone(m.files[ino])
	}
	return m.files[ino]
}

func (m *image) resize(ino uint64, size int64) {
	b := m.file(ino)
	if size <= int64(len(b)) {
		m.files[ino] = b[:size]
		return
	}
	m.files[ino] = append(b, make([]byte, size-int64(len(b)))...)
}

func (m *image) write(ino uint64, off int64, data []byte) {
	if end := off + int64(len(data)); end > int64(len(m.files[ino])) {
		m.resize(ino, end)
	}
	copy(m.file(ino)[off:], data)
}

var seed = maphash.MakeSeed()

func (m *image) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	var walk func(ino uint64)
	walk = func(ino uint64) {
		names := slices.Sorted(maps.Keys(m.dirs[ino]))
		must(binary.Write(&h, binary.LittleEndian, int64(len(names))))
		for _, name := range names {
			child := m.dirs[ino][name]
			_, isDir := m.dirs[child]
			b := m.files[child]
			must(binary.Write(&h, binary.LittleEndian, []int64{int64(len(name)), int64(len(b)), int64(m.other[child])}))
			h.WriteString(name)
			if isDir {
				walk(child)
				continue
			}
			h.Write(b)
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
			WriteFile(t, dir+name, m.files[child])
		}
	}
	walk(m.root, "")
	return t
}

func other(t *vfs.Mem, mode fs.FileMode, file string) error {
	if mode&fs.ModeSymlink != 0 {
		return t.Symlink("nowhere", file)
	}
	return t.Mkfifo(file)
}

// ReadFile returns a file's bytes.
func ReadFile(m *vfs.Mem, file string) []byte {
	f, err := m.Open(file, os.O_RDONLY)
	must(err)
	size, err := f.Size()
	must(err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != io.EOF {
		must(err)
	}
	must(f.Close())
	return b
}

// WriteFile makes or replaces a file's bytes, in place.
func WriteFile(m *vfs.Mem, file string, b []byte) {
	f, err := m.Open(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	must(err)
	_, err = f.WriteAt(0, b)
	must(err)
	must(f.Truncate(int64(len(b))))
	must(f.Close())
}

// Files lists the regular files below a directory, by path.
func Files(m *vfs.Mem, dir string) []string {
	var list []string
	entries, err := m.ReadDir(dir)
	must(err)
	for _, e := range entries {
		file := e.Name
		if dir != "." {
			file = dir + "/" + e.Name
		}
		if e.Mode.IsDir() {
			list = append(list, Files(m, file)...)
		} else {
			list = append(list, file)
		}
	}
	slices.Sort(list)
	return list
}

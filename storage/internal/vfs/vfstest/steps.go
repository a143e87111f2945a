package vfstest

import "slices"

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

// op is one thing that was done to the disk.
type op struct {
	kind     opKind
	path     string
	dir      uint64
	name     string
	ino      uint64
	isDir    bool
	from     string // of a rename
	fromDir  uint64
	fromName string
	off      int64
	data     []byte
	mark     any
}

type namedStep struct {
	path string
	step nameStep
}

// nameSteps says what o did to names, and by the operations after it whether that is certain.
func nameSteps(o op, rest []op) []namedStep {
	one := func(apply func(*image)) []namedStep {
		return []namedStep{{o.path, nameStep{apply: apply, optional: !flushedDir(rest, o.dir)}}}
	}
	switch o.kind {
	case opLink:
		return one(func(m *image) { m.link(o.dir, o.name, o.ino, o.isDir) })
	case opUnlink:
		return one(func(m *image) { m.unlink(o.dir, o.name, o.ino) })
	case opRename:
		left := flushedDir(rest, o.fromDir)
		return []namedStep{
			{o.path, nameStep{apply: func(m *image) { m.link(o.dir, o.name, o.ino, false) }, optional: !left && !flushedDir(rest, o.dir)}},
			// The old name goes only after the new one is there: no file system loses both.
			{o.from, nameStep{apply: func(m *image) {
				if m.dirs[o.dir][o.name] == o.ino {
					m.unlink(o.fromDir, o.fromName, o.ino)
				}
			}, optional: !left}},
		}
	}
	return nil
}

func flushedDir(rest []op, dir uint64) bool {
	return slices.ContainsFunc(rest, func(o op) bool { return o.kind == opSyncFS || o.kind == opSyncDir && o.dir == dir })
}

// dataSteps says what o did to a file, and whether that is certain.
func dataSteps(o op, rest []op) []dataStep {
	switch o.kind {
	case opTruncate:
		return []dataStep{{apply: func(b []byte) []byte { return resized(b, o.off) }, optional: !flushed(rest, o.ino)}}
	case opWrite:
		if flushed(rest, o.ino) {
			return []dataStep{{apply: func(b []byte) []byte { return written(resized(b, max(int64(len(b)), o.end())), o.off, o.data) }}}
		}
		return tornSteps(o)
	}
	return nil
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

func (o *op) end() int64 { return o.off + int64(len(o.data)) }

// tornSteps are the length and the parts of a write that was not flushed.
func tornSteps(o op) []dataStep {
	steps := []dataStep{{apply: func(b []byte) []byte { return resized(b, max(o.end(), int64(len(b)))) }, optional: true}}
	from := 0
	for _, to := range tears(o) {
		off, data := o.off+int64(from), o.data[from:to]
		// A sector on the disk lies within the length, or nobody can read it.
		steps = append(steps, dataStep{apply: func(b []byte) []byte {
			return written(resized(b, int64(len(b))), off, data[:min(int64(len(data)), max(0, int64(len(b))-off))])
		}, optional: true})
		from = to
	}
	return steps
}

// tears are the ends of the parts of which each is there or not. What is zero from some
// sector on is one part.
func tears(o op) []int {
	var cuts []int
	used := len(o.data)
	for used > 0 && o.data[used-1] == 0 {
		used--
	}
	for at := sector - int(o.off%sector); at < len(o.data); at += sector {
		cuts = append(cuts, at)
		if at >= used {
			break
		}
	}
	if len(cuts) > 6 {
		cuts = []int{cuts[0], cuts[len(cuts)/2], cuts[len(cuts)-1]}
	}
	return append(cuts, len(o.data))
}

// resized and written copy: contents are shared between states.
func resized(b []byte, size int64) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

func written(b []byte, off int64, data []byte) []byte {
	if len(data) > 0 {
		copy(b[off:], data)
	}
	return b
}

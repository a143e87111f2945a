package vfstest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// Model says what a power cut may do to files that are not all of the same kind.
type Model struct {
	// Loose files hold nothing and are never flushed, or are removed unread: what was done
	// to them, contents and names, is all there or none of it is.
	Loose func(path string) bool
	// Cache files are never flushed and are written in order: what was done to them is
	// there up to some moment, of which none, the half and all are looked at.
	Cache func(path string) bool
	// From leaves out the moments before so many marks: a shorter run had the same.
	From int
}

// State is one thing that a power cut may leave.
type State struct {
	Mem   *vfs.Mem
	Marks []any // what had happened before it
}

// Crashes is how much EachCrash looked at.
type Crashes struct {
	Points int // moments at which the power went
	States int // different states
}

// EachCrash calls fn for every state that a power cut may leave of what was done to the
// disk, each once, until it returns an error. None is left out and none is drawn by lot:
//
//   - Moments: the one before each flush, and the end. A moment between two flushes leaves
//     nothing that the one before the next flush may not leave as well.
//   - Data: of a file, everything before its last flush that succeeded is there. Each write
//     after that is there or not, whatever became of the others, in each of its sectors of
//     512 bytes; where more than six of them hold something, in its first sector, its last
//     one and the two halves between. A write behind the end moves the end or does not, with
//     or without its bytes, which are zeros then. A truncation is there or not.
//   - Names: what was done before the last flush of a directory is there. Each name made or
//     removed after that is there or not, whatever became of others. A renamed file has its
//     old name, its new one or both.
//   - All of these with each other, for all files that have a name, and with what m says of
//     the files that it tells of.
func (d *Disk) EachCrash(m Model, fn func(State) error) (Crashes, error) {
	d.mu.Lock()
	log := slices.Clone(d.log)
	d.mu.Unlock()
	e := &enumeration{base: readImage(d.base), log: log, model: m, seen: map[uint64]int{}, fn: fn}
	for i := range log {
		switch log[i].kind {
		case opSync, opSyncDir, opSyncFS, opDrop:
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
	names, data := e.steps(len(e.log))
	img := e.base.clone()
	for _, s := range names {
		if !s.optional {
			s.apply(img)
		}
	}
	for ino, list := range data {
		for _, s := range list {
			if !s.optional {
				img.set(ino, s.apply(img.files[ino]))
			}
		}
	}
	return State{Mem: img.build(), Marks: e.marks(len(e.log))}
}

// Drawn is one of the states that EachCrash shows of this moment, drawn by lot.
func (d *Disk) Drawn(m Model, lot *rand.Rand) *vfs.Mem {
	d.mu.Lock()
	e := &enumeration{base: readImage(d.base), log: slices.Clone(d.log), model: m}
	d.mu.Unlock()
	v := variant{loose: lot.IntN(2) == 0, cut: lot.IntN(len(e.log) + 1)}
	if lot.IntN(2) == 0 {
		v.cut = len(e.log)
	}
	// Mostly all is lost, or all is there: what is odd is found between, and at the ends.
	kept := []int{0, 1, 5, 9, 10}[lot.IntN(5)]
	there := func(optional bool, c class, at int) bool {
		if there, ok := v.fixed(optional, c, at); ok {
			return there
		}
		return lot.IntN(10) < kept
	}
	names, data := e.steps(len(e.log))
	img := e.base.clone()
	for _, s := range names {
		if there(s.optional, s.class, s.at) {
			s.apply(img)
		}
	}
	for _, ino := range slices.Sorted(maps.Keys(data)) {
		for _, s := range data[ino] {
			if there(s.optional, s.class, s.at) {
				img.set(ino, s.apply(img.files[ino]))
			}
		}
	}
	return img.build()
}

type enumeration struct {
	base  *image
	log   []op
	model Model
	seen  map[uint64]int // state to the number of marks that it was shown with
	fn    func(State) error
	count Crashes
}

func (e *enumeration) marks(end int) (marks []any) {
	for _, o := range e.log[:end] {
		if o.kind == opMark {
			marks = append(marks, o.mark)
		}
	}
	return marks
}

// class is how a step may be lost.
type class uint8

const (
	alone class = iota
	loose
	cached
)

func (e *enumeration) classOf(path string) class {
	switch m := e.model; {
	case m.Loose != nil && m.Loose(path):
		return loose
	case m.Cache != nil && m.Cache(path):
		return cached
	}
	return alone
}

// nameStep is a change of a directory that is or is not on the disk, dataStep one of a file.
type nameStep struct {
	apply    func(*image)
	optional bool
	class    class
	at       int // in the log
}

type dataStep struct {
	apply    func([]byte) []byte // gives a new slice
	optional bool
	class    class
	at       int
}

// steps turns the log up to end into steps, and says which of them are not certain.
func (e *enumeration) steps(end int) (names []nameStep, data map[uint64][]dataStep) {
	data = map[uint64][]dataStep{}
	for i, o := range e.log[:end] {
		rest := e.log[i+1 : end]
		for _, s := range nameSteps(o, rest) {
			s.step.class, s.step.at = e.classOf(s.path), i
			names = append(names, s.step)
		}
		for _, s := range dataSteps(o, rest) {
			s.class, s.at = e.classOf(o.path), i
			data[o.ino] = append(data[o.ino], s)
		}
	}
	return names, data
}

// at shows every state of the moment before the log's entry end.
func (e *enumeration) at(end int) error {
	marks := e.marks(end)
	if len(marks) < e.model.From {
		return nil
	}
	e.count.Points++
	names, data := e.steps(end)
	open := map[class][]int{} // where in the log the steps are that may be lost
	for _, s := range names {
		if s.optional {
			open[s.class] = append(open[s.class], s.at)
		}
	}
	for _, list := range data {
		for _, s := range list {
			if s.optional {
				open[s.class] = append(open[s.class], s.at)
			}
		}
	}
	ways := []variant{{loose: true, cut: end}}
	if list := open[cached]; len(list) > 0 {
		slices.Sort(list)
		ways = append(ways, variant{loose: true}, variant{loose: true, cut: list[len(list)/2]})
	}
	if len(open[loose]) > 0 {
		ways = append(ways, variant{cut: end})
	}
	for _, v := range ways {
		v.e, v.names, v.data, v.marks, v.contents = e, names, data, marks, map[uint64][]content{}
		if err := v.each(); err != nil {
			return err
		}
	}
	return nil
}

// variant is a moment with what became of loose files and of the cache.
type variant struct {
	e        *enumeration
	names    []nameStep
	data     map[uint64][]dataStep
	loose    bool
	cut      int
	marks    []any
	contents map[uint64][]content
}

// fixed says whether a step is there in this variant; ok is false when it may be or not.
func (v *variant) fixed(optional bool, c class, at int) (there, ok bool) {
	switch {
	case !optional:
		return true, true
	case c == loose:
		return v.loose, true
	case c == cached:
		return at < v.cut, true
	}
	return false, false
}

// maxOpen bounds the names of one moment that may be lost alone: 2 to this power are looked at.
const maxOpen = 16

func (v *variant) each() error {
	for ino, list := range v.data {
		v.contents[ino] = v.possible(v.e.base.files[ino], list)
	}
	var open []int
	for i, s := range v.names {
		if _, ok := v.fixed(s.optional, s.class, s.at); !ok {
			open = append(open, i)
		}
	}
	if len(open) > maxOpen {
		return fmt.Errorf("%d names are open at one moment: there are too many states", len(open))
	}
	for bits := range 1 << len(open) {
		img := v.e.base.clone()
		n := 0
		for _, s := range v.names {
			there, ok := v.fixed(s.optional, s.class, s.at)
			if !ok {
				there = bits>>n&1 == 1
				n++
			}
			if there {
				s.apply(img)
			}
		}
		if err := v.fill(img, img.reachable()); err != nil {
			return err
		}
	}
	return nil
}

// content is what a file may hold, with a hash of it.
type content struct {
	bytes []byte
	hash  uint64
}

// possible lists what a file may hold, each once.
func (v *variant) possible(was []byte, list []dataStep) []content {
	set := []content{{was, hashOf(was)}}
	for _, s := range list {
		there, ok := v.fixed(s.optional, s.class, s.at)
		if ok && !there {
			continue
		}
		next := make([]content, 0, 2*len(set))
		if !ok {
			next = append(next, set...)
		}
		for _, c := range set {
			b := s.apply(c.bytes)
			h := hashOf(b)
			if !slices.ContainsFunc(next, func(c content) bool { return c.hash == h }) {
				next = append(next, content{b, h})
			}
		}
		set = next
	}
	return set
}

// fill gives the files of one tree of names all that they may hold, and shows each state.
func (v *variant) fill(img *image, files []uint64) error {
	if len(files) == 0 {
		return v.show(img)
	}
	ino := files[0]
	list, changed := v.contents[ino]
	if !changed {
		return v.fill(img, files[1:])
	}
	for _, c := range list {
		img.files[ino], img.hashes[ino] = c.bytes, c.hash
		if err := v.fill(img, files[1:]); err != nil {
			return err
		}
	}
	return nil
}

func (v *variant) show(img *image) error {
	e := v.e
	h := img.hash()
	if shown, ok := e.seen[h]; ok && shown >= len(v.marks) {
		return nil
	}
	e.seen[h] = len(v.marks)
	e.count.States++
	return e.fn(State{Mem: img.build(), Marks: v.marks})
}

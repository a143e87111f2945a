// Package blob keeps the content of captured files so that versions of one file share
// what they have in common. A content is cut where its own bytes say so, every chunk is
// compressed and kept once, in a file named by the SHA-256 of what it gives back, and a
// content of several chunks is a list of them that ends in the last, unfinished chunk.
// FORMAT.md describes the bytes.
//
// Put returns when the content is on stable storage, so that a record may name it. What no
// record names any more goes with Sweep.
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// Sum names a content: its SHA-256.
type Sum [sha256.Size]byte

func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// SumOf is the name that Put gives a content.
func SumOf(content []byte) Sum { return sha256.Sum256(content) }

// ParseSum reads the 64 lower-case hex digits of a name.
func ParseSum(name string) (Sum, error) {
	var s Sum
	if len(name) == hex.EncodedLen(len(s)) {
		if _, err := hex.Decode(s[:], []byte(name)); err == nil && s.String() == name {
			return s, nil
		}
	}
	return Sum{}, fmt.Errorf("%.80q is not the SHA-256 of a content: 64 lower-case hex digits", name)
}

// Damage is a file whose bytes are not those that were written, or one that is missing.
// Path is relative to the root of the file system.
type Damage struct {
	Path    string
	Problem string
}

func (d *Damage) Error() string { return d.Path + ": " + d.Problem }

// ErrUncertain says that a directory could not be flushed: whether the last files keep
// their names after a power cut is unknown, and nothing is taken until a new Open.
var ErrUncertain = errors.New("the directory of captured files could not be flushed: restart the daemon when the disk is well again")

// Options say where the store lives and what it does about damage.
type Options struct {
	// Dir and Tmp are directories of the file system, on one device. Dir is made when it is
	// missing; Tmp must be there, and is emptied by its owner before Open.
	Dir, Tmp string
	// Quarantine moves a damaged file out of the way. Nil leaves it, and refuses contents that need its name.
	Quarantine func(path, problem string) error
}

// Store is safe for concurrent use.
type Store struct {
	fs   vfs.FS
	opts Options

	// gate is held for reading by Put, for writing while Sweep removes.
	gate sync.RWMutex

	mu       sync.Mutex   // guards what follows
	held     map[Sum]int  // contents that a caller of Put has not let go of
	touched  map[Sum]bool // contents put since the sweep under way began; nil when there is none
	checked  map[Sum]bool // objects lately read and found sound
	bytes    int64        // of all files, -1 before the first count
	tmpCount uint64

	sweeping sync.Mutex
	names    names
}

// maxAhead bounds what is allocated on the word of a list alone.
const maxAhead = 32 << 20

// maxChecked bounds the memory of what was found sound; at 50 bytes each.
const maxChecked = 8192

// Open makes the directory if need be. It reads no object.
func Open(fsys vfs.FS, opts Options) (*Store, error) {
	s := &Store{fs: fsys, opts: opts, held: map[Sum]int{}, checked: map[Sum]bool{}, bytes: -1}
	s.names = names{fs: fsys, dir: opts.Dir, changed: 1} // what is there may not have been flushed
	err := fsys.Mkdir(opts.Dir)
	switch {
	case err == nil:
		if err := fsys.SyncDir("."); err != nil {
			return nil, fmt.Errorf("making %s durable: %w", opts.Dir, err)
		}
	case !errors.Is(err, syscall.EEXIST):
		// On a medium that refuses writes the contents that are there can still be read.
		if _, statErr := fsys.Lstat(opts.Dir); statErr != nil {
			return nil, fmt.Errorf("making %s: %w", opts.Dir, err)
		}
	}
	return s, nil
}

func (s *Store) path(sum Sum) string { return s.opts.Dir + "/" + sum.String() }

// Put keeps a content and returns its name when it is durable. Until release is called,
// Sweep leaves it alone: call it once what names the content is told to Sweep's roots, or
// was given up. An error that is neither *Damage nor ErrUncertain is the file system's.
func (s *Store) Put(content []byte) (sum Sum, release func(), err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	sum = SumOf(content)
	objects := split(sum, content)
	if err := s.store(objects); err != nil {
		return Sum{}, nil, err
	}
	if err := s.names.flush(); err != nil {
		return Sum{}, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		s.remember(o.sum)
	}
	return sum, s.hold(sum), nil
}

// Hold is Put of a content that is there already: an error says that it is not, or not whole.
func (s *Store) Hold(sum Sum) (release func(), err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if _, err := s.Get(sum); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hold(sum), nil
}

// hold is called with mu held.
func (s *Store) hold(sum Sum) (release func()) {
	s.held[sum]++
	if s.touched != nil {
		s.touched[sum] = true
	}
	return sync.OnceFunc(func() { s.release(sum) })
}

func (s *Store) release(sum Sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[sum]--; s.held[sum] == 0 {
		delete(s.held, sum)
	}
}

// remember is called with mu held.
func (s *Store) remember(sum Sum) {
	if len(s.checked) >= maxChecked {
		clear(s.checked)
	}
	s.checked[sum] = true
}

// Get returns a content, verified from end to end.
func (s *Store) Get(sum Sum) ([]byte, error) {
	kind, body, err := s.read(sum)
	if err != nil {
		return nil, err
	}
	if kind != kindList {
		return body, nil // read compared it with its name
	}
	l, err := parseList(body)
	if err != nil {
		return nil, &Damage{s.path(sum), err.Error()}
	}
	content, err := s.gather(l)
	if err != nil {
		return nil, err
	}
	if content, err = l.finish(content); err != nil {
		return nil, &Damage{s.path(sum), err.Error()}
	}
	if SumOf(content) != sum {
		return nil, &Damage{s.path(sum), "its chunks do not give the content that its name promises"}
	}
	return content, nil
}

// gather reads all whole chunks of a list.
func (s *Store) gather(l list) ([]byte, error) {
	content := make([]byte, 0, min(l.size, maxAhead))
	err := s.expand(l, nil, func(chunk Sum) error {
		_, body, err := s.read(chunk)
		if err == nil {
			content = append(content, body...)
		}
		return err
	})
	return content, err
}

// expand tells each of a list's inner nodes and then its chunks, in their order.
func (s *Store) expand(l list, node, chunk func(Sum) error) error {
	for level := len(l.levels) - 1; level >= 0; level-- {
		for _, ref := range l.levels[level] {
			if err := s.descend(ref, level, node, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) descend(ref Sum, level int, node, chunk func(Sum) error) error {
	if level == 0 {
		return chunk(ref)
	}
	if node != nil {
		if err := node(ref); err != nil {
			return err
		}
	}
	_, body, err := s.read(ref)
	if err != nil {
		return err
	}
	if len(body)%len(ref) != 0 {
		return &Damage{s.path(ref), "is not a list of names"}
	}
	for ; len(body) > 0; body = body[len(ref):] {
		if err := s.descend(Sum(body[:len(ref)]), level-1, node, chunk); err != nil {
			return err
		}
	}
	return nil
}

// read returns what an object's file gives. Kinds other than a list are compared with the name.
func (s *Store) read(sum Sum) (kind byte, body []byte, err error) {
	stored, err := readFile(s.fs, s.path(sum))
	if err != nil {
		return 0, nil, err
	}
	kind, body, err = decode(sum, stored)
	if err != nil {
		return 0, nil, &Damage{s.path(sum), err.Error()}
	}
	return kind, body, nil
}

// readFile returns a file's bytes. A missing file, and anything else in a file's place, is
// damage; a failing disk is not.
func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path, syscall.O_RDONLY)
	if err != nil {
		return nil, classify(path, err)
	}
	defer f.Close() // nothing was written
	size, err := f.Size()
	if err != nil {
		return nil, classify(path, err)
	}
	if size > maxStored {
		return nil, &Damage{path, "is longer than any file of this kind"}
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, classify(path, err)
	}
	if n == 0 {
		// A directory, a FIFO or a device may say that it is empty.
		info, err := fsys.Lstat(path)
		if err != nil {
			return nil, classify(path, err)
		}
		if !info.Mode.IsRegular() {
			return nil, &Damage{path, "is not a regular file"}
		}
	}
	return b[:n], nil
}

func classify(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Damage{path, "is missing"}
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ESPIPE), errors.Is(err, syscall.ENXIO):
		return &Damage{path, "is not a regular file"}
	}
	return err
}

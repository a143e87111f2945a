package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// rest is how a store was left.
type rest string

const (
	closed    rest = "closed"                           // in order: the journal is empty
	published rest = "killed, and all of it is files"   // and the journal's segment is still there
	behind    rest = "killed, some only in the journal" // no round of the publisher had begun
)

// rotting is a store at rest, to be damaged one file at a time.
type rotting struct {
	mem   *vfs.Mem
	left  rest
	w     *world
	older map[string][]byte // what files held before their last change
	busy  checkpoint.ID     // the session of which the journal holds more than the files
	wrap  func(vfs.FS) vfs.FS
}

// newRotting fills a store with every kind of file and leaves it.
func newRotting(t *testing.T, left rest) *rotting {
	t.Helper()
	a, b := checkpoint.NewID(), checkpoint.NewID()
	r := &rotting{mem: vfs.NewMem(), left: left, w: newWorld(), older: map[string][]byte{}, busy: a, wrap: same}
	s, err := storage.Open(context.Background(), small(r.mem))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{s: s, w: r.w}
	id := []checkpoint.ID{checkpoint.NewID(), checkpoint.NewID(), checkpoint.NewID(), checkpoint.NewID()}
	c.createSession(a)
	c.create(a, id[0], `{"n":0}`, strings.Repeat("a captured file\n", 20))
	c.create(a, id[1], `{"n":1}`, "")
	c.annotate(id[0], "a note")
	c.sync()
	for _, f := range vfstest.Files(r.mem, ".") {
		r.older[f] = vfstest.ReadFile(r.mem, f)
	}
	release := func() {}
	if left == behind {
		release = storage.HoldPublisher(s)
	}
	c.createSession(b)
	c.create(b, id[2], `{"n":2}`, "")
	c.annotate(id[0], "another note")
	c.delete(id[1])
	c.create(a, id[3], `{"n":3}`, "")
	if left == published {
		c.failed(storage.Published(context.Background(), s))
		release = storage.HoldPublisher(s)
	}
	mem := r.mem
	if left != closed {
		r.mem = mem.Clone()
	}
	release()
	if err := errors.Join(append(c.errs, s.Close())...); err != nil {
		t.Fatal(err)
	}
	return r
}

// promised says whether damage to a file must be found: index/ is a cache, and what is in
// tmp/ and no journal names is removed unread.
func promised(path string) bool {
	return !strings.HasPrefix(path, "index/") && !strings.HasPrefix(path, "tmp/")
}

// hold opens the damaged store and looks for what must not be: damage that nobody names,
// a wrong byte that is served, a neighbour that is not.
func (r *rotting) hold(mem *vfs.Mem, path string, gone bool) error {
	s, err := storage.Open(context.Background(), small(r.wrap(mem)))
	if err != nil {
		if path == "FORMAT" && strings.Contains(err.Error(), "has format") {
			return nil // its version is a later one now: refused, and not written to
		}
		if (path == "FORMAT" || path == "LOCK") && errors.Is(err, checkpoint.ErrCorrupt) && strings.Contains(err.Error(), path) {
			return nil
		}
		return fmt.Errorf("it does not start: %w", err)
	}
	if r.left == behind { // what the publisher finds to do is done, or it would be seen half the time
		if _, err := s.Sync(context.Background()); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return errors.Join(r.look(s, path, gone), s.Close())
}

func (r *rotting) look(s storage.Store, path string, gone bool) error {
	ctx := context.Background()
	report, err := s.ValidateAll(ctx, checkpoint.ID{}, nil)
	if err != nil {
		return err
	}
	named := slices.ContainsFunc(report.Problems, func(p storage.Problem) bool { return p.Path == path })
	if !named && !(gone && path == "FORMAT") {
		return fmt.Errorf("not found: %+v", report)
	}
	bad := 0
	for id, m := range r.w.made {
		st, err := s.Get(ctx, id)
		switch {
		case strings.HasPrefix(path, "journal/") && (errors.Is(err, checkpoint.ErrNotFound) || err == nil && r.w.gone[id]):
			// What only the journal knew is lost with it, and the journal is named.
		case r.w.gone[id]:
			// That it was deleted may be lost with the manifest; it is not served.
			if !errors.Is(err, checkpoint.ErrNotFound) && !(errors.Is(err, checkpoint.ErrCorrupt) && strings.HasSuffix(path, "/manifest.jsonl")) {
				return fmt.Errorf("number %d was deleted: %v", m.sequence, err)
			}
		case errors.Is(err, checkpoint.ErrCorrupt):
			bad++
			if !r.listed(s, id) {
				return fmt.Errorf("number %d is damaged and is not listed as that", m.sequence)
			}
		case err != nil:
			return fmt.Errorf("number %d: %w", m.sequence, err)
		case string(st.State) != m.state || st.Summary.Checksum != m.checksum:
			return fmt.Errorf("number %d is served with other bytes", m.sequence)
		}
		if err == nil && m.file != "" {
			_, content, err := s.ReadFile(ctx, id, "f")
			if err == nil && string(content) != m.file {
				return fmt.Errorf("a wrong file is served")
			}
			if err != nil && (!errors.Is(err, checkpoint.ErrCorrupt) || !strings.HasPrefix(path, "blobs/")) {
				return fmt.Errorf("a file is not served: %w", err)
			}
		}
	}
	if bad > 1 || bad == 1 && !strings.Contains(path, "/checkpoints/") && !strings.HasPrefix(path, "journal/") {
		return fmt.Errorf("%d checkpoints are lost by damage to one file", bad)
	}
	return nil
}

func (r *rotting) listed(s storage.Store, id checkpoint.ID) bool {
	list, err := everything(s)
	return err == nil && slices.ContainsFunc(list, func(sum checkpoint.Summary) bool { return sum.ID == id && sum.Corrupt })
}

// damage is one way to harm a file.
type damage struct {
	name string
	do   func(m *vfs.Mem, path string) bool // false: it would change nothing
}

func (r *rotting) damages(path string) []damage {
	must := func(errs ...error) bool {
		if err := errors.Join(errs...); err != nil {
			panic(err) // a disk in memory takes these
		}
		return true
	}
	edit := func(change func([]byte) []byte) func(*vfs.Mem, string) bool {
		return func(m *vfs.Mem, path string) bool {
			was := vfstest.ReadFile(m, path)
			b := change(bytes.Clone(was))
			vfstest.WriteFile(m, path, b)
			return !bytes.Equal(was, b)
		}
	}
	list := []damage{
		{"half", edit(func(b []byte) []byte { return b[:len(b)/2] })},
		{"gone", func(m *vfs.Mem, p string) bool { return must(m.Remove(p)) }},
		{"empty", edit(func([]byte) []byte { return nil })},
		{"zeros", edit(func(b []byte) []byte { return make([]byte, len(b)) })},
		{"a byte more", edit(func(b []byte) []byte { return append(b, '\n') })},
		{"a zero more", edit(func(b []byte) []byte { return append(b, 0) })},
		{"twice", edit(func(b []byte) []byte { return append(b, b...) })},
		{"a directory", func(m *vfs.Mem, p string) bool { return must(m.Remove(p), m.Mkdir(p)) }},
		{"a FIFO", func(m *vfs.Mem, p string) bool { return must(m.Remove(p), m.Mkfifo(p)) }},
		{"a symbolic link", func(m *vfs.Mem, p string) bool { return must(m.Remove(p), m.Symlink("FORMAT", p)) }},
	}
	if old, ok := r.older[path]; ok {
		list = append(list, damage{"an old copy", edit(func([]byte) []byte { return old })})
	}
	return list
}

// kind groups the files that could be taken for each other.
func kind(path string) string {
	parts := strings.Split(path, "/")
	switch len(parts) {
	case 2:
		return parts[0]
	case 4:
		return parts[2]
	}
	return parts[len(parts)-1]
}

func TestFaultDamagedFiles(t *testing.T) {
	full(t)
	t.Parallel()
	for _, left := range []rest{closed, published, behind} {
		r := newRotting(t, left)
		files := vfstest.Files(r.mem, ".")
		for _, path := range files {
			if !promised(path) {
				continue
			}
			for _, d := range r.damages(path) {
				m := r.mem.Clone()
				if !d.do(m, path) || r.heals(path, d.name) {
					continue
				}
				if err := r.hold(m, path, d.name == "gone"); err != nil {
					t.Errorf("%s, %s: %s: %v", left, d.name, path, err)
				}
			}
			for _, other := range files {
				if other <= path || !promised(other) || kind(other) != kind(path) || r.heals(path, "swapped") || r.heals(other, "swapped") {
					continue
				}
				x, y := vfstest.ReadFile(r.mem, path), vfstest.ReadFile(r.mem, other)
				if bytes.Equal(x, y) {
					continue
				}
				m := r.mem.Clone()
				vfstest.WriteFile(m, path, y)
				vfstest.WriteFile(m, other, x)
				if err := r.swapped(m, path, other); err != nil {
					t.Errorf("%s, swapped %s and %s: %v", left, path, other, err)
				}
			}
		}
	}
}

// heals says what the format lets heal in silence. Of a store that was killed, the end of the journal may be torn, what stands
// behind the ends that session.json and head.json give is what a round of the publisher
// left that was cut, and a file whose deletion is in the journal goes unread.
func (r *rotting) heals(path, what string) bool {
	longer := what == "a zero more" || what == "a byte more"
	switch {
	case path == "LOCK" && what == "an old copy":
		return true // a process that was killed leaves the same
	case r.left == closed:
		return false
	case path == "LOCK":
		return what == "empty" || what == "zeros" // its line is not flushed
	case strings.HasPrefix(path, "journal/"):
		return longer
	case path == "events/head.json" && what == "an old copy":
		return true // a round that was cut before it leaves the same: the journal is read from there
	case r.left == published:
		return false
	case path == "events/00000000000000000001.jsonl":
		return longer
	case path == "sessions/"+r.busy.String()+"/manifest.jsonl":
		return longer || what == "twice"
	}
	for id := range r.w.gone {
		if strings.Contains(path, id.String()) {
			return true
		}
	}
	return false
}

func (r *rotting) swapped(m *vfs.Mem, paths ...string) error {
	s, err := storage.Open(context.Background(), small(m))
	if err != nil {
		return fmt.Errorf("it does not start: %w", err)
	}
	report, err := s.ValidateAll(context.Background(), checkpoint.ID{}, nil)
	for _, path := range paths {
		if !slices.ContainsFunc(report.Problems, func(p storage.Problem) bool { return p.Path == path }) {
			err = errors.Join(err, fmt.Errorf("%s is not named: %+v", path, report))
		}
	}
	for id, m := range r.w.made {
		if st, getErr := s.Get(context.Background(), id); getErr == nil && string(st.State) != m.state {
			err = errors.Join(err, fmt.Errorf("number %d is served with other bytes", m.sequence))
		}
	}
	return errors.Join(err, s.Close())
}

func TestFaultDamagedFilesNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	r := newRotting(t, closed)
	original := r.mem.Clone()
	r.wrap = func(f vfs.FS) vfs.FS { return vfstest.Stale(f, original) }
	for _, path := range vfstest.Files(r.mem, ".") {
		for _, d := range r.damages(path) {
			m := r.mem.Clone()
			// Names are listed all the same, and LOCK is this process's to write.
			if !promised(path) || path == "LOCK" || d.name == "gone" || !d.do(m, path) || r.heals(path, d.name) {
				continue
			}
			if err := r.hold(m, path, false); err == nil {
				t.Errorf("%s: %s: a store that does not read its files again was not noticed", d.name, path)
			}
		}
	}
}

package storage_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// request is one step of a crash workload on the base store.
type request struct {
	name string
	do   func(c *client, b *base)
}

// base is the store that the workloads start from, closed and durable.
type base struct {
	mem     *vfs.Mem
	w       *world
	session checkpoint.ID
	old     []checkpoint.ID
	next    func() checkpoint.ID
	syncFS  bool
}

func newBase(t *testing.T) *base {
	t.Helper()
	b := &base{mem: vfs.NewMem(), w: newWorld(), session: checkpoint.NewID(), next: checkpoint.NewID}
	s, err := storage.Open(context.Background(), small(b.mem))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{s: s, w: b.w}
	c.createSession(b.session)
	for range 3 {
		b.old = append(b.old, checkpoint.NewID())
		c.create(b.session, b.old[len(b.old)-1], `{"old":true}`, "an old file")
	}
	if err := errors.Join(append(c.errs, s.Close())...); err != nil {
		t.Fatal(err)
	}
	return b
}

var requests = []request{
	{"create", func(c *client, b *base) { c.create(b.session, b.next(), `{"new":true}`, "") }},
	{"create with a file", func(c *client, b *base) { c.create(b.session, b.next(), `{}`, "a new file") }},
	{"create a large one", func(c *client, b *base) { c.create(b.session, b.next(), `"`+strings.Repeat("large", 1000)+`"`, "") }},
	{"create two", func(c *client, b *base) { c.createMany(b.session, b.next(), b.next()) }},
	{"annotate", func(c *client, b *base) {
		b.one(c, false, func(id checkpoint.ID) { c.annotate(id, "note "+b.next().String()) })
	}},
	{"delete", func(c *client, b *base) { b.one(c, true, c.delete) }},
	{"compact", func(c *client, b *base) { c.compact(b.session, 1, nil) }},
	{"create a session", func(c *client, b *base) { c.createSession(b.next()) }},
	{"fork", func(c *client, b *base) {
		b.one(c, false, func(id checkpoint.ID) { c.fork(id, b.next()) })
	}},
	{"restore", func(c *client, b *base) {
		b.one(c, false, func(id checkpoint.ID) { c.restore(b.session, id) })
	}},
	{"sync", func(c *client, _ *base) { c.sync() }},
}

// one does something to a checkpoint that is there: an old one while there is one. When
// all are deleted, it must be refused.
func (b *base) one(c *client, first bool, do func(checkpoint.ID)) {
	left := slices.DeleteFunc(slices.Collect(maps.Keys(c.w.made)), func(id checkpoint.ID) bool { return c.w.going[id] })
	if len(left) == 0 {
		before := len(c.errs)
		do(b.old[2])
		if err := errors.Join(c.errs[before:]...); !errors.Is(err, checkpoint.ErrNotFound) {
			c.failed(fmt.Errorf("what is deleted was not refused: %v", err))
			return
		}
		c.errs = c.errs[:before]
		return
	}
	slices.SortFunc(left, func(x, y checkpoint.ID) int { return cmp.Compare(c.w.made[x].sequence, c.w.made[y].sequence) })
	switch {
	case first:
		do(left[0])
	case slices.Contains(left, b.old[2]):
		do(b.old[2])
	default:
		do(left[len(left)-1])
	}
}

// crash runs a workload and looks at every state that a power cut may leave of it.
func (b *base) crash(list []request, wrap func(vfs.FS) vfs.FS) (vfstest.Crashes, error) {
	disk := vfstest.NewDisk(b.mem.Clone(), nil)
	o := small(wrap(disk))
	o.SyncFS = b.syncFS
	s, err := storage.Open(context.Background(), o)
	if err != nil {
		return vfstest.Crashes{}, err
	}
	marks := 0
	c := &client{s: s, w: b.w.clone(), note: func(f func(*world)) {
		disk.Mark(f)
		marks++
	}}
	m := vfstest.Model{Loose: loose, Cache: func(path string) bool { return strings.HasPrefix(path, "index/") }}
	for i, r := range list {
		if i > 0 && i == len(list)-1 {
			m.From = marks // what is before is a state of the workload without this request
		}
		r.do(c, b)
	}
	if err := errors.Join(append(c.errs, s.Close())...); err != nil {
		return vfstest.Crashes{}, err
	}
	return disk.EachCrash(m, func(state vfstest.State) error {
		w := b.w.clone()
		for _, m := range state.Marks {
			m.(func(*world))(w)
		}
		return w.opens(state.Mem)
	})
}

// loose are the files that hold nothing, or that no journal names: those of tmp/ are
// removed unread.
func loose(path string) bool {
	return strings.HasPrefix(path, "tmp/") && !strings.HasPrefix(path, "tmp/large-") || path == "LOCK"
}

// workloads are all sequences of so many requests out of kinds.
func workloads(length int, kinds []request) [][]request {
	if length == 0 {
		return [][]request{nil}
	}
	var list [][]request
	for _, head := range workloads(length-1, kinds) {
		for _, r := range kinds {
			list = append(list, append(slices.Clip(head), r))
		}
	}
	return list
}

func names(list []request) string {
	var n []string
	for _, r := range list {
		n = append(n, r.name)
	}
	return strings.Join(n, ", ")
}

// Every state that a power cut may leave (vfstest.EachCrash says which) of every workload of
// one request, of two and of three: what was acknowledged is there whole, nothing is there
// half, and nothing is taken for damage.
func TestFaultEveryCrashState(t *testing.T) {
	list := workloads(1, requests)
	if full(t) {
		list = slices.Concat(list, workloads(2, requests), workloads(3, requests))
	} else {
		for i, w := range workloads(2, requests) {
			if i%16 == 0 {
				list = append(list, w)
			}
		}
	}
	t.Parallel()
	var mu sync.Mutex
	var total vfstest.Crashes
	var next atomic.Int64
	for lane := range 4 {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			t.Parallel()
			b := newBase(t)
			for i := next.Add(1) - 1; i < int64(len(list)); i = next.Add(1) - 1 {
				count, err := b.crash(list[i], same)
				if err != nil {
					t.Errorf("%s: %v", names(list[i]), err)
				}
				mu.Lock()
				total.Points += count.Points
				total.States += count.States
				mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { t.Logf("%d workloads, %+v", len(list), total) })
}

// The same with one flush of the whole file system a round in place of one a file.
func TestFaultEveryCrashStateWithSyncFS(t *testing.T) {
	list := workloads(1, requests)
	if !full(t) {
		list = list[4:8]
	}
	t.Parallel()
	b := newBase(t)
	b.syncFS = true
	var total vfstest.Crashes
	for _, w := range list {
		count, err := b.crash(w, same)
		if err != nil {
			t.Errorf("%s: %v", names(w), err)
		}
		total.Points += count.Points
		total.States += count.States
	}
	t.Logf("%d workloads, %+v", len(list), total)
}

// The first start ever, cut at any moment, leaves something that starts.
func TestFaultEveryCrashStateOfTheFirstStart(t *testing.T) {
	full(t)
	t.Parallel()
	b := &base{mem: vfs.NewMem(), w: newWorld(), session: checkpoint.NewID(), next: checkpoint.NewID}
	first := request{"first start", func(c *client, b *base) {
		c.createSession(b.session)
		c.create(b.session, b.next(), `{}`, "file")
	}}
	count, err := b.crash([]request{first}, same)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", count)
}

func TestFaultEveryCrashStateNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	for name, mutant := range map[string]func(vfs.FS) vfs.FS{
		"the journal is not flushed":       func(f vfs.FS) vfs.FS { return vfstest.NoSync(f, "journal/") },
		"nothing is flushed":               func(f vfs.FS) vfs.FS { return vfstest.NoSync(f, "") },
		"no directory is flushed":          func(f vfs.FS) vfs.FS { return vfstest.NoSyncDir(f, "") },
		"blobs' directory is not flushed":  func(f vfs.FS) vfs.FS { return vfstest.NoSyncDir(f, "blobs") },
		"files are named before the flush": func(f vfs.FS) vfs.FS { return vfstest.RenameFirst(f) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBase(t)
			for _, list := range append(workloads(1, requests), []request{requests[0], requests[10]}, []request{requests[1], requests[10]}, []request{requests[2], requests[10]}) {
				if _, err := b.crash(list, mutant); err != nil {
					t.Logf("noticed: %s: %v", names(list), err)
					return
				}
			}
			t.Fatal("not noticed")
		})
	}
}

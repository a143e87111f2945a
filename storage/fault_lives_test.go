package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// saga is a store over several lives of its daemon, each ended or troubled in its own way.
type saga struct {
	lot      *rand.Rand
	wrap     func(vfs.FS) vfs.FS
	w        *world
	sessions []checkpoint.ID
	of       map[checkpoint.ID][]checkpoint.ID // the checkpoints that a session was asked for
	ended    []checkpoint.ID                   // sessions whose deletion was acknowledged
	numbers  map[uint64]checkpoint.ID          // acknowledged
	dead     map[uint64]bool                   // whose deletion was
	story    []string
}

func newSaga(seed uint64, wrap func(vfs.FS) vfs.FS) *saga {
	return &saga{
		lot: rand.New(rand.NewPCG(seed, 9)), wrap: wrap, w: newWorld(), of: map[checkpoint.ID][]checkpoint.ID{},
		numbers: map[uint64]checkpoint.ID{}, dead: map[uint64]bool{},
	}
}

func (g *saga) tell(format string, args ...any) {
	g.story = append(g.story, fmt.Sprintf(format, args...))
}

func drawn[T any](lot *rand.Rand, list ...T) T { return list[lot.IntN(len(list))] }

// options are small, and differ from life to life in what no file depends on.
func (g *saga) options(fsys vfs.FS) storage.Options {
	o := small(fsys)
	o.PublishWorkers = 1
	o.SegmentBytes = drawn[int64](g.lot, 2<<10, 4<<10, 16<<10)
	o.SequenceBlock = drawn[uint64](g.lot, 1, 3, 64)
	o.SyncFS = g.lot.IntN(4) == 0
	if g.lot.IntN(4) == 0 {
		o.CloseWithin = time.Nanosecond
	}
	return o
}

// live is one life. It returns the disk as it is after it.
func (g *saga) live(disk *vfstest.Disk) (*vfstest.Disk, error) {
	t := g.trouble()
	g.tell("a life: %v", t)
	var over, die bool
	var died vfstest.Call
	var mu sync.Mutex
	inner := t.hook(&over, &die, &died)
	disk = disk.Next(func(c vfstest.Call) vfstest.Verdict {
		mu.Lock()
		defer mu.Unlock()
		return inner(c)
	})
	set := func(v *bool) {
		mu.Lock()
		defer mu.Unlock()
		*v = true
	}
	o := g.options(g.wrap(disk))
	s, err := storage.Open(context.Background(), o)
	if err != nil {
		g.tell("it does not start: %v", err)
		if t.errno == 0 && !disk.Dead() {
			return nil, fmt.Errorf("opening it: %w", err)
		}
		return disk, nil
	}
	c := &client{s: s, w: g.w}
	for range 1 + g.lot.IntN(drawn(g.lot, 3, 16)) {
		if disk.Dead() {
			break
		}
		g.act(c)
	}
	if g.lot.IntN(3) == 0 {
		set(&over)
		if err = g.w.check(s); disk.Dead() {
			err = nil
		}
	}
	if g.lot.IntN(3) == 0 {
		set(&die)
	}
	closeErr := s.Close()
	mu.Lock()
	defer mu.Unlock()
	if disk.Dead() {
		g.tell("it died at %v", died)
	} else if closeErr != nil {
		g.tell("closing it: %v", closeErr)
	}
	if v := disk.Violations(); len(v) > 0 {
		return nil, errors.New(strings.Join(v, "; "))
	}
	return disk, err
}

// act is one request.
func (g *saga) act(c *client) {
	lot := g.lot
	if len(g.sessions) == 0 || lot.IntN(12) == 0 {
		id := checkpoint.NewID()
		if len(g.ended) > 0 && lot.IntN(2) == 0 {
			id = drawn(lot, g.ended...) // one of the same id, and of the same key
			g.ended = slices.DeleteFunc(g.ended, func(e checkpoint.ID) bool { return e == id })
		}
		g.sessions = append(g.sessions, id)
		g.did("session", c, func() { c.createSession(id) })
		return
	}
	session := drawn(lot, g.sessions...)
	there := func() (checkpoint.ID, bool) {
		list := g.of[session]
		if len(list) == 0 {
			return checkpoint.ID{}, false
		}
		return drawn(lot, list...), true
	}
	fresh := func() checkpoint.ID {
		id := checkpoint.NewID()
		if old, ok := there(); ok && g.w.gone[old] && lot.IntN(2) == 0 {
			id = old // an id is used again
			delete(g.w.gone, id)
			delete(g.w.going, id)
			delete(g.w.made, id)
			delete(g.w.notes, id)
		} else {
			g.of[session] = append(g.of[session], id)
		}
		return id
	}
	file := ""
	if lot.IntN(3) == 0 {
		file = strings.Repeat(strconv.Itoa(lot.IntN(4)), drawn(lot, 10, 6000))
	}
	switch kind := lot.IntN(16); kind {
	case 0, 1, 2, 3:
		id := fresh()
		g.did("create", c, func() { c.create(session, id, fmt.Sprintf(`{"n":%d}`, lot.Int()), file) })
	case 4:
		id := fresh()
		g.did("create a large one", c, func() { c.create(session, id, `"`+strings.Repeat("large", 1000)+`"`, file) })
	case 5, 6:
		list := []checkpoint.ID{fresh(), fresh(), fresh()}[:1+lot.IntN(3)]
		slices.SortFunc(list, func(a, b checkpoint.ID) int { return strings.Compare(a.String(), b.String()) })
		list = slices.Compact(list)
		g.did("create some", c, func() { c.createMany(session, list...) })
	case 7, 8:
		if id, ok := there(); ok {
			g.did("annotate", c, func() { c.annotate(id, fmt.Sprint("note ", lot.Int())) })
		}
	case 9, 10:
		if id, ok := there(); ok {
			g.did("delete", c, func() { c.delete(id) })
		}
	case 11:
		all := slices.Clone(g.of[session])
		g.did("compact", c, func() { c.compact(session, int64(lot.IntN(3)), all) })
	case 12:
		if id, ok := there(); ok {
			to := checkpoint.NewID()
			g.sessions = append(g.sessions, to)
			g.did("fork", c, func() { c.fork(id, to) })
		}
	case 13:
		g.did("delete the session", c, func() { c.deleteSession(session, g.of[session]...) })
		g.sessions = slices.DeleteFunc(g.sessions, func(e checkpoint.ID) bool { return e == session })
		g.ended = append(g.ended, session)
	case 14:
		if id, ok := there(); ok && lot.IntN(2) == 0 {
			g.did("restore", c, func() { c.restore(session, id) })
		} else {
			g.did("import", c, func() { g.importOne(c, session) })
		}
	case 15:
		g.did("sync", c, c.sync)
	}
}

func (g *saga) did(what string, c *client, do func()) {
	before := len(c.errs)
	do()
	if len(c.errs) > before {
		what += fmt.Sprintf(" (%v)", c.errs[len(c.errs)-1])
	}
	g.tell("%s", what)
}

// importOne brings a checkpoint with a number of its own, above all or not.
func (g *saga) importOne(c *client, session checkpoint.ID) {
	if _, err := c.s.Session(context.Background(), storage.Ref{ID: session}); err != nil {
		return
	}
	id := checkpoint.NewID()
	number := uint64(1 + g.lot.IntN(int(g.w.highest)+200))
	page := fmt.Sprintf(`{"checkpoints":[{"id":%q,"session_id":%q,"sequence_number":%d,"timestamp":"2026-01-02T03:04:05Z","message":"in","trigger":"Manual","state":{"in":1}}]}`,
		id, session, number)
	got, err := c.s.Import(context.Background(), []byte(page), 0)
	if c.failed(err) || got.Imported != 1 {
		return
	}
	g.of[session] = append(g.of[session], id)
	sum, err := c.s.Summary(context.Background(), id)
	if !c.failed(err) {
		c.tell(func(w *world) {
			w.made[id] = made{sum.Sequence, sum.Checksum, `{"in":1}`, ""}
			w.highest = max(w.highest, sum.Sequence)
		})
	}
}

// settle brings what was acknowledged into the books, and holds the numbers against them.
func (g *saga) settle() error {
	for id, m := range g.w.made {
		if other, ok := g.numbers[m.sequence]; ok && other != id || g.dead[m.sequence] && !g.w.gone[id] {
			return fmt.Errorf("number %d was given again", m.sequence)
		}
		g.numbers[m.sequence] = id
		if g.w.gone[id] {
			g.dead[m.sequence] = true
		}
	}
	return nil
}

// sound looks at a copy of the disk twice: what it was, and what a clean life makes of it.
func (g *saga) sound(mem *vfs.Mem) error {
	if err := g.settle(); err != nil {
		return err
	}
	for again := range 2 {
		s, err := storage.Open(context.Background(), small(mem))
		if err != nil {
			return fmt.Errorf("opening it: %w", err)
		}
		list, err := everything(s)
		for _, sum := range list {
			if g.dead[sum.Sequence] {
				err = errors.Join(err, fmt.Errorf("number %d is back", sum.Sequence))
			}
			if id, ok := g.numbers[sum.Sequence]; ok && id != sum.ID {
				err = errors.Join(err, fmt.Errorf("number %d is given again", sum.Sequence))
			}
		}
		if err := errors.Join(err, g.w.check(s), g.w.sound(s), s.Close()); err != nil {
			return fmt.Errorf("look %d: %w", again+1, err)
		}
	}
	for _, file := range vfstest.Files(mem, ".") {
		if strings.HasPrefix(file, "quarantine/") && !strings.HasSuffix(file, ".torn_tail") || strings.HasPrefix(file, "tmp/") && file != "tmp/reserve" {
			return fmt.Errorf("%s is left", file)
		}
	}
	return nil
}

// run is the whole of it.
func (g *saga) run() error {
	disk := vfstest.NewDisk(vfs.NewMem(), nil)
	for range 2 + g.lot.IntN(5) {
		next, err := g.live(disk)
		if err != nil {
			return err
		}
		disk = next
		if g.lot.IntN(3) == 0 {
			g.tell("the power goes")
			disk = vfstest.NewDisk(disk.Drawn(g.model(), g.lot), nil)
		}
		if err := g.sound(disk.Mem().Clone()); err != nil {
			return fmt.Errorf("%w\n%s", err, journalText(disk.Mem()))
		}
	}
	return nil
}

func (g *saga) model() vfstest.Model {
	return vfstest.Model{Loose: loose, Cache: func(path string) bool { return strings.HasPrefix(path, "index/") }}
}

// sagas runs one a seed, in lanes beside each other, until one fails.
func sagas(first uint64, seeds int, wrap func(vfs.FS) vfs.FS) error {
	const lanes = 2
	var failed atomic.Bool
	errs := make([]error, lanes)
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := lane; i < seeds && !failed.Load(); i += lanes {
				g := newSaga(first+uint64(i), wrap)
				if err := g.run(); err != nil {
					errs[lane] = fmt.Errorf("FORGE_CPD_SEED=%d: %w\n%s", first+uint64(i), err, strings.Join(g.story, "\n"))
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Several lives of one store: requests drawn by lot, calls that fail, deaths at any call,
// power cuts, with publications between them or without. FORGE_CPD_SEED is the first seed.
func TestFaultManyLives(t *testing.T) {
	seeds, first := 300, uint64(1)
	if full(t) {
		seeds = 10_000
	}
	t.Parallel()
	if text := os.Getenv("FORGE_CPD_SEED"); text != "" {
		var err error
		if first, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if err := sagas(first, seeds, same); err != nil {
		t.Fatal(err)
	}
}

func TestFaultManyLivesNoticesMutants(t *testing.T) {
	full(t)
	t.Parallel()
	for name, mutant := range map[string]func(vfs.FS) vfs.FS{
		"the journal is not flushed":       func(f vfs.FS) vfs.FS { return vfstest.NoSync(f, "journal/") },
		"the journal is written late":      func(f vfs.FS) vfs.FS { return vfstest.LateWrites(f, "journal/") },
		"no directory is flushed":          func(f vfs.FS) vfs.FS { return vfstest.NoSyncDir(f, "") },
		"files of a session do not go":     func(f vfs.FS) vfs.FS { return vfstest.NoRemove(f, "sessions/") },
		"what the markers say is not read": func(f vfs.FS) vfs.FS { return vfstest.NoNames(f, "journal/") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := sagas(1, 1000, mutant)
			if err == nil {
				t.Fatal("not noticed")
			}
			line, _, _ := strings.Cut(err.Error(), "\n")
			t.Log("noticed:", line)
		})
	}
}

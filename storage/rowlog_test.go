package storage

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// shown is what a store shows of everything it holds.
func shown(t *testing.T, s Store) string {
	t.Helper()
	var b bytes.Buffer
	page, err := s.List(t.Context(), Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range page.Summaries {
		fmt.Fprintf(&b, "%s\n", raw)
	}
	sessions, err := s.Sessions(t.Context(), SessionQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(&b).Encode(sessions); err != nil {
		t.Fatal(err)
	}
	for _, sum := range list(t, s, Query{Limit: 1000}) {
		st, err := s.Get(t.Context(), sum.ID)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %+v\n", st.Raw, st.Annotations)
	}
	return b.String()
}

// differ names the first line that is another one.
func differ(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n%s\nis not\n%s", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

func edit(t *testing.T, m *vfs.Mem, path string, change func([]byte) []byte) {
	t.Helper()
	f, err := m.Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	b = change(b)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(0, b); err != nil {
		t.Fatal(err)
	}
}

// Whatever becomes of the index, the store shows the same; nothing of it is damage.
func TestTheIndexIsACache(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	a, b := newSession(t, s, "a"), newSession(t, s, "b")
	var made []checkpoint.Receipt
	for i := range 20 {
		made = append(made, create(t, s, a, fmt.Sprint(i)))
	}
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	early := mem.Clone()
	note := func(r checkpoint.Receipt, text string) {
		if _, err := s.Annotate(t.Context(), r.CheckpointID, text, checkpoint.Info); err != nil {
			t.Fatal(err)
		}
	}
	note(made[3], "first")
	create(t, s, b, `{}`)
	for _, r := range made[5:9] {
		if err := s.Delete(t.Context(), r.CheckpointID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	note(made[3], "second")
	create(t, s, a, `"last"`)
	want := shown(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old := func(path string) func([]byte) []byte {
		return func([]byte) []byte {
			f, err := early.Open(path, os.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			size, _ := f.Size()
			b := make([]byte, size)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	cases := map[string]func(*vfs.Mem){
		"whole": func(*vfs.Mem) {},
		"rows gone": func(m *vfs.Mem) {
			if err := m.Remove(rowsPath); err != nil {
				t.Fatal(err)
			}
		},
		"summaries gone": func(m *vfs.Mem) {
			if err := m.Remove(summariesPath); err != nil {
				t.Fatal(err)
			}
		},
		"old rows":      func(m *vfs.Mem) { edit(t, m, rowsPath, old(rowsPath)) },
		"old summaries": func(m *vfs.Mem) { edit(t, m, summariesPath, old(summariesPath)) },
		"both old": func(m *vfs.Mem) {
			edit(t, m, rowsPath, old(rowsPath))
			edit(t, m, summariesPath, old(summariesPath))
		},
	}
	for _, path := range []string{rowsPath, summariesPath} {
		for i := 1; i < 8; i++ {
			cases[fmt.Sprint(path, " cut at ", i, "/8")] = func(m *vfs.Mem) {
				edit(t, m, path, func(b []byte) []byte { return b[:len(b)*i/8] })
			}
			cases[fmt.Sprint(path, " changed at ", i, "/8")] = func(m *vfs.Mem) {
				edit(t, m, path, func(b []byte) []byte { b[len(b)*i/8] ^= 0x41; return b })
			}
		}
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			m, want := mem.Clone(), want
			damage(m)
			for range 2 { // what was mended holds
				again := openAt(t, m, Options{})
				if got := shown(t, again); got != want {
					t.Error(differ(got, want))
				}
				clean(t, again)
				create(t, again, b, `{}`)
				if _, err := again.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				clean(t, again)
				newest := list(t, again, Query{SessionID: b, Descending: true, Limit: 1})
				if err := again.Delete(t.Context(), newest[0].ID); err != nil {
					t.Fatal(err)
				}
				want2 := shown(t, again)
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
				last := openAt(t, m, Options{})
				if got := shown(t, last); got != want2 {
					t.Error(differ(got, want2))
				}
				if err := last.Close(); err != nil {
					t.Fatal(err)
				}
				want = want2
			}
		})
	}
}

// With the index whole, no body is opened at start.
func TestAStartWithTheIndexReadsNoBody(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	id := newSession(t, s, "")
	for range 10 {
		create(t, s, id, `{}`)
	}
	want := list(t, s, Query{SessionID: id})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, sum := range want {
		if err := mem.Remove(checkpointPath(id, sum.Sequence, sum.ID)); err != nil {
			t.Fatal(err)
		}
	}
	again := openAt(t, mem, Options{})
	if got := list(t, again, Query{SessionID: id}); !slices.EqualFunc(got, want, func(a, b checkpoint.Summary) bool { return a.ID == b.ID && !a.Corrupt }) {
		t.Fatalf("%+v", got)
	}
}

// While bodies are read again, creates are taken, and every read is whole.
func TestCreatesAreTakenDuringARebuild(t *testing.T) {
	mem := vfs.NewMem()
	s := openAt(t, mem, Options{})
	id := newSession(t, s, "k")
	const n = syncRebuild + 500
	done := make(chan error, n)
	for i := range n {
		s.Submit(t.Context(), &NewCheckpoint{SessionID: id, Message: fmt.Sprint(i), Trigger: checkpoint.Manual}, func(_ checkpoint.Receipt, err error) { done <- err })
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	want := shown(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mem.Remove(rowsPath); err != nil {
		t.Fatal(err)
	}
	told := 0
	again, err := open(t.Context(), Options{FS: mem, Progress: func(done, total int) { told = max(told, total) }}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	again.loops.Add(2)
	go again.commitLoop()
	go again.publishLoop() // the rebuild is not started
	if got := shown(t, again); got != want {
		t.Fatalf("%.300s\nis not\n%.300s", got, want)
	}
	if r := create(t, again, id, `{}`); r.Sequence != n+1 {
		t.Fatalf("number %d", r.Sequence)
	}
	again.opts.LoadWait = time.Millisecond
	if _, err := again.At(t.Context(), id, Point{Time: time.Now()}); err == nil {
		t.Fatal("a read by time was answered before the times were known")
	}
	again.loops.Add(1)
	go again.unread.run()
	<-again.loaded
	if st, err := again.At(t.Context(), id, Point{Time: time.Now()}); err != nil || st.Summary.Sequence != n+1 {
		t.Fatal(st, err)
	}
	if got := list(t, again, Query{Trigger: checkpoint.Manual, Limit: 2 * n}); len(got) != n+1 && len(got) != n {
		t.Fatalf("%d are listed", len(got))
	}
	if told < n-1 {
		t.Fatalf("progress told of %d", told)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	last := openAt(t, mem, Options{})
	if last.unread != nil && len(last.unread.jobs) > 0 {
		t.Fatal("the rebuilt index was not kept")
	}
}

// The live heap at 10^6 checkpoints, counted after a start from the index.
func TestMemoryOfACheckpoint(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 200_000
	}
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	id := newSession(t, s, "k")
	first := create(t, s, id, `{}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d := s.(*dirStore)
	sess := d.index.bySess[id]
	r := *d.index.row(sess.rows[0])
	rows := appendSlot(appendStart(make([]byte, 0, n*80), d.storeID), 0, id)
	for i := range n {
		r.sequence = first.Sequence + uint64(i)
		if i > 0 {
			r.id = checkpoint.NewID()
		}
		rows = appendRow(rows, 0, &r, hex.EncodeToString(r.id[:8]))
	}
	rows = appendPin(rows, 0, &sess.disk)
	if err := os.WriteFile(filepath.Join(dir, rowsPath), rows, 0o600); err != nil {
		t.Fatal(err)
	}
	rows, s, d, sess = nil, nil, nil, nil
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	start := time.Now()
	again, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	each := float64(heap()-before) / float64(n)
	st, err := again.Stats(t.Context())
	if err != nil || st.Checkpoints != n {
		t.Fatalf("%+v %v", st, err)
	}
	t.Logf("%.0f B a checkpoint; the start took %v", each, took)
	if each > 200 {
		t.Errorf("%.0f B of live heap a checkpoint, 200 are allowed", each)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// A row that was healed stands twice in the log: the later one counts, once.
func TestTheLaterRowOfAnIDCounts(t *testing.T) {
	s := &dirStore{index: newIndex(), storeID: checkpoint.NewID()}
	meta := sessionMeta{}
	meta.ID = checkpoint.NewID()
	sess := s.index.addSession(meta)
	a, b := checkpoint.NewID(), checkpoint.NewID()
	data := appendSlot(appendStart(nil, s.storeID), 0, meta.ID)
	for _, r := range []row{{id: a, sequence: 1, bytes: 10}, {id: b, sequence: 2, bytes: 20}, {id: a, sequence: 1, bytes: 11, sumLen: 7}} {
		data = appendRow(data, 0, &r, "")
	}
	x := &indexImage{pins: map[[32]byte]pin{}}
	x.parse(data, s.storeID)
	x.used[0] = len(data)
	x.load(s, []*session{sess})
	s.index.sort()
	if len(sess.rows) != 2 || len(s.index.order) != 2 || len(s.index.byID) != 2 || s.index.bytes != 31 {
		t.Fatalf("%d rows of the session, %d in all, %d ids, %d bytes", len(sess.rows), len(s.index.order), len(s.index.byID), s.index.bytes)
	}
	if r := s.index.row(s.index.byID[a]); r.bytes != 11 || r.sumLen != 7 {
		t.Errorf("the first row counts: %+v", r)
	}
	if s.index.add(sess, row{id: checkpoint.NewID(), sequence: 3}); s.index.row(sess.rows[2]).sequence != 3 {
		t.Error("the place that is free is not used well")
	}
}

package storage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// indexedStore is the store that the corpus of FuzzIndex is the index of.
const indexedStore = "testdata/indexed"

// truth is what the files of a store say, where an index may say something else.
type truth struct {
	store    checkpoint.ID
	sessions []*sessionLoad
	rows     map[checkpoint.ID]row
	sums     map[checkpoint.ID]string
}

// memOf is a directory in memory.
func memOf(tb testing.TB, dir string) *vfs.Mem {
	tb.Helper()
	m := vfs.NewMem()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir():
			return m.Mkdir(rel)
		}
		b, err := os.ReadFile(path)
		vfstest.WriteFile(m, rel, b)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func truthOf(tb testing.TB, m *vfs.Mem) *truth {
	tb.Helper()
	st, err := open(tb.Context(), Options{FS: m.Clone(), ReserveBytes: -1, fromFiles: true})
	if err != nil {
		tb.Fatal(err)
	}
	w := &truth{store: st.storeID, rows: map[checkpoint.ID]row{}, sums: map[checkpoint.ID]string{}}
	for id, sess := range st.index.bySess {
		b, err := st.readAll(sessionDir(id) + "/session.json")
		if err != nil {
			tb.Fatal(err)
		}
		l, err := parseLine(b)
		if err != nil {
			tb.Fatal(err)
		}
		w.sessions = append(w.sessions, &sessionLoad{id: id, meta: sess.meta, sum: l.sum, pinned: sess.disk.bytes})
		for _, r := range sess.rows {
			row, refs := st.index.row(r), []summaryRef{st.summaryRef(r)}
			if err := st.loadSummaries(refs); err != nil || refs[0].open == nil {
				tb.Fatal(err)
			}
			w.rows[row.id], w.sums[row.id] = *row, string(refs[0].open)
		}
	}
	if err := st.release(); err != nil {
		tb.Fatal(err)
	}
	return w
}

// loadIndex takes from an index what a start would.
func (w *truth) loadIndex(tb testing.TB, rows, sums []byte) (*dirStore, *indexImage) {
	tb.Helper()
	s := &dirStore{index: newIndex(), storeID: w.store, fs: vfs.NewMem(), opts: Options{}.withDefaults()}
	for _, dir := range []string{"index", "tmp"} {
		if err := s.fs.Mkdir(dir); err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.createFile(summariesPath, sums); err != nil {
		tb.Fatal(err)
	}
	f, err := s.fs.Open(summariesPath, os.O_RDWR)
	if err != nil {
		tb.Fatal(err)
	}
	s.log.sums, s.log.sumEnd = &sumFile{file: f}, int64(len(sums))
	x := &indexImage{pins: map[[32]byte]pin{}}
	x.parse(rows, w.store)
	bySlot := make([]*session, len(x.slots))
	for _, l := range w.sessions {
		if p, ok := x.use(l.id, l.sum, l.pinned, false); ok {
			sess := s.index.addSession(l.meta)
			sess.disk, sess.logSlot = p.disk, p.slot+1
			bySlot[p.slot], x.used[p.slot] = sess, p.at
		}
	}
	x.load(s, bySlot)
	s.index.sort()
	return s, x
}

// reseal gives every entry its right check, so that what is wrong in it is believed.
func reseal(rows []byte) []byte {
	b := slices.Clone(rows)
	for at := 0; at < len(b) && rowSizes[b[at]] > 0 && at+rowSizes[b[at]] <= len(b); {
		n := rowSizes[b[at]]
		copy(b[at:at+n], seal(slices.Clone(b[at:at+n-4]), 0))
		at += n
	}
	return b
}

// What is taken from an index is what the files say, and an index that is written anew
// tells the same. With forged checks it must only not panic.
func FuzzIndex(f *testing.F) {
	m := memOf(f, indexedStore)
	w := truthOf(f, m)
	if s, _ := w.loadIndex(f, vfstest.ReadFile(m, rowsPath), vfstest.ReadFile(m, summariesPath)); len(s.index.byID) != len(w.rows) || len(w.rows) == 0 {
		f.Fatalf("%d of %d checkpoints are in the index", len(s.index.byID), len(w.rows))
	}
	f.Fuzz(func(t *testing.T, rows, sums []byte, forged bool) {
		if forged {
			rows = reseal(rows)
		}
		s, x := w.loadIndex(t, rows, sums)
		for _, at := range x.known() {
			x.rowOf(map[checkpoint.ID]int{{}: at}, &listed{sum: string(make([]byte, hexBytes))})
		}
		if forged {
			return
		}
		w.believed(t, s)
		w.trimmed(t, s, x)
	})
}

// believed checks the rows in memory and the summaries that they lead to.
func (w *truth) believed(t *testing.T, s *dirStore) {
	t.Helper()
	for id, at := range s.index.byID {
		got, want := *s.index.row(at), w.rows[id]
		if got.sequence != want.sequence || got.at != want.at || got.bytes != want.bytes || got.trigger != want.trigger ||
			got.cause != want.cause || got.flags&rowUnread == 0 && got.flags != want.flags {
			t.Fatalf("the files say %+v, the index %+v", want, got)
		}
		ref := s.summaryRef(at)
		if ref.n == 0 {
			continue
		}
		if left, err := s.readSummaries([]*summaryRef{&ref}); err != nil || len(left) == 0 && string(ref.open) != w.sums[id] {
			t.Fatalf("number %d is shown as %s: %v", got.sequence, ref.open, err)
		}
	}
}

// trimmed writes the index anew and loads that.
func (w *truth) trimmed(t *testing.T, s *dirStore, x *indexImage) {
	t.Helper()
	if x.end == 0 {
		return
	}
	if err := s.createFile(rowsPath, x.data[:x.end]); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.log.rows, err = s.fs.Open(rowsPath, os.O_RDWR); err != nil {
		t.Fatal(err)
	}
	s.log.rowsEnd = int64(x.end)
	was := map[checkpoint.ID]row{}
	for id, at := range s.index.byID {
		was[id] = *s.index.row(at)
	}
	n := &trimmed{s: s}
	if err := n.write(); err != nil {
		t.Fatal(err)
	}
	if err := n.take(); err != nil {
		t.Fatal(err)
	}
	w.believed(t, s)
	mem := s.fs.(*vfs.Mem)
	again, _ := w.loadIndex(t, vfstest.ReadFile(mem, rowsPath), vfstest.ReadFile(mem, summariesPath))
	w.believed(t, again)
	if len(again.index.byID) != len(was) {
		t.Fatalf("%d checkpoints, %d before it was written anew", len(again.index.byID), len(was))
	}
	for id, at := range again.index.byID {
		if got := again.index.row(at); got.sequence != was[id].sequence || got.notes != was[id].notes {
			t.Fatalf("%+v, before it was written anew %+v", got, was[id])
		}
	}
}

// entries are the letters of an index's entries, and where each ends.
func entries(rows []byte) (letters []byte, ends []int) {
	for at := 0; at < len(rows) && rowSizes[rows[at]] > 0; {
		letters = append(letters, rows[at])
		at += rowSizes[rows[at]]
		ends = append(ends, at)
	}
	return letters, ends
}

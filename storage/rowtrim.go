package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// count and uncount keep in mind how much of the log is not dead; its lock is held.
func (l *rowLog) count(rows int, sums int64) {
	l.live, l.sumLive = l.live+rows, l.sumLive+sums
}

func (l *rowLog) uncount(rows int) {
	if rows = min(rows, l.live); rows > 0 {
		l.sumLive -= l.sumLive / int64(l.live) * int64(rows)
		l.live -= rows
	}
}

// mostlyDead says that writing the log anew would make it less than half as long.
func (l *rowLog) mostlyDead(sessions int, slack int64) bool {
	live := int64(l.live*rowSizes[rowAdd]+sessions*(rowSizes[rowSession]+rowSizes[rowPin])) + l.sumLive
	dead := l.rowsEnd + l.sumEnd - l.sums.base - live
	return dead > live && dead > slack
}

// trimIndex writes the index anew when most of it says nothing any more. It is the
// publisher's, who alone adds rows; creates and reads go on.
func (s *dirStore) trimIndex() {
	l := &s.log
	if !s.allLoaded() {
		return
	}
	s.mu.RLock()
	sessions := len(s.index.bySess)
	s.mu.RUnlock()
	l.mu.Lock()
	due := l.rows != nil && l.mostlyDead(sessions, s.opts.IndexSlack) && time.Now().After(l.rest)
	l.mu.Unlock()
	if !due {
		return
	}
	t := &trimmed{s: s}
	err := t.write()
	if err == nil {
		err = t.take()
	}
	if err == nil {
		return
	}
	l.rest = time.Now().Add(time.Minute)
	if err = errors.Join(err, t.drop()); !errors.Is(err, errLate) {
		s.opts.Logger.Warn("the index is mostly dead and cannot be written anew; it is tried again", "error", err)
	}
}

var errLate = errors.New("the store is being closed")

// trimmed is the index in the making: what a start would take from the old one, in the
// same order, so that each pin still says of the rows before it what it said.
type trimmed struct {
	s        *dirStore
	x        *indexImage
	owner    []*session // by slot; nil: it is gone
	slot     []uint32   // the new one, by slot
	slots    uint32
	deleted  map[uint64]bool
	notes    map[checkpoint.ID]uint16
	moves    []move
	live     int
	rows     vfs.File
	sums     vfs.File
	rowsPath string
	sumsPath string
	rowsEnd  int64
	sumEnd   int64
	flushed  int64 // of both
}

// move is where a row's summary was, and where it is in the new file.
type move struct {
	row      rowID
	from, to int64
}

const (
	trimRows  = 512
	trimBytes = 1 << 20
	trimFlush = 4 << 20 // a flush of more would hold up the journal's
)

// write writes both files whole, under names in tmp/.
func (t *trimmed) write() (err error) {
	if err := t.read(); err != nil {
		return err
	}
	for _, f := range []struct {
		file *vfs.File
		path *string
	}{{&t.rows, &t.rowsPath}, {&t.sums, &t.sumsPath}} {
		path := "tmp/" + checkpoint.NewID().String()
		if *f.file, err = t.s.fs.Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
		*f.path = path
	}
	if err := t.add(appendStart(nil, t.s.storeID), nil); err != nil {
		return err
	}
	var batch []int
	rows, bytes := 0, uint32(0)
	for at := rowSizes[rowStart]; at < t.x.end; at += rowSizes[t.x.data[at]] {
		if !t.keeps(at) {
			continue
		}
		batch = append(batch, at)
		if t.x.data[at] == rowAdd {
			_, r, _ := rowEntry(t.x.data[at : at+rowSizes[rowAdd]])
			rows, bytes = rows+1, bytes+r.sumLen
		}
		if rows == trimRows || bytes > trimBytes {
			if err := t.copy(batch); err != nil {
				return err
			}
			batch, rows, bytes = batch[:0], 0, 0
		}
	}
	if err := t.copy(batch); err != nil {
		return err
	}
	return t.flush()
}

// read takes the old rows apart, and finds whose they are.
func (t *trimmed) read() error {
	s, l := t.s, &t.s.log
	t.x = &indexImage{pins: map[[32]byte]pin{}, data: make([]byte, l.rowsEnd)}
	if n, err := l.rows.ReadAt(t.x.data, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(t.x.data)) {
		return err
	}
	t.x.scan(rowSizes[rowStart])
	if t.x.end != len(t.x.data) {
		return fmt.Errorf("%s is damaged at byte %d", rowsPath, t.x.end)
	}
	t.x.used = make([]int, len(t.x.slots))
	t.owner, t.slot = make([]*session, len(t.x.slots)), make([]uint32, len(t.x.slots))
	s.mu.RLock()
	for id, sess := range s.index.bySess {
		if slot := int(sess.logSlot) - 1; slot >= 0 && slot < len(t.owner) && t.x.slots[slot] == id {
			t.owner[slot] = sess
		}
	}
	s.mu.RUnlock()
	for _, p := range t.x.pins {
		if t.owner[p.slot] != nil {
			t.x.used[p.slot] = max(t.x.used[p.slot], p.at)
		}
	}
	t.deleted, t.notes = t.x.settled()
	return nil
}

// keeps says whether an entry goes over. What is behind its session's last pin does as it is.
func (t *trimmed) keeps(at int) bool {
	e := t.x.data[at:]
	slot := binary.LittleEndian.Uint32(e[1:])
	switch used := t.x.used[slot]; {
	case t.owner[slot] == nil:
		return false
	case e[0] == rowSession || at >= used:
		return true
	case e[0] == rowAdd:
		return !t.deleted[binary.LittleEndian.Uint64(e[21:])]
	}
	return false
}

// copy takes a batch of entries over, with the summaries that memory knows the place of.
func (t *trimmed) copy(batch []int) error {
	s := t.s
	s.qmu.Lock()
	late := s.late()
	s.qmu.Unlock()
	if late {
		return errLate
	}
	refs := make([]summaryRef, len(batch))
	ids := make([]rowID, len(batch))
	var order []*summaryRef
	s.mu.RLock()
	for i, at := range batch {
		if t.x.data[at] != rowAdd {
			continue
		}
		_, r, _ := rowEntry(t.x.data[at : at+rowSizes[rowAdd]])
		if id, ok := s.index.byID[r.id]; ok && s.index.row(id).sequence == r.sequence {
			if refs[i], ids[i] = s.summaryRef(id), id; refs[i].n > 0 {
				order = append(order, &refs[i])
			}
		}
	}
	s.mu.RUnlock()
	if _, err := s.readSummaries(order); err != nil {
		return err
	}
	var rows []byte
	var sums [][]byte
	off := t.sumEnd
	for i, at := range batch {
		e := t.x.data[at : at+rowSizes[t.x.data[at]]]
		slot := binary.LittleEndian.Uint32(e[1:])
		if e[0] == rowSession {
			t.slot[slot] = t.slots
			t.slots++
		}
		if e[0] != rowAdd {
			from := len(rows)
			rows = append(rows, e[:len(e)-4]...)
			binary.LittleEndian.PutUint32(rows[from+1:], t.slot[slot])
			rows = seal(rows, from)
			continue
		}
		_, r, sum := rowEntry(e)
		if n, ok := t.notes[r.id]; ok && at < t.x.used[slot] {
			r.notes = n
		}
		r.sumOff, r.sumLen = 0, 0 // the body tells it
		if ref := &refs[i]; ref.n > 0 && ref.ended {
			r.sumOff, r.sumLen, r.sumCheck = off, ref.n, ref.check
			t.moves = append(t.moves, move{ids[i], ref.off, off})
			sums = append(sums, ref.open[:r.sumSize()])
			off += r.sumSize()
		}
		rows = appendRowStart(rows, t.slot[slot], &r, string(sum))
		t.live++
	}
	return t.add(rows, sums)
}

func (t *trimmed) add(rows []byte, sums [][]byte) error {
	n, err := t.sums.WriteAt(t.sumEnd, sums...)
	if err == nil {
		_, err = t.rows.WriteAt(t.rowsEnd, rows)
	}
	t.sumEnd, t.rowsEnd = t.sumEnd+int64(n), t.rowsEnd+int64(len(rows))
	if err == nil && t.rowsEnd+t.sumEnd-t.flushed > trimFlush {
		err = t.flush()
	}
	return err
}

func (t *trimmed) flush() error {
	t.flushed = t.rowsEnd + t.sumEnd
	if err := t.sums.Datasync(); err != nil {
		return err
	}
	return t.rows.Datasync()
}

// take puts the new index in the old one's place. The old rows go first: a death between
// leaves none, and never rows beside the summaries of others.
func (t *trimmed) take() error {
	s, l := t.s, &t.s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.fs.Remove(rowsPath); err != nil {
		return err
	}
	err := s.fs.SyncDir("index")
	for _, n := range [][2]string{{t.sumsPath, summariesPath}, {t.rowsPath, rowsPath}} {
		if err == nil {
			err = s.fs.Rename(n[0], n[1])
		}
		if err == nil {
			err = s.fs.SyncDir("index")
		}
	}
	if err != nil {
		s.giveIndexUp()
		return err
	}
	err = l.rows.Close()
	l.rows, l.rowsEnd, l.nextSlot, l.dirty = t.rows, t.rowsEnd, t.slots, false
	l.live, l.sumLive = t.live, t.sumEnd
	base := (l.sumEnd + sumBlock - 1) / sumBlock * sumBlock
	s.mu.Lock()
	l.old, l.sums = l.sums, &sumFile{base: base, file: t.sums}
	s.mu.Unlock()
	l.sumEnd = base + t.sumEnd
	t.rows, t.sums = nil, nil
	for slot, sess := range t.owner {
		if sess != nil {
			sess.logSlot = t.slot[slot] + 1
		}
	}
	const few = 1024 // creates do not wait for more
	for left := t.moves; len(left) > 0; left = left[min(few, len(left)):] {
		s.mu.Lock()
		for _, m := range left[:min(few, len(left))] {
			if r := s.index.row(m.row); r.sumLen > 0 && r.sumOff == m.from { // no place is used twice
				r.sumOff = base + m.to
			}
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	old := l.old
	l.old = nil // what still leads there is read from the bodies
	s.mu.Unlock()
	if err = errors.Join(err, old.close()); err != nil {
		s.opts.Logger.Warn("the old index cannot be closed", "error", err)
	}
	return nil
}

// drop removes what did not come about.
func (t *trimmed) drop() error {
	var errs []error
	for _, f := range []struct {
		file vfs.File
		path string
	}{{t.rows, t.rowsPath}, {t.sums, t.sumsPath}} {
		if f.file != nil {
			errs = append(errs, f.file.Close(), ignoreMissing(t.s.fs.Remove(f.path)))
		}
	}
	return errors.Join(errs...)
}

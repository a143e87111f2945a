package storage

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"hash/crc32"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// The index keeps on disk what a start would otherwise read every checkpoint for. It is
// two files that only grow: rows, of fixed entries with a check each, and the rendered
// summaries, whose place, length and check stand in the rows. A pin says that the rows
// before it are all of a session as its session.json stands, so an index that is cut,
// old or damaged is used as far as it agrees with the sessions, and no further.
const (
	rowsPath      = "index/rows"
	summariesPath = "index/summaries"

	rowStart   = 'H' // version, store
	rowSession = 'S' // slot, session
	rowAdd     = 'R' // slot, id, number, time, bytes, notes, trigger, cause, flags, place of the summary, checksum
	rowDelete  = 'D' // slot, id, number
	rowNotes   = 'N' // slot, id, count
	rowPin     = 'P' // slot, checksum of session.json, length and hash of the manifest, settings

	rowsVersion   = 1
	hashStateSize = 108 // of a marshaled SHA-256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rowSizes are those of whole entries: kind, content, check.
var rowSizes = [256]int{
	rowStart: 1 + 1 + 16 + 4, rowSession: 1 + 4 + 16 + 4, rowAdd: 1 + 69 + 4, rowDelete: 1 + 4 + 16 + 8 + 4,
	rowNotes: 1 + 4 + 16 + 2 + 4, rowPin: 1 + 4 + 32 + 8 + 32 + hashStateSize + 4,
}

// rowLog is the writing end of the index. Its lock comes after round and before mu.
type rowLog struct {
	mu       sync.Mutex
	rows     vfs.File // nil: nothing can be kept, the next start reads the files
	sums     *sumFile
	old      *sumFile // the one that sums replaces, while rows still lead to it
	rowsEnd  int64
	sumEnd   int64
	nextSlot uint32
	dirty    bool
	memory   bool      // the summaries are in memory: the medium takes no writes
	live     int       // checkpoints that rows tells of
	sumLive  int64     // what their summaries take, more or less
	rest     time.Time // until then it is not written anew: that went wrong
}

// seal adds the check of the entry that starts at from.
func seal(b []byte, from int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

func appendStart(b []byte, store checkpoint.ID) []byte {
	from := len(b)
	b = append(b, rowStart, rowsVersion)
	return seal(append(b, store[:]...), from)
}

func appendSlot(b []byte, slot uint32, id checkpoint.ID) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(append(b, rowSession), slot)
	return seal(append(b, id[:]...), from)
}

func appendRow(b []byte, slot uint32, r *row, sum string) []byte {
	var start [8]byte
	_, _ = hex.Decode(start[:], []byte(sum)[:min(len(sum), 16)]) // a damaged one is compared and found different
	return appendRowStart(b, slot, r, string(start[:]))
}

// appendRowStart takes the first bytes of the checksum as they stand in an entry.
func appendRowStart(b []byte, slot uint32, r *row, sum string) []byte {
	from := len(b)
	le := binary.LittleEndian
	b = le.AppendUint32(append(b, rowAdd), slot)
	b = append(b, r.id[:]...)
	b = le.AppendUint64(b, r.sequence)
	b = le.AppendUint64(b, uint64(r.at))
	b = le.AppendUint32(b, r.bytes)
	b = le.AppendUint16(b, r.notes)
	b = append(b, r.trigger, r.cause, r.flags&(rowFiles|rowCorrupt))
	b = le.AppendUint64(b, uint64(r.sumOff))
	b = le.AppendUint32(b, r.sumLen)
	b = le.AppendUint32(b, r.sumCheck)
	return seal(append(b, sum...), from)
}

// rowEntry is appendRowStart read back.
func rowEntry(e []byte) (slot uint32, r row, sum []byte) {
	le := binary.LittleEndian
	slot, e = le.Uint32(e[1:]), e[5:]
	copy(r.id[:], e)
	e = e[16:]
	r.sequence, r.at, r.bytes, r.notes = le.Uint64(e), int64(le.Uint64(e[8:])), le.Uint32(e[16:]), le.Uint16(e[20:])
	r.trigger, r.cause, r.flags = e[22], e[23], e[24]
	e = e[25:]
	r.sumOff, r.sumLen, r.sumCheck = int64(le.Uint64(e)), le.Uint32(e[8:]), le.Uint32(e[12:])
	return slot, r, e[16:24]
}

func appendDelete(b []byte, slot uint32, id checkpoint.ID, number uint64) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(append(b, rowDelete), slot)
	b = append(b, id[:]...)
	return seal(binary.LittleEndian.AppendUint64(b, number), from)
}

func appendNotes(b []byte, slot uint32, id checkpoint.ID, count uint16) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(append(b, rowNotes), slot)
	b = append(b, id[:]...)
	return seal(binary.LittleEndian.AppendUint16(b, count), from)
}

func appendPin(b []byte, slot uint32, d *sessionDisk) []byte {
	state, err := d.manifest.(interface{ MarshalBinary() ([]byte, error) }).MarshalBinary()
	if err != nil || len(state) != hashStateSize {
		return b // without a pin the manifest is read at the next start
	}
	from := len(b)
	b = binary.LittleEndian.AppendUint32(append(b, rowPin), slot)
	b = append(b, d.sum[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.bytes))
	b = append(b, d.settings[:]...)
	return seal(append(b, state...), from)
}

// pin is appendPin read back, with where it stands.
type pin struct {
	at    int
	slot  uint32
	disk  sessionDisk
	state []byte
}

func pinEntry(e []byte, at int) pin {
	p := pin{at: at, slot: binary.LittleEndian.Uint32(e[1:])}
	copy(p.disk.sum[:], e[5:])
	p.disk.bytes = int64(binary.LittleEndian.Uint64(e[37:]))
	copy(p.disk.settings[:], e[45:])
	p.state = e[77 : 77+hashStateSize]
	return p
}

func restoreHash(h hash.Hash, state []byte) bool {
	u, ok := h.(interface{ UnmarshalBinary([]byte) error })
	return ok && u.UnmarshalBinary(state) == nil
}

// openIndex opens the files behind what was read of them, or begins them anew.
func (s *dirStore) openIndex(x *indexImage) error {
	l := &s.log
	var err error
	if l.rows, err = s.fs.Open(rowsPath, os.O_RDWR|os.O_CREATE); err == nil {
		var f vfs.File
		if f, err = s.fs.Open(summariesPath, os.O_RDWR|os.O_CREATE); err == nil {
			l.sums = &sumFile{file: f}
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENXIO), errors.Is(err, errStrange):
		return s.readIndexOnly(x)
	default:
		return err
	}
	l.rowsEnd, l.nextSlot = int64(x.end), uint32(len(x.slots))
	if l.sumEnd, err = l.sums.file.Size(); err != nil {
		return err
	}
	if x.end > 0 {
		return l.cut(int64(len(x.data)))
	}
	l.sumEnd = 0
	if err := errors.Join(l.sums.file.Truncate(0), l.rows.Truncate(0)); err != nil {
		return err
	}
	start := appendStart(nil, s.storeID)
	if _, err := l.rows.WriteAt(0, start); err != nil {
		return err
	}
	l.rowsEnd, l.dirty = int64(len(start)), true
	return s.fs.SyncDir("index")
}

// cut takes away what is not whole, so that nothing of it is ever read behind what comes.
func (l *rowLog) cut(size int64) error {
	if size == l.rowsEnd {
		return nil
	}
	if err := l.rows.Truncate(l.rowsEnd); err != nil {
		return err
	}
	return l.rows.Sync()
}

// readIndexOnly is for a medium that takes no writes: new summaries stay in memory.
func (s *dirStore) readIndexOnly(x *indexImage) error {
	l := &s.log
	if l.rows != nil {
		if err := l.rows.Close(); err != nil {
			return err
		}
		l.rows = nil
	}
	if x.end > 0 {
		if f, err := s.fs.Open(summariesPath, os.O_RDONLY); err == nil {
			l.sums = &sumFile{file: f}
			return nil
		}
	}
	l.memory = true
	f, err := vfs.NewMem().Open("summaries", os.O_RDWR|os.O_CREATE)
	l.sums = &sumFile{file: f}
	return err
}

// entry is appendRow for a row in memory, whose place is not that in the file.
func (l *rowLog) entry(b []byte, slot uint32, r row, sum string) []byte {
	if r.sumOff -= l.sums.base; r.sumOff < 0 {
		r.sumOff, r.sumLen = 0, 0
	}
	return appendRow(b, slot, &r, sum)
}

// place says in r where its summary, with plainEnd, will be, and where the next one starts.
func (l *rowLog) place(r *row, sum []byte, off int64) int64 {
	r.sumOff, r.sumLen = off, uint32(len(sum))
	r.sumCheck = crc32.Update(crc32.Checksum(sum, castagnoli), castagnoli, []byte(plainEnd))
	return off + int64(len(sum)+len(plainEnd))
}

// write appends to both files; an error leaves them as if nothing was added. The log's lock is held.
func (l *rowLog) write(sums [][]byte, rows []byte) error {
	var n int64
	for _, b := range sums {
		n += int64(len(b))
	}
	if n > 0 {
		if _, err := l.sums.file.WriteAt(l.sumEnd-l.sums.base, sums...); err != nil {
			return err
		}
	}
	if l.rows != nil && len(rows) > 0 {
		if _, err := l.rows.WriteAt(l.rowsEnd, rows); err != nil {
			return err
		}
		l.rowsEnd += int64(len(rows))
	}
	l.sumEnd += n
	l.dirty = true
	return nil
}

// slotOf gives a session its place in the log. The log's lock is held.
func (l *rowLog) slotOf(sess *session, b []byte) ([]byte, uint32) {
	if sess.logSlot == 0 {
		l.nextSlot++
		sess.logSlot = l.nextSlot
		b = appendSlot(b, sess.logSlot-1, sess.meta.ID)
	}
	return b, sess.logSlot - 1
}

// appendIndex adds a published batch.
func (s *dirStore) appendIndex(b *batch) error {
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []byte
	var fresh []*session
	slot := func(sess *session) (n uint32) {
		if sess.logSlot == 0 {
			fresh = append(fresh, sess)
		}
		rows, n = l.slotOf(sess, rows)
		return n
	}
	sums := make([][]byte, 0, len(b.files))
	placed := make([]row, len(b.files))
	from := l.sumEnd
	off := from
	s.mu.RLock()
	for i := range b.files {
		f := &b.files[i]
		id, ok := s.index.byID[f.id]
		if !ok || s.index.pending[id] != f.p || f.session.deleted {
			continue
		}
		r := &placed[i]
		*r = *s.index.row(id)
		r.notes = 0 // counted by the annotations' own entries
		off = l.place(r, f.summary, off)
		sums = append(sums, f.summary, []byte(plainEnd))
		rows = l.entry(rows, slot(f.session.s), *r, f.p.sum)
	}
	s.mu.RUnlock()
	live, gone := len(sums)/2, 0
	for i := range b.items {
		it := &b.items[i]
		if it.rec.Type == recDelete && it.session != nil && it.session.logSlot != 0 {
			for k, id := range it.rec.IDs {
				rows = appendDelete(rows, it.session.logSlot-1, id, it.rec.Numbers[k])
			}
			gone += len(it.rec.IDs)
		}
		if it.rec.Type == recSessionDelete && it.session.logSlot != 0 {
			gone += it.rec.Count
		}
	}
	for _, j := range b.sessions {
		if j.deleted {
			continue
		}
		n := slot(j.s)
		for id, count := range j.noted {
			rows = appendNotes(rows, n, id, uint16(count))
		}
		if !j.s.partial {
			rows = appendPin(rows, n, &j.s.disk)
		}
	}
	if err := l.write(sums, rows); err != nil {
		for _, sess := range fresh {
			sess.logSlot = 0
		}
		return err
	}
	l.count(live, off-from)
	l.uncount(gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.files {
		f := &b.files[i]
		if id, ok := s.index.byID[f.id]; ok && s.index.pending[id] == f.p && placed[i].sumLen > 0 {
			r := s.index.row(id)
			r.sumOff, r.sumLen, r.sumCheck = placed[i].sumOff, placed[i].sumLen, placed[i].sumCheck
		}
	}
	return nil
}

// syncIndex makes the index durable before the journal that could replace it goes. When
// that fails, the index is given up: the next start reads the files.
func (s *dirStore) syncIndex() {
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dirty || l.rows == nil {
		return
	}
	l.dirty = false
	err := l.sums.file.Datasync()
	if err == nil {
		err = l.rows.Datasync()
	}
	if err == nil {
		return
	}
	s.opts.Logger.Warn("the index cannot be flushed; the next start reads the files", "error", err)
	s.giveIndexUp()
}

// giveIndexUp is for when nobody knows what the next start would find. The log's lock is held.
func (s *dirStore) giveIndexUp() {
	l := &s.log
	err := errors.Join(l.rows.Close(), ignoreMissing(s.fs.Remove(rowsPath)))
	l.rows = nil
	if err != nil {
		s.opts.Logger.Warn("the index cannot be removed", "error", err)
	}
}

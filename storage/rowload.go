package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// indexImage is index/rows as it was found: what is whole from its start on.
type indexImage struct {
	data   []byte
	end    int // of the whole entries
	slots  []checkpoint.ID
	pins   map[[sha256.Size]byte]pin
	others []int // where deletions and counts of notes stand
	rows   int
	used   []int // by slot: rows before this place are the session's; 0: none
}

// readIndex reads it; it is whole when wait returns. Nothing in it is an error: what it does
// not tell, the files do.
func (s *dirStore) readIndex() (x *indexImage, wait func(), err error) {
	x, wait = &indexImage{pins: map[[sha256.Size]byte]pin{}}, func() {}
	if s.opts.fromFiles {
		return x, wait, nil
	}
	data, err := s.readAll(rowsPath)
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOENT), errors.Is(err, errStrange), errors.Is(err, syscall.EIO):
		return x, wait, nil
	default:
		return x, wait, err
	}
	var parsing sync.WaitGroup
	parsing.Go(func() { x.parse(data, s.storeID) })
	return x, parsing.Wait, nil
}

// parse takes what is whole of the rows of this store.
func (x *indexImage) parse(data []byte, store checkpoint.ID) {
	n := rowSizes[rowStart]
	if len(data) < n || string(data[:n]) != string(appendStart(nil, store)) {
		return
	}
	x.data = data
	x.scan(n)
	x.used = make([]int, len(x.slots))
}

func (x *indexImage) scan(at int) {
	le := binary.LittleEndian
	for at < len(x.data) {
		n := rowSizes[x.data[at]]
		if n == 0 || at+n > len(x.data) {
			break
		}
		e := x.data[at : at+n]
		if crc32.Checksum(e[:n-4], castagnoli) != le.Uint32(e[n-4:]) {
			break
		}
		slot := int(le.Uint32(e[1:]))
		if e[0] == rowSession && slot != len(x.slots) || e[0] != rowSession && slot >= len(x.slots) {
			break
		}
		switch e[0] {
		case rowSession:
			x.slots = append(x.slots, checkpoint.ID(e[5:21]))
		case rowAdd:
			x.rows++
		case rowDelete, rowNotes:
			x.others = append(x.others, at)
		case rowPin:
			p := pinEntry(e, at)
			x.pins[p.disk.sum] = p
		default:
			return
		}
		at += n
		x.end = at
	}
}

// use takes a session's rows from the index when its session.json, with this checksum, is
// the one that they were pinned to.
func (x *indexImage) use(id checkpoint.ID, sum string, manifestBytes int64, more bool) (pin, bool) {
	var key [sha256.Size]byte
	if n, err := hex.Decode(key[:], []byte(sum)); err != nil || n != len(key) {
		return pin{}, false
	}
	p, ok := x.pins[key]
	if !ok || x.slots[p.slot] != id || manifestBytes != p.disk.bytes && !(more && manifestBytes > p.disk.bytes) {
		return pin{}, false
	}
	p.disk.manifest, p.disk.made = sha256.New(), true
	return p, restoreHash(p.disk.manifest, p.state)
}

// settled is what deletions and counts of notes say of the rows that are used.
func (x *indexImage) settled() (deleted map[uint64]bool, notes map[checkpoint.ID]uint16) {
	deleted, notes = map[uint64]bool{}, map[checkpoint.ID]uint16{} // a number is used once, an id may be again
	for _, at := range x.others {
		e := x.data[at:]
		if at >= x.used[binary.LittleEndian.Uint32(e[1:])] {
			continue
		}
		id := checkpoint.ID(e[5:21])
		if e[0] == rowDelete {
			deleted[binary.LittleEndian.Uint64(e[21:])] = true
			delete(notes, id)
		} else {
			notes[id] = binary.LittleEndian.Uint16(e[21:])
		}
	}
	return deleted, notes
}

// load puts the rows of the sessions that use found into memory.
func (x *indexImage) load(s *dirStore, sessions []*session) {
	deleted, notes := x.settled()
	kept := make([]int, 0, x.rows)
	for at := rowSizes[rowStart]; at < x.end; at += rowSizes[x.data[at]] {
		if x.data[at] != rowAdd || at >= x.used[binary.LittleEndian.Uint32(x.data[at+1:])] ||
			len(deleted) > 0 && deleted[binary.LittleEndian.Uint64(x.data[at+21:])] {
			continue
		}
		kept = append(kept, at)
	}
	// The map takes as long as all else: the two are made beside each other.
	ids := make(map[checkpoint.ID]rowID, len(kept))
	var mapping sync.WaitGroup
	mapping.Go(func() {
		for i, at := range kept {
			ids[checkpoint.ID(x.data[at+5:at+21])] = rowID(i)
		}
	})
	s.index.order = make([]rowID, 0, len(kept))
	for _, at := range kept {
		slot, r, _ := rowEntry(x.data[at : at+rowSizes[rowAdd]])
		if r.flags&rowCorrupt != 0 { // unless quarantine still says so, the file tells
			r.flags, r.sumLen = r.flags&^rowCorrupt|rowUnread, 0
		}
		if len(notes) > 0 {
			if n, ok := notes[r.id]; ok {
				r.notes = n
			}
		}
		s.index.append(sessions[slot], r)
		s.lastAt = max(s.lastAt, r.at)
		s.log.count(1, r.sumSize())
	}
	mapping.Wait()
	s.index.byID = ids
	if len(ids) < len(kept) {
		s.index.dropOlder(sessions)
	}
}

// known finds rows of sessions that are read from their files: what the index says of a
// checkpoint holds when the manifest names the same number and checksum.
func (x *indexImage) known() map[checkpoint.ID]int {
	m := map[checkpoint.ID]int{}
	for at := rowSizes[rowStart]; at < x.end; at += rowSizes[x.data[at]] {
		if x.data[at] == rowAdd && x.used[binary.LittleEndian.Uint32(x.data[at+1:])] == 0 {
			m[checkpoint.ID(x.data[at+5:at+21])] = at
		}
	}
	return m
}

// rowOf is a row of known, if it is the one that a manifest line means.
func (x *indexImage) rowOf(known map[checkpoint.ID]int, want *listed) (row, bool) {
	at, ok := known[want.id]
	if !ok || len(want.sum) != hexBytes {
		return row{}, false
	}
	_, r, sum := rowEntry(x.data[at : at+rowSizes[rowAdd]])
	start, err := hex.DecodeString(want.sum[:16])
	return r, err == nil && bytes.Equal(start, sum) && r.sequence == want.number && int64(r.bytes) == want.bytes && r.flags&rowCorrupt == 0
}

// append puts a row behind all others; sort must follow.
func (x *index) append(s *session, r row) rowID {
	r.session = s.slot
	id := x.place()
	*x.row(id) = r
	x.order = append(x.order, id)
	s.rows = append(s.rows, id)
	x.bytes += int64(r.bytes)
	return id
}

// load is add for many rows in any order; sort must follow. The later one of an id counts.
func (x *index) load(s *session, r row) {
	old, ok := x.byID[r.id]
	if !ok {
		x.byID[r.id] = x.append(s, r)
		return
	}
	r.session = s.slot
	x.bytes += int64(r.bytes) - int64(x.row(old).bytes)
	*x.row(old) = r
}

// dropOlder takes away rows that a later one of their id stands for: a healed one stands twice.
func (x *index) dropOlder(sessions []*session) {
	older := func(id rowID) bool { return x.byID[x.row(id).id] != id }
	for _, s := range sessions {
		if s != nil {
			s.rows = slices.DeleteFunc(s.rows, older)
		}
	}
	x.order = slices.DeleteFunc(x.order, func(id rowID) bool {
		if !older(id) {
			return false
		}
		x.bytes -= int64(x.row(id).bytes)
		x.free = append(x.free, id)
		return true
	})
}

// sort puts the lists in order after load.
func (x *index) sort() {
	byNumber := func(a, b rowID) int {
		p, q := x.row(a).sequence, x.row(b).sequence
		switch {
		case p < q:
			return -1
		case p > q:
			return 1
		}
		return 0
	}
	order := func(list []rowID) {
		if !slices.IsSortedFunc(list, byNumber) {
			slices.SortFunc(list, byNumber)
		}
	}
	order(x.order)
	for _, s := range x.sessions {
		if s != nil {
			order(s.rows)
			x.time(s)
		}
	}
}

// time finds out whether a session's times rise with its numbers.
func (x *index) time(s *session) {
	s.timed = slices.IsSortedFunc(s.rows, func(a, b rowID) int {
		p, q := x.row(a), x.row(b)
		if p.at > q.at || (p.flags|q.flags)&rowUnread != 0 {
			return 1
		}
		return -1
	})
}

// pinRows writes a session's rows into the log, in a place of their own, and pins them.
func (s *dirStore) pinRows(load *sessionLoad) error {
	s.round.Lock()
	defer s.round.Unlock()
	s.mu.Lock()
	sess := s.index.bySess[load.id]
	if sess != nil {
		s.index.time(sess)
	}
	s.mu.Unlock()
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if sess == nil || sess != load.s || l.rows == nil || sess.disk.manifest == nil || sess.disk.bytes == 0 {
		return nil
	}
	fresh := sess.logSlot == 0
	b, slot := l.slotOf(sess, nil)
	s.mu.RLock()
	sums := make(map[checkpoint.ID]string, len(load.live))
	for _, r := range load.live {
		sums[r.id] = r.sum
	}
	live, bytes := 0, int64(0)
	for _, id := range sess.rows {
		r := s.index.row(id)
		if s.index.pending[id] != nil || r.flags&rowUnread != 0 {
			continue
		}
		sum, ok := sums[r.id]
		if !ok {
			continue // it came since, and has its entry already
		}
		stored := *r
		stored.notes -= uint16(len(s.notes[r.id]))
		b = l.entry(b, slot, stored, sum)
		live, bytes = live+1, bytes+stored.sumSize()
	}
	s.mu.RUnlock()
	b = appendPin(b, slot, &sess.disk)
	if err := l.write(nil, b); err != nil {
		if fresh {
			sess.logSlot = 0
		}
		return err
	}
	l.count(live, bytes)
	sess.partial = false
	return nil
}

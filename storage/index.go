package storage

import (
	"slices"
	"sort"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// row is what memory holds of a checkpoint: 64 bytes, and some 50 more in the map and
// the two lists that lead to it. Summaries stay on disk.
type row struct {
	id       checkpoint.ID
	sequence uint64
	at       int64  // Unix nanoseconds
	sumOff   int64  // its summary in index/summaries
	sumLen   uint32 // 0: it is in pending, or in the body only
	sumCheck uint32
	bytes    uint32 // of its line
	session  uint32 // in index.sessions
	notes    uint16
	trigger  uint8
	cause    uint8
	flags    uint8
}

// sumSize is what its summary takes in the index.
func (r *row) sumSize() int64 {
	if r.sumLen == 0 {
		return 0
	}
	return int64(r.sumLen) + int64(len(plainEnd))
}

const (
	rowCorrupt = 1 << iota // its file is damaged or gone
	rowFiles               // it names captured files
	rowUnread              // only what the manifest tells of it is known yet
)

const chunkRows = 256

// rowID says where a row is. Rows live in chunks, so that growing copies nothing.
type rowID uint32

// index is the store's memory. Only the committer changes it, under the store's lock.
type index struct {
	chunks   []*[chunkRows]row
	used     rowID
	free     []rowID
	byID     map[checkpoint.ID]rowID
	order    []rowID // by number, the whole store
	sessions []*session
	byKey    map[string]*session
	bySess   map[checkpoint.ID]*session
	pending  map[rowID]*pending
	bytes    int64
}

// session is one session in memory. Its rows are sorted by number.
type session struct {
	meta sessionMeta
	slot uint32
	// logSlot is its place in the log of rows, plus one; 0: none yet.
	logSlot uint32
	// partial says that the log does not hold all of its rows yet; guarded by round.
	partial bool
	rows    []rowID
	timed   bool // times rise with the numbers, so that they can be searched
	gone    bool

	disk sessionDisk // the publisher's
}

func newIndex() *index {
	return &index{
		byID: map[checkpoint.ID]rowID{}, byKey: map[string]*session{}, bySess: map[checkpoint.ID]*session{},
		pending: map[rowID]*pending{},
	}
}

func (x *index) row(r rowID) *row { return &x.chunks[r/chunkRows][r%chunkRows] }

func (x *index) addSession(m sessionMeta) *session {
	s := &session{meta: m, slot: uint32(len(x.sessions)), timed: true}
	x.sessions = append(x.sessions, s)
	x.bySess[m.ID] = s
	if m.Key != "" {
		x.byKey[m.Key] = s
	}
	return s
}

func (x *index) dropSession(s *session) {
	s.gone = true
	delete(x.bySess, s.meta.ID)
	if x.byKey[s.meta.Key] == s {
		delete(x.byKey, s.meta.Key)
	}
	x.sessions[s.slot] = nil
}

func (x *index) add(s *session, r row) rowID {
	id := x.place()
	r.session = s.slot
	*x.row(id) = r
	x.byID[r.id] = id
	x.order, _ = x.insert(x.order, id, r.sequence)
	var at int
	s.rows, at = x.insert(s.rows, id, r.sequence)
	if at > 0 && x.row(s.rows[at-1]).at > r.at || at+1 < len(s.rows) && x.row(s.rows[at+1]).at < r.at {
		s.timed = false
	}
	x.bytes += int64(r.bytes)
	return id
}

func (x *index) place() (id rowID) {
	if n := len(x.free); n > 0 {
		id, x.free = x.free[n-1], x.free[:n-1]
		return id
	}
	id = x.used
	if int(id/chunkRows) == len(x.chunks) {
		x.chunks = append(x.chunks, new([chunkRows]row))
	}
	x.used++
	return id
}

// insert keeps a list sorted; nearly always it appends.
func (x *index) insert(list []rowID, id rowID, sequence uint64) ([]rowID, int) {
	at := len(list)
	if at > 0 && x.row(list[at-1]).sequence > sequence {
		at = x.search(list, sequence)
	}
	return slices.Insert(list, at, id), at
}

// search finds the first row whose number is not below sequence.
func (x *index) search(list []rowID, sequence uint64) int {
	return sort.Search(len(list), func(i int) bool { return x.row(list[i]).sequence >= sequence })
}

// remove takes many rows of one session away in one pass over the lists.
func (x *index) remove(s *session, gone map[rowID]bool) {
	in := func(id rowID) bool { return gone[id] }
	s.rows = slices.DeleteFunc(s.rows, in)
	if len(gone) == 1 {
		for id := range gone {
			if i := x.search(x.order, x.row(id).sequence); i < len(x.order) && x.order[i] == id {
				x.order = slices.Delete(x.order, i, i+1)
			}
		}
	} else {
		x.order = slices.DeleteFunc(x.order, in)
	}
	for id := range gone {
		r := x.row(id)
		delete(x.byID, r.id)
		delete(x.pending, id)
		x.bytes -= int64(r.bytes)
		*r = row{}
		x.free = append(x.free, id)
	}
}

func (x *index) newest(s *session) *row {
	if len(s.rows) == 0 {
		return nil
	}
	return x.row(s.rows[len(s.rows)-1])
}

// view is the session as the wire shows it.
func (x *index) view(s *session) checkpoint.Session {
	v := s.meta.Session
	v.CheckpointCount = len(s.rows)
	if r := x.newest(s); r != nil {
		v.Last = &checkpoint.Last{ID: r.id, Sequence: r.sequence, Timestamp: time.Unix(0, r.at).UTC()}
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	return v
}

var triggers = []checkpoint.Trigger{checkpoint.Manual, checkpoint.Scheduled, checkpoint.Automatic}

func triggerCode(t checkpoint.Trigger) uint8 { return uint8(slices.Index(triggers, t) + 1) }

func causeCode(c checkpoint.Cause) uint8 { return uint8(slices.Index(checkpoint.Causes, c) + 1) }

func (r *row) causeName() checkpoint.Cause {
	if r.cause == 0 {
		return ""
	}
	return checkpoint.Causes[r.cause-1]
}

func (r *row) triggerName() checkpoint.Trigger {
	if r.trigger == 0 {
		return ""
	}
	return triggers[r.trigger-1]
}

package storage

import (
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// tx is a group in the making. Ops see what the ops before them did; the store does not
// until the group is durable.
type tx struct {
	s        *dirStore
	at       int64
	sequence uint64
	entries  []entry
	sessions map[checkpoint.ID]*txSession
	keys     map[string]checkpoint.ID
	rows     map[checkpoint.ID]txRow
	events   int
	numbers  map[uint64]bool // imported in this group
}

type txSession struct {
	status checkpoint.Status
	head   checkpoint.ID
	gone   bool
	made   []checkpoint.ID // in this group, oldest first
	meta   *sessionMeta
	grown  bool // made for imported checkpoints: its head follows them
}

type txRow struct {
	session  checkpoint.ID
	sequence uint64
	gone     bool
	draft    *draft
}

func (s *dirStore) newTx() *tx {
	s.mu.RLock()
	at := s.lastAt // a reader may have met a later one
	s.mu.RUnlock()
	return &tx{
		s: s, at: at, sequence: s.sequence, sessions: map[checkpoint.ID]*txSession{},
		keys: map[string]checkpoint.ID{}, rows: map[checkpoint.ID]txRow{}, numbers: map[uint64]bool{},
	}
}

// now is the time of the next change: later than that of any before it, so that times
// rise with the numbers.
func (t *tx) now() time.Time {
	t.at = max(t.s.opts.Now().UnixNano(), t.at+1)
	return time.Unix(0, t.at).UTC()
}

// maxNumber is the highest number there is: what reads JSON into doubles holds no higher one.
const maxNumber = 1<<53 - 1

// next gives the next number, unless an import or a damaged name has used up all of them.
func (t *tx) next() (uint64, error) {
	if t.sequence >= maxNumber {
		return 0, checkpoint.Errorf(checkpoint.KindInvalidState,
			"there is no number left after %d: delete what was imported with such high numbers, export the rest and import it into a new data directory", t.sequence)
	}
	t.sequence++
	return t.sequence, nil
}

func (t *tx) session(id checkpoint.ID) *txSession {
	if v, ok := t.sessions[id]; ok {
		if v.gone {
			return nil
		}
		return v
	}
	s := t.s.index.bySess[id]
	if s == nil {
		return nil
	}
	v := &txSession{status: s.meta.Status, head: s.meta.HeadID}
	t.sessions[id] = v
	return v
}

func (t *tx) checkpoint(id checkpoint.ID) (txRow, bool) {
	if v, ok := t.rows[id]; ok {
		return v, !v.gone
	}
	r, ok := t.s.index.byID[id]
	if !ok {
		return txRow{}, false
	}
	row := t.s.index.row(r)
	s := t.s.index.sessions[row.session]
	if v := t.sessions[s.meta.ID]; v != nil && v.gone {
		return txRow{}, false
	}
	return txRow{session: s.meta.ID, sequence: row.sequence}, true
}

// newestBut is the session's newest checkpoint that is not among gone.
func (t *tx) newestBut(session checkpoint.ID, gone map[checkpoint.ID]bool) checkpoint.ID {
	var best checkpoint.ID
	var number uint64
	for _, id := range t.sessions[session].made {
		if r := t.rows[id]; !r.gone && !gone[id] && r.sequence > number {
			best, number = id, r.sequence
		}
	}
	if s := t.s.index.bySess[session]; s != nil {
		for i := len(s.rows) - 1; i >= 0; i-- {
			r := t.s.index.row(s.rows[i])
			if r.sequence < number {
				break
			}
			if !gone[r.id] && !t.rows[r.id].gone {
				return r.id
			}
		}
	}
	return best
}

func (t *tx) record(r record) error {
	b, sum, err := encodeRecord(r)
	if err != nil {
		return checkpoint.Errorf(checkpoint.KindInternal, "encoding a record: %w", err)
	}
	t.entries = append(t.entries, entry{rec: &r, pieces: [][]byte{b}, sum: sum, n: int64(len(b))})
	return nil
}

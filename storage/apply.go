package storage

import (
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// pending is a checkpoint whose own file is not there yet.
type pending struct {
	seg     *segment
	off, n  int64
	summary []byte
	large   string // path of the body's file; then the line is not in the segment
	sum     string
	tail    []byte
}

// item is the publisher's work: one line of the journal.
type item struct {
	group   uint64
	rec     *record
	id      checkpoint.ID // of a checkpoint
	p       *pending      // of a checkpoint that has no file yet; its id may be another's later
	session *session
	bytes   int64
	event   *checkpoint.Event // what events/ tells of it, nil for nothing
	number  uint64            // of the event
}

// apply puts a durable line into memory. It is the same for a line that was just written
// and for one that is read again at start, and it fails for neither: lines were checked
// before they were written, and one that no longer fits (its session is gone) changes nothing.
func (s *dirStore) apply(e *entry) {
	it := item{group: e.group, rec: e.rec, bytes: e.n}
	switch e.rec.Type {
	case "", recLarge:
		it.session, it.p = s.applyCheckpoint(e)
		it.id = e.draft.id
	case recSession:
		it.session = s.applySession(e.rec.Session)
	case recChange:
		if it.session = s.index.bySess[e.rec.SessionID]; it.session != nil {
			applyChange(it.session, e.rec.Change, e.rec.At)
		}
	case recDelete:
		it.session = s.applyDelete(e.rec)
	case recSessionDelete:
		it.session = s.applySessionDelete(e.rec)
	case recAnnotate:
		it.session = s.index.bySess[e.rec.SessionID]
		s.applyNote(e.rec)
	}
	if ev := eventOf(e); ev != nil {
		it.number, it.event = s.recordEvent(ev), ev
	}
	s.unpublished++
	s.items = append(s.items, it)
}

func (s *dirStore) applyCheckpoint(e *entry) (*session, *pending) {
	d := e.draft
	sess := s.index.bySess[d.session]
	if sess == nil {
		return nil, nil
	}
	if _, there := s.index.byID[d.id]; there {
		// Its file came before the crash. The head goes through all of its steps again, so
		// that it ends where it was.
		sess.meta.HeadID, sess.meta.UpdatedAt = d.id, d.at
		return sess, nil
	}
	id := s.index.add(sess, row{
		id: d.id, sequence: d.sequence, at: d.at.UnixNano(), bytes: uint32(d.lineBytes()),
		trigger: triggerCode(d.trigger), cause: causeCode(d.cause),
	})
	if d.files {
		s.index.row(id).flags |= rowFiles
	}
	p := &pending{seg: e.seg, off: e.off, n: e.n, summary: d.summary(), sum: d.sum}
	if e.rec.Type == recLarge {
		p.large, p.tail, p.n = e.rec.File, d.tail, d.lineBytes()
	}
	s.index.pending[id] = p
	sess.meta.HeadID, sess.meta.UpdatedAt = d.id, d.at
	s.raise(d.sequence)
	return sess, p
}

func (s *dirStore) raise(sequence uint64) {
	s.sequence = max(s.sequence, sequence)
	s.given.add(sequence)
}

func (s *dirStore) applySession(m *sessionMeta) *session {
	if old := s.index.bySess[m.ID]; old != nil {
		return old
	}
	s.sessionsCreated++
	return s.index.addSession(*m)
}

func applyChange(sess *session, c *sessionChange, at time.Time) {
	m := &sess.meta
	if c.Status != "" {
		m.Status = c.Status
	}
	if c.SetAuto {
		m.Auto = c.Auto
	}
	if c.AutoState != nil {
		m.AutoState = c.AutoState
	}
	if c.Name != nil {
		m.Name = *c.Name
	}
	if c.Labels != nil {
		m.Labels = *c.Labels
	}
	if c.SetHead {
		m.HeadID = c.HeadID
	}
	if !at.IsZero() {
		m.UpdatedAt = at
	}
}

func (s *dirStore) applyDelete(r *record) *session {
	sess := s.index.bySess[r.SessionID]
	if sess == nil {
		return nil
	}
	gone := make(map[rowID]bool, len(r.IDs))
	for _, id := range r.IDs {
		if row, ok := s.index.byID[id]; ok {
			gone[row] = true
			delete(s.notes, id)
			delete(s.damaged, id)
		}
	}
	s.index.remove(sess, gone)
	if r.Change != nil {
		applyChange(sess, r.Change, r.At)
	} else {
		sess.meta.UpdatedAt = r.At
	}
	return sess
}

func (s *dirStore) applySessionDelete(r *record) *session {
	sess := s.index.bySess[r.SessionID]
	if sess == nil { // it was not read at start: what is left of its files has to go
		return &session{meta: sessionMeta{Session: checkpoint.Session{ID: r.SessionID}}, gone: true}
	}
	gone := make(map[rowID]bool, len(sess.rows))
	for _, id := range sess.rows {
		gone[id] = true
		delete(s.notes, s.index.row(id).id)
		delete(s.damaged, s.index.row(id).id)
	}
	s.index.remove(sess, gone)
	s.index.dropSession(sess)
	return sess
}

func (s *dirStore) applyNote(r *record) {
	id, ok := s.index.byID[r.CheckpointID]
	if !ok {
		return
	}
	notes := s.notes[r.CheckpointID]
	if s.replaying { // its file came before the crash, or did not
		old, _ := parseNotes(s.noteFile(id), r.SessionID, r.CheckpointID)
		notes = append(old[:min(len(old), int(s.index.row(id).notes)):len(old)], notes...)
	}
	for _, a := range notes {
		if a.ID == r.Annotation.ID {
			return
		}
	}
	s.notes[r.CheckpointID] = append(s.notes[r.CheckpointID], *r.Annotation)
	s.index.row(id).notes++
}

// eventOf is what subscribers hear of a line, nil for nothing.
func eventOf(e *entry) *checkpoint.Event {
	r := e.rec
	ev := checkpoint.Event{SessionID: r.SessionID, CheckpointID: r.CheckpointID, Timestamp: r.At}
	switch r.Type {
	case "", recLarge:
		d := e.draft
		return &checkpoint.Event{
			Type: checkpoint.EventCreated, SessionID: d.session, CheckpointID: d.id, Sequence: d.sequence,
			Timestamp: d.at, Trigger: d.trigger, Cause: d.cause,
		}
	case recSession:
		ev.Type, ev.SessionID, ev.OwnerUID = checkpoint.EventSessionCreated, r.Session.ID, &r.Session.OwnerUID
	case recChange:
		switch {
		case r.Restored:
			ev.Type, ev.CheckpointID = checkpoint.EventRestored, r.Change.HeadID
		case r.Change.Status == checkpoint.Closed:
			ev.Type = checkpoint.EventSessionClosed
		case r.Change.Status == checkpoint.Active:
			ev.Type = checkpoint.EventSessionReopened
		default:
			return nil
		}
	case recDelete:
		ev.Type = checkpoint.EventDeleted
		if r.Compacted {
			ev.Type, ev.Deleted, ev.DeletedIDs = checkpoint.EventCompacted, len(r.IDs), r.IDs[:min(len(r.IDs), 1000)]
			ev.Remaining = &r.Count
		} else {
			ev.CheckpointID, ev.Sequence = r.IDs[0], r.Numbers[0]
		}
	case recSessionDelete:
		ev.Type, ev.Deleted, ev.OwnerUID = checkpoint.EventSessionDeleted, r.Count, r.OwnerUID
	case recAnnotate:
		ev.Type = checkpoint.EventAnnotated
	case recEvent:
		ev = *r.Event
	default:
		return nil
	}
	return &ev
}

package storage

import (
	"context"
	"reflect"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func (s *dirStore) CreateSession(_ context.Context, n NewSession) (checkpoint.Session, bool, error) {
	if n.ID.IsZero() && n.Key == "" {
		n.ID = checkpoint.NewID()
	}
	var id checkpoint.ID
	existing := false
	err := s.do(&op{eval: func(t *tx) (err error) {
		id, existing, err = t.createSession(n, nil)
		return err
	}})
	if err != nil {
		return checkpoint.Session{}, false, err
	}
	v, err := s.Session(context.Background(), Ref{ID: id})
	return v, existing, err
}

// createSession adds a session unless its id or key is there already.
func (t *tx) createSession(n NewSession, parent *checkpoint.Parent) (checkpoint.ID, bool, error) {
	if n.Key != "" {
		id, ok := t.keys[n.Key]
		if s := t.s.index.byKey[n.Key]; !ok && s != nil && t.session(s.meta.ID) != nil {
			id, ok = s.meta.ID, true
		}
		if ok && !n.ID.IsZero() && n.ID != id {
			return id, false, keyTaken(n.Key, id)
		}
		if ok {
			return id, true, nil
		}
	}
	if !n.ID.IsZero() && t.session(n.ID) != nil {
		if n.Key != "" && t.keyOf(n.ID) != n.Key {
			return n.ID, false, checkpoint.Errorf(checkpoint.KindConflict, "session %s is there with another key", n.ID)
		}
		return n.ID, true, nil
	}
	if n.ID.IsZero() {
		n.ID = checkpoint.NewID()
	}
	at := t.now()
	m := &sessionMeta{Session: checkpoint.Session{
		ID: n.ID, Key: n.Key, Name: n.Name, Labels: n.Labels, OwnerUID: n.OwnerUID, Status: checkpoint.Active,
		CreatedAt: at, UpdatedAt: at, Parent: parent, Auto: n.Auto,
	}}
	return n.ID, false, t.addSession(m, at)
}

func (t *tx) addSession(m *sessionMeta, at time.Time) error {
	if err := t.record(record{Type: recSession, Session: m, At: at}); err != nil {
		return err
	}
	t.events++
	t.sessions[m.ID] = &txSession{status: m.Status, head: m.HeadID, meta: m}
	if m.Key != "" {
		t.keys[m.Key] = m.ID
	}
	return nil
}

func (t *tx) keyOf(id checkpoint.ID) string {
	if v := t.sessions[id]; v != nil && v.meta != nil {
		return v.meta.Key
	}
	if s := t.s.index.bySess[id]; s != nil {
		return s.meta.Key
	}
	return ""
}

func (t *tx) ownerOf(id checkpoint.ID) uint32 {
	if v := t.sessions[id]; v != nil && v.meta != nil {
		return v.meta.OwnerUID
	}
	return t.s.index.bySess[id].meta.OwnerUID
}

func keyTaken(key string, id checkpoint.ID) error {
	return checkpoint.Errorf(checkpoint.KindConflict, "key %.64q belongs to session %s; choose another key or leave session_id out", key, id)
}

func (s *dirStore) ChangeSession(_ context.Context, id checkpoint.ID, c SessionChange) (checkpoint.Session, error) {
	var change sessionChange
	if c.Auto != nil {
		change.SetAuto, change.Auto = true, *c.Auto
	}
	change.AutoState, change.Name, change.Labels = c.AutoState, c.Name, c.Labels
	err := s.do(&op{session: id, eval: func(t *tx) error {
		v := t.session(id)
		if v == nil {
			return noSession(id)
		}
		if c.Status != nil && *c.Status != v.status {
			change.Status = *c.Status
		}
		if reflect.DeepEqual(change, sessionChange{}) {
			return nil
		}
		r := record{Type: recChange, SessionID: id, Change: &change}
		if change.Status != "" || change.SetAuto || change.Name != nil || change.Labels != nil {
			r.At = t.now() // the opaque state by itself is no activity
		}
		if err := t.record(r); err != nil {
			return err
		}
		if change.Status != "" {
			v.status = change.Status
			t.events++
		}
		return nil
	}})
	if err != nil {
		return checkpoint.Session{}, err
	}
	return s.Session(context.Background(), Ref{ID: id})
}

func (s *dirStore) DeleteSession(_ context.Context, id checkpoint.ID) (int, error) {
	count := 0
	err := s.do(&op{session: id, frees: true, eval: func(t *tx) error {
		v := t.session(id)
		if v == nil {
			return noSession(id)
		}
		count = 0
		for _, made := range v.made {
			if !t.rows[made].gone {
				count++
			}
		}
		if old := s.index.bySess[id]; old != nil {
			for _, r := range old.rows {
				if !t.rows[s.index.row(r).id].gone {
					count++
				}
			}
		}
		owner := t.ownerOf(id)
		if err := t.record(record{Type: recSessionDelete, SessionID: id, Count: count, OwnerUID: &owner, At: t.now()}); err != nil {
			return err
		}
		t.events++
		for _, made := range v.made {
			t.rows[made] = txRow{gone: true}
		}
		delete(t.keys, t.keyOf(id))
		v.gone = true
		return nil
	}})
	return count, err
}

// sessionOf finds the queue that an op on a checkpoint belongs in: its session's, or for
// one that is not there (yet) that of everything.
func (s *dirStore) sessionOf(id checkpoint.ID) checkpoint.ID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r, ok := s.index.byID[id]; ok {
		return s.index.sessions[s.index.row(r).session].meta.ID
	}
	return checkpoint.ID{}
}

func (s *dirStore) Delete(_ context.Context, id checkpoint.ID) error {
	return s.do(&op{session: s.sessionOf(id), frees: true, eval: func(t *tx) error {
		r, ok := t.checkpoint(id)
		if !ok {
			return noCheckpoint(id)
		}
		return t.deleteSome(r.session, []checkpoint.ID{id}, []uint64{r.sequence}, false, 0)
	}})
}

func (t *tx) deleteSome(session checkpoint.ID, ids []checkpoint.ID, numbers []uint64, compacted bool, remaining int) error {
	v := t.session(session)
	r := record{
		Type: recDelete, SessionID: session, IDs: ids, Numbers: numbers, Compacted: compacted, Count: remaining, At: t.now(),
	}
	gone := make(map[checkpoint.ID]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	head := v.head
	if gone[head] {
		head = t.newestBut(session, gone)
		r.Change = &sessionChange{SetHead: true, HeadID: head}
	}
	if err := t.record(r); err != nil {
		return err
	}
	t.events++
	v.head = head
	for id := range gone {
		t.rows[id] = txRow{gone: true}
	}
	return nil
}

func (s *dirStore) Annotate(_ context.Context, id checkpoint.ID, note string, severity checkpoint.Severity) (checkpoint.Annotation, error) {
	if severity == "" {
		severity = checkpoint.Info
	}
	a := checkpoint.Annotation{ID: checkpoint.NewID(), Note: note, Severity: severity}
	err := s.do(&op{session: s.sessionOf(id), eval: func(t *tx) error {
		r, ok := t.checkpoint(id)
		if !ok {
			return noCheckpoint(id)
		}
		a.Timestamp = t.now()
		t.events++
		return t.record(record{Type: recAnnotate, SessionID: r.session, CheckpointID: id, Annotation: &a, At: a.Timestamp})
	}})
	return a, err
}

func (s *dirStore) Restore(ctx context.Context, session, id checkpoint.ID, moveHead bool) (*Stored, error) {
	s.mu.RLock()
	_, known := s.index.bySess[session]
	s.mu.RUnlock()
	if !known {
		return nil, noSession(session)
	}
	st, err := s.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if st.Summary.SessionID != session {
		return nil, noCheckpoint(id)
	}
	if !moveHead {
		return st, nil
	}
	err = s.do(&op{session: session, eval: func(t *tx) error {
		v := t.session(session)
		if v == nil {
			return noSession(session)
		}
		if r, ok := t.checkpoint(id); !ok || r.session != session {
			return noCheckpoint(id)
		}
		r := record{Type: recChange, SessionID: session, Restored: true, Change: &sessionChange{SetHead: true, HeadID: id}, At: t.now()}
		if err := t.record(r); err != nil {
			return err
		}
		t.events++
		v.head = id
		return nil
	}})
	return st, err
}

func (s *dirStore) Fork(ctx context.Context, id checkpoint.ID, n NewSession) (checkpoint.Session, error) {
	st, err := s.Get(ctx, id)
	if err != nil {
		return checkpoint.Session{}, err
	}
	p, err := parseCheckpoint(st.Raw, st.Summary.Checksum[len("sha256:"):])
	if err != nil {
		return checkpoint.Session{}, checkpoint.Errorf(checkpoint.KindCorrupt, "checkpoint %s: %w", id, err)
	}
	c := &NewCheckpoint{
		ID: checkpoint.NewID(), Message: st.Summary.Message, Tags: st.Summary.Tags, Trigger: checkpoint.Manual, ParentID: id,
		Metadata: p.metadata, State: st.State,
	}
	if err := decodeContext(p.context, &c.Context); err != nil {
		return checkpoint.Session{}, checkpoint.Errorf(checkpoint.KindCorrupt, "checkpoint %s: context: %w", id, err)
	}
	if n.ID.IsZero() {
		n.ID = checkpoint.NewID()
	}
	c.SessionID = n.ID
	d, err := newDraft(c)
	if err != nil {
		return checkpoint.Session{}, err
	}
	err = s.do(&op{bytes: len(d.state), eval: func(t *tx) error {
		if _, ok := t.checkpoint(id); !ok {
			return noCheckpoint(id)
		}
		made, existing, err := t.createSession(n, &checkpoint.Parent{SessionID: st.Summary.SessionID, CheckpointID: id})
		if err != nil {
			return err
		}
		if existing {
			return keyTaken(n.Key, made)
		}
		_, err = t.create(d, nil, "")
		return err
	}})
	if err != nil {
		return checkpoint.Session{}, err
	}
	return s.Session(ctx, Ref{ID: n.ID})
}

// LogEvent adds an event by itself; nobody waits for it, and a store that takes no
// changes loses it.
func (s *dirStore) LogEvent(e checkpoint.Event) {
	o := &op{session: e.SessionID, eval: func(t *tx) error {
		if e.Timestamp.IsZero() {
			e.Timestamp = t.now()
		}
		t.events++
		return t.record(record{Type: recEvent, Event: &e})
	}}
	o.done = func(err error) {
		if err != nil {
			s.opts.Logger.Warn("an event was not logged", "type", e.Type, "error", err)
		}
	}
	if err := s.enqueue(o); err != nil {
		s.opts.Logger.Warn("an event was not logged", "type", e.Type, "error", err)
	}
}

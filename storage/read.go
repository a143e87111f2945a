package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// decodeContext reads a stored context; the detail keeps its bytes.
func decodeContext(b []byte, c *checkpoint.Context) error { return json.Unmarshal(b, c) }

// location is where a checkpoint's bytes are, copied out of the index.
type location struct {
	id, session checkpoint.ID
	sequence    uint64
	bytes       int64
	p           *pending
	corrupt     bool
	notes       []checkpoint.Annotation // those that are only in the journal yet
	noteCount   int
	summary     summaryRef
}

func (l *location) path() string { return checkpointPath(l.session, l.sequence, l.id) }

// locate is called with the lock held.
func (s *dirStore) locate(row rowID) location {
	r := s.index.row(row)
	return location{
		id: r.id, session: s.index.sessions[r.session].meta.ID, sequence: r.sequence, bytes: int64(r.bytes),
		p: s.index.pending[row], corrupt: r.flags&rowCorrupt != 0, notes: s.notes[r.id], noteCount: int(r.notes), summary: s.summaryRef(row),
	}
}

func (s *dirStore) find(id checkpoint.ID) (location, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	row, ok := s.index.byID[id]
	if !ok {
		return location{}, noCheckpoint(id)
	}
	return s.locate(row), nil
}

func (s *dirStore) Get(_ context.Context, id checkpoint.ID) (*Stored, error) {
	l, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return s.load(l)
}

// load reads and verifies one checkpoint, wherever its bytes are by now.
func (s *dirStore) load(l location) (*Stored, error) {
	l, p, err := s.loadParsed(l)
	if err != nil {
		return nil, err
	}
	return s.stored(l, p)
}

// loadParsed is reread, with damage put away and named.
func (s *dirStore) loadParsed(l location) (location, *parsed, error) {
	l, p, err := s.reread(l)
	if err != nil {
		return l, nil, s.readFailed(l, err)
	}
	return l, p, nil
}

// reread looks again when the bytes moved, from the journal to their file or into
// quarantine, while they were read.
func (s *dirStore) reread(l location) (location, *parsed, error) {
	for try := 0; ; try++ {
		p, err := s.readAt(l)
		if err == nil {
			return l, p, nil
		}
		again, findErr := s.find(l.id)
		if findErr != nil {
			return l, nil, findErr // deleted meanwhile
		}
		if again.p == l.p && again.corrupt == l.corrupt || try > 2 {
			return again, nil, err
		}
		l = again
	}
}

func (s *dirStore) stored(l location, p *parsed) (*Stored, error) {
	sum, err := p.summaryValue()
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindCorrupt, "checkpoint %s: %w", l.id, err)
	}
	notes, err := s.notesOf(l)
	if err != nil {
		return nil, err
	}
	sum.AnnotationCount, sum.HasNotes = len(notes), len(notes) > 0
	return &Stored{Summary: sum, Raw: p.raw, State: p.state, Annotations: notes}, nil
}

// summaryValue is what decodeSummary makes of summary, without the detour.
func (p *parsed) summaryValue() (checkpoint.Summary, error) {
	sum := checkpoint.Summary{
		ID: p.id, SessionID: p.session, Sequence: p.sequence, Timestamp: p.at, Tags: []string{}, Trigger: p.trigger, Cause: p.cause,
		ParentID: p.parent, Metadata: p.metadata, Checksum: "sha256:" + p.sum, StateBytes: int64(p.stateBytes),
	}
	var err error
	if sum.Message, err = rawjson.String(p.message); err == nil && string(p.tags) != "[]" {
		err = json.Unmarshal(p.tags, &sum.Tags)
	}
	return sum, err
}

func decodeSummary(b []byte) (sum checkpoint.Summary, err error) {
	err = json.Unmarshal(b, &sum)
	return sum, err
}

var errCorrupt = errors.New("it is known to be damaged")

// damageError is damage to bytes, as opposed to a failure to read them.
type damageError struct{ problem string }

func (d *damageError) Error() string { return d.problem }

func (s *dirStore) readAt(l location) (*parsed, error) {
	if l.corrupt {
		return nil, errCorrupt
	}
	var b []byte
	var err error
	if l.p != nil {
		b, err = s.readPending(l.p)
	} else if found, ok := s.readExpected(l.path(), make([]byte, l.bytes+1)); ok {
		b = found
	} else {
		b, err = s.readAll(l.path()) // for the error, or for what is there in its place
	}
	if err != nil {
		return nil, err
	}
	return verifyCheckpoint(b, l.id, l.session, l.sequence)
}

// verifyCheckpoint checks a line and that it is the one that was asked for.
func verifyCheckpoint(b []byte, id, session checkpoint.ID, sequence uint64) (*parsed, error) {
	ln, err := parseLine(b)
	if err != nil {
		return nil, &damageError{err.Error()}
	}
	if !ln.isCheckpoint {
		return nil, &damageError{"it is no checkpoint"}
	}
	p, err := parseCheckpoint(ln.body, ln.sum)
	if err != nil {
		return nil, &damageError{err.Error()}
	}
	if p.id != id || p.session != session || p.sequence != sequence {
		return nil, &damageError{fmt.Sprintf("it holds checkpoint %s, number %d, of session %s", p.id, p.sequence, p.session)}
	}
	return p, nil
}

// readPending reads a line from the journal, or puts it together from a body of its own.
func (s *dirStore) readPending(p *pending) ([]byte, error) {
	b := make([]byte, p.n)
	if p.large == "" {
		_, err := p.seg.ReadAt(b, p.off)
		return b, err
	}
	body, err := s.readAll(p.large)
	if err != nil {
		return nil, err
	}
	if int64(len(body))+int64(len(p.tail)+len(lineEnd)) != p.n {
		return nil, &damageError{fmt.Sprintf("%s has %d bytes", p.large, len(body))}
	}
	copy(b, header(p.sum))
	copy(b[checkpointHeader:], body[checkpointHeader:])
	copy(b[len(body):], p.tail)
	copy(b[len(body)+len(p.tail):], lineEnd)
	return b, nil
}

// readFailed tells damage from a disk that does not answer. Damage is put away and named.
func (s *dirStore) readFailed(l location, err error) error {
	var answer *checkpoint.Error
	if errors.As(err, &answer) {
		return answer
	}
	problem, damaged := damageOf(err)
	switch {
	case !damaged:
		return s.storageError(fmt.Sprintf("reading checkpoint %s", l.id), err)
	case problem != "":
		s.foundDamage(l, problem)
	}
	return corruptError(l.id)
}

// damageOf says what is wrong with a checkpoint that could not be read; "" when that is
// known already. false: the disk did not answer, or the error is none of readAt's.
func damageOf(err error) (problem string, damaged bool) {
	var damage *damageError
	switch {
	case errors.Is(err, errCorrupt):
		return "", true
	case errors.As(err, &damage), errors.Is(err, errStrange):
		return err.Error(), true
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return "the file is gone", true
	}
	return "", false
}

func corruptError(id checkpoint.ID) *checkpoint.Error {
	return checkpoint.Errorf(checkpoint.KindCorrupt, "checkpoint %s is damaged and was not returned; checkpoint.validate_all names its file", id)
}

func (s *dirStore) readParsed(id checkpoint.ID) (*parsed, error) {
	l, err := s.find(id)
	if err != nil {
		return nil, err
	}
	_, p, err := s.loadParsed(l)
	return p, err
}

func (s *dirStore) Latest(_ context.Context, session checkpoint.ID) (*Stored, error) {
	s.mu.RLock()
	sess := s.index.bySess[session]
	if sess == nil {
		s.mu.RUnlock()
		return nil, noSession(session)
	}
	if len(sess.rows) == 0 {
		s.mu.RUnlock()
		return nil, nil
	}
	l := s.locate(sess.rows[len(sess.rows)-1])
	s.mu.RUnlock()
	st, err := s.load(l)
	var e *checkpoint.Error
	if errors.As(err, &e) && e.Kind == checkpoint.KindCorrupt {
		e.Data = map[string]any{"previous": s.previousSound(session, l.sequence)}
	}
	return st, err
}

// previousSound looks for the newest checkpoint before a number that can be read; nil for none.
func (s *dirStore) previousSound(session checkpoint.ID, before uint64) any {
	for {
		s.mu.RLock()
		sess := s.index.bySess[session]
		if sess == nil {
			s.mu.RUnlock()
			return nil
		}
		i := s.index.search(sess.rows, before) - 1
		if i < 0 {
			s.mu.RUnlock()
			return nil
		}
		l := s.locate(sess.rows[i])
		s.mu.RUnlock()
		if _, err := s.load(l); err == nil {
			return l.id.String()
		}
		before = l.sequence
	}
}

func (s *dirStore) At(ctx context.Context, session checkpoint.ID, p Point) (*Stored, error) {
	if !p.Time.IsZero() {
		if err := s.awaitLoaded(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.RLock()
	sess := s.index.bySess[session]
	if sess == nil {
		s.mu.RUnlock()
		return nil, noSession(session)
	}
	i := s.at(sess, p)
	if i < 0 {
		s.mu.RUnlock()
		return nil, nil
	}
	l := s.locate(sess.rows[i])
	s.mu.RUnlock()
	return s.load(l)
}

func (s *dirStore) at(sess *session, p Point) int {
	n := len(sess.rows)
	if p.Time.IsZero() {
		return sort.Search(n, func(i int) bool { return s.index.row(sess.rows[i]).sequence > p.Sequence }) - 1
	}
	after := func(i int) bool { return time.Unix(0, s.index.row(sess.rows[i]).at).After(p.Time) }
	if sess.timed {
		return sort.Search(n, after) - 1
	}
	i := n - 1
	for i >= 0 && after(i) {
		i--
	}
	return i
}

func (s *dirStore) Validate(_ context.Context, id checkpoint.ID) (Verdict, error) {
	l, err := s.find(id)
	if err != nil {
		return Verdict{}, err
	}
	st, err := s.load(l)
	var e *checkpoint.Error
	switch {
	case err == nil:
		return Verdict{Valid: true, Checksum: st.Summary.Checksum}, nil
	case errors.As(err, &e) && e.Kind == checkpoint.KindCorrupt:
		s.mu.RLock()
		defer s.mu.RUnlock()
		return Verdict{Problem: s.damaged[id].Problem}, nil
	}
	return Verdict{}, err
}

func (s *dirStore) Inspect(_ context.Context, id checkpoint.ID) (Verdict, error) {
	l, err := s.find(id)
	if err != nil {
		return Verdict{}, err
	}
	_, p, err := s.reread(l)
	if err == nil {
		return Verdict{Valid: true, Checksum: "sha256:" + p.sum}, nil
	}
	var answer *checkpoint.Error
	if errors.As(err, &answer) {
		return Verdict{}, answer
	}
	problem, damaged := damageOf(err)
	switch {
	case !damaged:
		return Verdict{}, s.storageError(fmt.Sprintf("reading checkpoint %s", id), err)
	case problem == "":
		s.mu.RLock()
		defer s.mu.RUnlock()
		problem = s.damaged[id].Problem
	}
	return Verdict{Problem: problem}, nil
}

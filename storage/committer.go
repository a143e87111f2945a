package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"runtime"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// op is one change on its way to the journal.
type op struct {
	session checkpoint.ID // zero: waits for everything before it
	waiting bool          // its large body is not on the disk yet; guarded by queue lock
	bytes   int
	frees   bool // makes room: may use the reserve
	eval    func(*tx) error
	after   func() error // once the group is durable
	done    func(error)
}

// entry is one line of a group, with what it means.
type entry struct {
	rec    *record
	draft  *draft // of checkpoints, large ones included
	pieces [][]byte
	sum    string
	seg    *segment
	off    int64
	n      int64
	group  uint64
}

// enqueue fixes an op's place.
func (s *dirStore) enqueue(o *op) error {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	if s.closing {
		return errClosed()
	}
	s.queue = append(s.queue, o)
	s.qbell.Broadcast()
	return nil
}

func errClosed() error {
	return checkpoint.Errorf(checkpoint.KindInvalidState, "the store is closed; start the daemon again")
}

// do queues an op and waits for it.
func (s *dirStore) do(o *op) error {
	ch := make(chan error, 1)
	o.done = func(err error) { ch <- err }
	if err := s.enqueue(o); err != nil {
		return err
	}
	return <-ch
}

// take waits for ops and takes as many as one flush may carry. An op whose body is still
// on its way holds back the ops of its own session only.
func (s *dirStore) take() []*op {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	s.pace.busy = false
	for {
		s.letIn()
		batch, rest := s.pick()
		if len(batch) > 0 {
			s.queue, s.pace.busy = rest, true
			return batch
		}
		if s.closing && len(s.queue) == 0 {
			return nil
		}
		s.qbell.Wait()
	}
}

// letIn gives those who are about to queue their turn.
func (s *dirStore) letIn() {
	for n, i := 0, 0; i < 16 && len(s.queue) > n; i++ {
		n = len(s.queue)
		s.qmu.Unlock()
		runtime.Gosched()
		s.qmu.Lock()
	}
}

func (s *dirStore) pick() (batch, rest []*op) {
	full := s.backlog > s.opts.BacklogBytes && !s.closing && s.stuck() == nil
	var blocked map[checkpoint.ID]bool
	bytes := 0
	for i, o := range s.queue {
		if bytes > s.opts.GroupBytes {
			return batch, append(rest, s.queue[i:]...)
		}
		if o.waiting || full && o.bytes > 0 || blocked[o.session] || len(rest) > 0 && o.session.IsZero() {
			if o.session.IsZero() {
				return batch, append(rest, s.queue[i:]...)
			}
			if blocked == nil {
				blocked = map[checkpoint.ID]bool{}
			}
			blocked[o.session] = true
			rest = append(rest, o)
			continue
		}
		batch = append(batch, o)
		bytes += o.bytes
	}
	return batch, rest
}

// commitLoop is the committer: it alone changes the index and writes the journal.
func (s *dirStore) commitLoop() {
	defer s.loops.Done()
	for {
		batch := s.take()
		if batch == nil {
			break
		}
		s.commit(batch)
	}
	if s.journal.current != nil && s.refusal() == nil {
		if err := s.endSegment(); err != nil {
			s.opts.Logger.Error("the journal was not closed cleanly; the next start reads it again", "error", err)
		}
	}
	s.qmu.Lock()
	s.drained = true
	s.pbell.Broadcast()
	s.qmu.Unlock()
}

func (s *dirStore) commit(batch []*op) {
	t := s.newTx()
	results := make([]error, len(batch))
	for i, o := range batch {
		from, sequence, events := len(t.entries), t.sequence, t.events
		if err := s.refusal(); err != nil {
			results[i] = err
		} else if err := o.eval(t); err != nil {
			results[i] = err
			t.entries, t.sequence, t.events = t.entries[:from], sequence, events
		}
	}
	if len(t.entries) > 0 {
		if err := s.write(t, batch); err != nil {
			s.fail(batch, results, err)
			return
		}
	}
	for i, o := range batch {
		if o.after != nil && results[i] == nil {
			results[i] = o.after()
		}
		o.done(results[i])
	}
}

// fail answers a group that did not get to the disk. When room was short and spares made
// some, all are tried again; else those that would make room, with the reserve let go.
func (s *dirStore) fail(batch []*op, results []error, err error) {
	var again []*op
	room := noRoom(err) && s.dropSpares()
	reserve := noRoom(err) && !room && s.releaseReserve()
	for i, o := range batch {
		switch {
		case results[i] != nil:
			o.done(results[i])
		case room || reserve && o.frees:
			again = append(again, o)
		default:
			o.done(s.storageError("writing the journal", err))
		}
	}
	if len(again) > 0 {
		s.commit(again)
	}
}

func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// write makes a group durable and then visible.
func (s *dirStore) write(t *tx, batch []*op) error {
	j := &s.journal
	var size int64
	digest := sha256.New()
	for i := range t.entries {
		size += t.entries[i].n
		digest.Write([]byte(t.entries[i].sum))
	}
	if err := s.makeRoom(t, size); err != nil {
		return err
	}
	length := j.reach(size)
	last, sum, err := encodeRecord(record{
		Type: recCommit, Group: j.group, Lines: len(t.entries), FirstEvent: s.nextEvent, Bytes: length,
		Digest: hex.EncodeToString(digest.Sum(nil)), Previous: j.last,
	})
	if err != nil {
		return err
	}
	bufs := make([][]byte, 0, 5*len(t.entries)+1)
	off := j.off
	for i := range t.entries {
		e := &t.entries[i]
		e.seg, e.off, e.group = j.current, off, j.group
		bufs = append(bufs, e.pieces...)
		off += e.n
	}
	bufs = append(bufs, last)
	err = j.write(bufs, size+int64(len(last)), length)
	if err != nil && !errors.Is(err, errUnknown) {
		return s.undoWrite(err)
	}
	if err == nil {
		err = j.flush()
	}
	if err != nil {
		s.poison(err)
		return err
	}
	j.off, j.last = off+int64(len(last)), sum
	j.group++
	s.publish(t, off+int64(len(last)))
	return nil
}

// undoWrite takes a half-written group away. Where not even zeros have room, one that is not
// whole may stay until they have: a torn group is read by nobody. Otherwise nothing more is
// written until a restart.
func (s *dirStore) undoWrite(cause error) error {
	err := s.journal.wipe()
	if err == nil || noRoom(err) && !s.journal.whole {
		return cause
	}
	// The group may be there whole: what it names has to stay.
	cause = errors.Join(errUnknown, cause, err)
	s.poison(cause)
	return cause
}

// makeRoom starts a new segment when this one is full or has no numbers left.
func (s *dirStore) makeRoom(t *tx, size int64) error {
	j := &s.journal
	const slack = 1024 // commit and end line
	full := j.current != nil && j.off+size+slack > s.opts.SegmentBytes && j.off > 512
	if j.current != nil && !full && t.sequence <= j.ceiling {
		return nil
	}
	if j.current != nil {
		if err := s.endSegment(); err != nil {
			return err
		}
	}
	if err := s.closeCut(); err != nil {
		if errors.Is(err, errUnknown) {
			s.poison(err)
		}
		return err
	}
	first := record{Type: recSegment, Version: formatVersion, Store: s.storeID}
	if err := j.open(reserve(max(t.sequence, s.sequence, j.ceiling), s.opts.SequenceBlock), first, s.takeSpare); err != nil {
		if errors.Is(err, errNames) {
			s.poison(err)
		}
		return err
	}
	s.qmu.Lock()
	s.segments = append(s.segments, j.current)
	s.qmu.Unlock()
	return nil
}

func (s *dirStore) finishSegment() error {
	err := s.journal.finish()
	if errors.Is(err, errUnknown) {
		s.poison(err)
	}
	return err
}

// publish shows a durable group to readers and hands it to the publisher.
func (s *dirStore) publish(t *tx, size int64) {
	s.mu.Lock()
	for i := range t.entries {
		s.apply(&t.entries[i])
	}
	s.lastAt = max(s.lastAt, t.at)
	s.sequence = t.sequence
	changed := s.eventsChanged
	if t.events > 0 {
		s.eventsChanged = make(chan struct{})
	}
	s.mu.Unlock()
	if t.events > 0 {
		close(changed)
	}
	var bytes int64
	for i := range t.entries {
		bytes += t.entries[i].n
	}
	s.qmu.Lock()
	s.journal.current.end = size
	s.backlog += bytes
	s.pace.came(len(t.entries))
	s.committed = s.journal.group - 1
	s.pbell.Broadcast()
	s.qmu.Unlock()
}

// poison ends all writing until the store is opened again.
func (s *dirStore) poison(err error) {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if s.fatal == nil {
		s.fatal = err
		s.opts.Logger.Error("the store is read-only until it is opened again", "error", err)
	}
}

// refusal says why nothing may be written, if so.
func (s *dirStore) refusal() error {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if s.fatal != nil {
		return &checkpoint.Error{
			Kind: checkpoint.KindStorage, Err: s.fatal,
			Message: "a flush to the disk failed and its outcome is unknown: the store is read-only; check the disk, then restart the daemon",
		}
	}
	return nil
}

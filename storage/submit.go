package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// Submit encodes and hashes in the caller's goroutine; only the number waits for its turn.
func (s *dirStore) Submit(ctx context.Context, c *NewCheckpoint, done func(checkpoint.Receipt, error)) {
	d, release, err := s.prepare(c)
	if err != nil {
		go done(checkpoint.Receipt{}, err)
		return
	}
	var receipt checkpoint.Receipt
	o := &op{session: c.SessionID, bytes: len(d.head) + len(d.state) + len(c.AutoState)}
	large := ""
	o.eval = func(t *tx) (err error) {
		if err := s.full(); err != nil {
			return err
		}
		receipt, err = t.create(d, c.ExpectedHead, large)
		return err
	}
	o.done = func(err error) {
		// After a flush of unknown outcome the next Open may find the record: what it names stays.
		if !errors.Is(err, errUnknown) {
			if large != "" && (err != nil || receipt.Existing) {
				s.dropLarge(large)
			}
			release()
		}
		done(receipt, err)
	}
	if len(c.State) >= s.opts.LargeBytes {
		o.waiting, o.bytes = true, 0
		large = fmt.Sprintf("tmp/large-%s", checkpoint.NewID())
	}
	if err := s.enqueue(o); err != nil {
		release()
		go done(checkpoint.Receipt{}, err)
		return
	}
	if o.waiting {
		s.workers.Add(1)
		go s.writeLarge(o, d, large)
	}
}

func (s *dirStore) prepare(c *NewCheckpoint) (*draft, func(), error) {
	if c.ID.IsZero() {
		c.ID = checkpoint.NewID()
	}
	if len(c.State) == 0 {
		c.State = []byte("{}")
	}
	if c.Trigger == "" {
		c.Trigger = c.Cause.Trigger()
	}
	release, err := s.keepFiles(c)
	if err != nil {
		return nil, nil, err
	}
	d, err := newDraft(c)
	if err != nil {
		release()
		return nil, nil, err
	}
	d.files = len(c.Files) > 0
	return d, release, nil
}

// writeLarge puts the body on the disk beside everything else; the op then goes on.
func (s *dirStore) writeLarge(o *op, d *draft, path string) {
	defer s.workers.Done()
	s.largeSlots <- struct{}{}
	err := writeFile(s.fs, path, int64(checkpointHeader), d.head, d.state)
	if err == nil {
		err = s.fs.SyncDir("tmp")
	}
	<-s.largeSlots
	if err != nil {
		o.eval = func(*tx) error { return s.storageError("writing a large state", err) }
	}
	s.qmu.Lock()
	o.waiting = false
	s.qbell.Broadcast()
	s.qmu.Unlock()
}

func (s *dirStore) dropLarge(path string) {
	if err := ignoreMissing(s.fs.Remove(path)); err != nil {
		s.opts.Logger.Warn("cannot remove the body of a create that was refused", "path", path, "error", err)
	}
}

// writeFile makes a new file, flushed but not yet named durably; a failed one is removed.
func writeFile(fsys vfs.FS, path string, off int64, bufs ...[]byte) error {
	f, err := fsys.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(off, bufs...)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = fsys.Remove(path) // the first error tells more
	}
	return err
}

// create evaluates one create: the session, the expected head, the id, then the number.
func (t *tx) create(d *draft, expected *checkpoint.ID, large string) (checkpoint.Receipt, error) {
	v := t.session(d.session)
	if v == nil {
		return checkpoint.Receipt{}, noSession(d.session)
	}
	if old, ok := t.checkpoint(d.id); ok {
		return t.again(d, old)
	}
	if v.status == checkpoint.Closed {
		return checkpoint.Receipt{}, checkpoint.Errorf(checkpoint.KindInvalidState,
			"session %s is closed; reopen it with session.reopen first", d.session)
	}
	if expected != nil && *expected != v.head {
		return checkpoint.Receipt{}, headConflict(*expected, v.head)
	}
	if !d.given.IsZero() {
		if _, ok := t.checkpoint(d.given); !ok {
			e := noCheckpoint(d.given)
			e.Field = "parent_id"
			return checkpoint.Receipt{}, e
		}
	}
	number, err := t.next()
	if err != nil {
		return checkpoint.Receipt{}, err
	}
	d.number(number, t.now(), v.head)
	if err := t.addCheckpoint(d, large); err != nil {
		return checkpoint.Receipt{}, err
	}
	if d.autoState != nil {
		if err := t.record(record{Type: recChange, SessionID: d.session, Change: &sessionChange{AutoState: d.autoState}}); err != nil {
			return checkpoint.Receipt{}, err
		}
	}
	v.head = d.id
	return d.receipt(), nil
}

func (t *tx) addCheckpoint(d *draft, large string) error {
	e := entry{rec: noRecord, draft: d, sum: d.sum}
	if large != "" {
		r := record{
			Type: recLarge, SessionID: d.session, CheckpointID: d.id, File: large, Bytes: int64(len(d.head) + len(d.state)),
			Sum: d.sum, Count: len(d.tail), HasFiles: d.files, Summary: append(d.summary(), '}'),
		}
		if err := t.record(r); err != nil {
			return err
		}
		last := &t.entries[len(t.entries)-1]
		last.draft = d
	} else {
		e.pieces = [][]byte{header(d.sum), d.head, d.state, d.tail, []byte(lineEnd)}
		e.n = d.lineBytes()
		t.entries = append(t.entries, e)
	}
	t.events++
	t.rows[d.id] = txRow{session: d.session, sequence: d.sequence, draft: d}
	if v := t.sessions[d.session]; v != nil {
		v.made = append(v.made, d.id)
	}
	return nil
}

func (d *draft) receipt() checkpoint.Receipt {
	return checkpoint.Receipt{
		CheckpointID: d.id, SessionID: d.session, Sequence: d.sequence, Timestamp: d.at, Checksum: "sha256:" + d.sum,
	}
}

// again answers a create whose id is known: the same content gets the first answer.
func (t *tx) again(d *draft, old txRow) (checkpoint.Receipt, error) {
	was := old.draft
	if was == nil {
		p, err := t.s.readParsed(d.id)
		if err != nil {
			return checkpoint.Receipt{}, err
		}
		was = &p.draft
	}
	if was.session != d.session || was.given != d.given || !bytes.Equal(was.message, d.message) ||
		!bytes.Equal(was.tags, d.tags) || !bytes.Equal(was.metadata, d.metadata) || !bytes.Equal(was.state, d.state) {
		return checkpoint.Receipt{}, checkpoint.Errorf(checkpoint.KindConflict,
			"checkpoint %s is there with other content; choose another checkpoint_id", d.id)
	}
	r := was.receipt()
	r.Existing = true
	return r, nil
}

func headConflict(expected, head checkpoint.ID) error {
	name := func(id checkpoint.ID) any {
		if id.IsZero() {
			return nil
		}
		return id.String()
	}
	e := checkpoint.Errorf(checkpoint.KindConflict, "the session's head is %v, not %v; look at what came between and try again", name(head), name(expected))
	e.Data = map[string]any{"head_id": name(head)}
	return e
}

func noSession(id checkpoint.ID) *checkpoint.Error {
	return checkpoint.Errorf(checkpoint.KindNotFound, "there is no session %s; session.list shows those there are", id)
}

func noCheckpoint(id checkpoint.ID) *checkpoint.Error {
	return checkpoint.Errorf(checkpoint.KindNotFound, "there is no checkpoint %s; checkpoint.list shows those there are", id)
}

// full refuses creates while the journal is at its limit and cannot be published.
func (s *dirStore) full() error {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	if s.backlog <= s.opts.BacklogBytes {
		return nil
	}
	return s.stuck()
}

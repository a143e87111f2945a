package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// loadRow reads one checkpoint's file for its summary. A damaged one keeps its row.
func (s *dirStore) loadRow(j loadJob) (row, []byte, error) {
	path := checkpointPath(j.l.id, j.r.number, j.r.id)
	r := row{id: j.r.id, sequence: j.r.number, bytes: uint32(j.r.bytes)}
	s.mu.RLock()
	p, damaged := s.damaged[r.id]
	s.mu.RUnlock()
	if damaged && p.Path == path {
		r.flags = rowCorrupt
		sum := s.damagedSummary(&r, j.l.id) // it writes to r
		return r, sum, nil
	}
	room := bodies.get(j.r.bytes + 1)
	defer bodies.put(room)
	if b, ok := s.readExpected(path, room[:j.r.bytes+1]); ok {
		if sum, err := rowFrom(&r, b, j); err == nil {
			return r, sum, nil
		}
	}
	// Whatever is not as it should be is looked at again, slowly.
	b, err := s.readAll(path)
	problem := ""
	switch {
	case err == nil:
		sum, err := rowFrom(&r, b, j)
		if err == nil {
			return r, sum, nil
		}
		problem = err.Error()
	case errors.Is(err, syscall.ENOENT), errors.Is(err, errStrange):
		problem = "the file is gone"
		if errors.Is(err, errStrange) {
			problem = errStrange.Error()
		}
	default:
		return r, nil, err
	}
	r.flags = rowCorrupt
	sum := s.damagedSummary(&r, j.l.id)
	if err := s.quarantine(r.id, path, problem, sum); err != nil {
		return r, nil, err
	}
	s.LogEvent(checkpoint.Event{Type: checkpoint.EventCorrupt, SessionID: j.l.id, CheckpointID: r.id, Sequence: r.sequence, Path: path, Problem: problem})
	return r, sum, nil
}

// rowFrom verifies a body, completes its row and renders its summary, which keeps nothing of b.
func rowFrom(r *row, b []byte, j loadJob) ([]byte, error) {
	p, err := verifyCheckpoint(b, r.id, j.l.id, r.sequence)
	if err == nil && j.r.sum != "" && p.sum != j.r.sum {
		err = &damageError{"it is not the file that the manifest names"}
	}
	if err != nil {
		return nil, err
	}
	r.at, r.bytes = p.at.UnixNano(), uint32(len(b))
	r.trigger, r.cause = triggerCode(p.trigger), causeCode(p.cause)
	if p.draft.files {
		r.flags |= rowFiles
	}
	return p.summary(), nil
}

// readExpected reads a file that should be one byte shorter than b, with no question asked
// before: three calls, where readAll needs five.
func (s *dirStore) readExpected(path string, b []byte) ([]byte, bool) {
	f, err := s.fs.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, false
	}
	n, err := f.ReadAt(b, 0)
	if closeErr := f.Close(); closeErr != nil || !errors.Is(err, io.EOF) || n != len(b)-1 {
		return nil, false
	}
	return b[:n], true
}

// damagedSummary shows a checkpoint whose file is no longer sound as it was known before,
// or else by its name alone: most ids hold the time when they were given.
func (s *dirStore) damagedSummary(r *row, session checkpoint.ID) []byte {
	s.mu.RLock()
	sum := s.damagedSums[r.id]
	s.mu.RUnlock()
	if sum != nil {
		if known, err := decodeSummary(append(bytes.Clone(sum), '}')); err == nil {
			r.at, r.trigger, r.cause = known.Timestamp.UnixNano(), triggerCode(known.Trigger), causeCode(known.Cause)
			return sum
		}
	}
	if r.id[6]>>4 == 7 { // a version 7 id begins with milliseconds
		r.at = int64(binary.BigEndian.Uint64(append([]byte{0, 0}, r.id[:6]...))) * int64(time.Millisecond)
	}
	d := &draft{
		id: r.id, session: session, message: []byte(`""`), tags: []byte(`[]`), trigger: checkpoint.Manual, sequence: r.sequence,
		at: time.Unix(0, r.at).UTC(),
	}
	r.trigger = triggerCode(checkpoint.Manual)
	d.sum = strings.Repeat("0", hexBytes)
	return d.summary()
}

// rebuild reads the bodies of checkpoints that the index did not know. Creates do not wait
// for it; a read that needs what is not known yet does.
type rebuild struct {
	s        *dirStore
	sessions []*sessionLoad
	jobs     []loadJob
	done     int
}

// built is what a body told.
type built struct {
	job loadJob
	row row
	sum []byte
}

const (
	// syncRebuild is how many bodies Open reads before it returns: fewer than anyone notices.
	syncRebuild  = 1000
	rebuildBatch = 512
)

// first reads what must be known at once: the newest of each session, and everything when
// there is little.
func (r *rebuild) first() error {
	s := r.s
	if len(r.jobs) > syncRebuild && !s.opts.fromFiles {
		newest := map[checkpoint.ID]bool{}
		mend := map[checkpoint.ID]bool{}
		for _, id := range s.repair {
			mend[id] = true
		}
		for _, l := range r.sessions {
			if row := s.index.newest(l.s); row != nil {
				newest[row.id] = true
			}
		}
		var now, later []loadJob
		for _, j := range r.jobs {
			if newest[j.r.id] || mend[j.l.id] {
				now = append(now, j)
			} else {
				later = append(later, j)
			}
		}
		_, err := r.read(now)
		r.jobs = later
		return err
	}
	_, err := r.read(r.jobs)
	if err == nil {
		r.jobs = nil
	}
	return err
}

// finish pins the sessions that are whole.
func (r *rebuild) finish() {
	for _, l := range r.sessions {
		if l.left == 0 {
			if err := r.s.pinRows(l); err != nil {
				r.s.opts.Logger.Warn("the index was not written; the next start reads the files again", "error", err)
			}
		}
	}
	r.sessions = nil
}

// read reads some bodies beside each other and gives those back that could not be read.
func (r *rebuild) read(jobs []loadJob) (left []loadJob, err error) {
	var mu sync.Mutex
	var batch []built
	total := len(r.jobs)
	flush := func() error {
		b := batch
		batch = nil
		for i := range b {
			b[i].job.l.left--
		}
		r.done += len(b)
		r.s.opts.Progress(min(r.done, total), total)
		return r.s.learn(b)
	}
	err = parallel(len(jobs), r.s.opts.readers(), func(i int) error {
		if r.s.stopped() {
			return errClosed()
		}
		row, sum, err := r.s.loadRow(jobs[i])
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			left = append(left, jobs[i])
			if r.s.loaded == nil { // nobody waits elsewhere: Open fails
				return err
			}
			r.s.opts.Logger.Warn("a checkpoint cannot be read; it is tried again", "checkpoint", jobs[i].r.id, "error", err)
			return nil
		}
		if batch = append(batch, built{jobs[i], row, sum}); len(batch) >= rebuildBatch {
			return flush()
		}
		return nil
	})
	if err == nil && len(batch) > 0 {
		err = flush()
	}
	return left, err
}

// run is the rebuild in the background; it ends when all is known or the store is closed.
func (r *rebuild) run() {
	defer r.s.loops.Done()
	jobs := r.jobs
	for wait := 100 * time.Millisecond; len(jobs) > 0; wait = min(2*wait, 10*time.Second) {
		left, err := r.read(jobs)
		if err != nil {
			r.s.opts.Logger.Warn("the index is not whole yet", "error", err)
			if !r.s.stopped() && left == nil {
				left = r.unread(jobs)
			}
		}
		if r.s.stopped() {
			return
		}
		if jobs = left; len(jobs) > 0 && !r.s.pause(wait) {
			return
		}
	}
	r.jobs = nil
	r.finish()
	close(r.s.loaded)
}

// unread are the jobs that are still to be done.
func (r *rebuild) unread(jobs []loadJob) (left []loadJob) {
	r.s.mu.RLock()
	defer r.s.mu.RUnlock()
	for _, j := range jobs {
		if row, ok := r.s.index.byID[j.r.id]; ok && r.s.index.row(row).flags&rowUnread != 0 {
			left = append(left, j)
		}
	}
	return left
}

func (s *dirStore) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *dirStore) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// learn keeps summaries and completes the rows.
func (s *dirStore) learn(list []built) error {
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	sums := make([][]byte, 0, 2*len(list))
	off := l.sumEnd
	for i := range list {
		b := &list[i]
		sums = append(sums, b.sum, []byte(plainEnd))
		off = l.place(&b.row, b.sum, off)
	}
	if l.rows != nil || l.memory {
		if err := l.write(sums, nil); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		b := &list[i]
		id, ok := s.index.byID[b.row.id]
		if !ok || s.index.pending[id] != nil {
			continue // deleted meanwhile
		}
		r := s.index.row(id)
		if r.sequence != b.row.sequence {
			continue
		}
		s.index.bytes += int64(b.row.bytes) - int64(r.bytes)
		r.at, r.bytes, r.trigger, r.cause = b.row.at, b.row.bytes, b.row.trigger, b.row.cause
		r.flags = r.flags&rowCorrupt | b.row.flags
		if l.rows != nil || l.memory {
			r.sumOff, r.sumLen, r.sumCheck = b.row.sumOff, b.row.sumLen, b.row.sumCheck
		}
		s.lastAt = max(s.lastAt, r.at)
	}
	return nil
}

// knowNewest reads the newest checkpoints of sessions whose newest was deleted while the
// index is rebuilt: their times are shown.
func (s *dirStore) knowNewest(ctx context.Context) error {
	if s.allLoaded() {
		return nil
	}
	var refs []*summaryRef
	s.mu.RLock()
	for _, sess := range s.index.bySess {
		if r := s.index.newest(sess); r != nil && r.flags&rowUnread != 0 {
			refs = append(refs, &summaryRef{id: r.id})
		}
	}
	s.mu.RUnlock()
	return s.healSummaries(refs)
}

// allLoaded says that every row is known.
func (s *dirStore) allLoaded() bool {
	if s.loaded == nil {
		return true
	}
	select {
	case <-s.loaded:
		return true
	default:
		return false
	}
}

// awaitLoaded waits until every row is known, or refuses.
func (s *dirStore) awaitLoaded(ctx context.Context) error {
	if s.loaded == nil {
		return nil
	}
	select {
	case <-s.loaded:
		return nil
	case <-ctx.Done():
	case <-s.stop:
	case <-time.After(s.opts.LoadWait):
	}
	return &checkpoint.Error{Kind: checkpoint.KindOverloaded, Retry: true, Message: "the index is being rebuilt; ask again"}
}

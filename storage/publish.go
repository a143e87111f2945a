package storage

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// publishBatch records make a round: what memory holds of them is small, and a deletion does
// not wait long. With SyncFS each round flushes the file system twice, so rounds are larger.
const publishBatch, syncFSBatch = 4096, 16384

// sweepAfter deletions captured files are collected; Sync and Close collect them too.
const sweepAfter = 1000

// publishLoop writes the journal's records out as files, in its own time.
func (s *dirStore) publishLoop() {
	defer s.loops.Done()
	wait := time.Duration(0)
	for s.awaitWork(wait) {
		if err := s.publishSome(); err != nil {
			if noRoom(err) {
				more, roomErr := s.findRoom()
				if more {
					continue
				}
				err = errors.Join(err, roomErr)
			}
			s.setPublishError(err)
			if s.isClosing() {
				return
			}
			wait = min(max(2*wait, 100*time.Millisecond), 5*time.Second)
			continue
		}
		s.setPublishError(nil)
		s.takeReserve() // again, when there is room
		if s.fewer *= 2; s.fewer > syncFSBatch {
			s.fewer = 0
		}
		wait = 0
		if s.sweepDue.Load() >= sweepAfter {
			s.sweepFiles(context.Background())
		}
		s.trimIndex()
	}
}

// awaitWork returns false when the store is closing and nothing is left, or no time for it.
func (s *dirStore) awaitWork(wait time.Duration) bool {
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.stop:
		}
	}
	s.qmu.Lock()
	defer s.qmu.Unlock()
	for {
		if s.late() {
			return false
		}
		if s.retirable() || s.committed > s.published && !s.givesWay() {
			return true
		}
		if s.drained && s.committed <= s.published {
			return false
		}
		s.pbell.Wait()
	}
}

// late says that Close waits no longer; qmu is held.
func (s *dirStore) late() bool {
	return s.drained && s.opts.CloseWithin > 0 && time.Now().After(s.closeBy)
}

func (s *dirStore) isClosing() bool {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	return s.drained
}

func (s *dirStore) retirable() bool {
	return len(s.segments) > 0 && s.segments[0].finished && s.segments[0].lastGroup <= s.published
}

// batch is what one round publishes.
type batch struct {
	items    []item
	group    uint64
	bytes    int64
	files    []fileJob
	sessions map[checkpoint.ID]*sessionJob
	events   []eventLine
	first    uint64
	next     uint64
	created  uint64
	segment  uint64 // the newest segment that may go with this batch
}

type fileJob struct {
	session *sessionJob
	id      checkpoint.ID
	p       *pending
	path    string
	number  uint64
	bytes   int64
	summary []byte
}

type sessionJob struct {
	s        *session
	meta     sessionMeta
	deleted  bool
	lines    []record
	notes    map[checkpoint.ID][]checkpoint.Annotation
	noted    map[checkpoint.ID]int // how many notes are in the file now
	wrote    map[checkpoint.ID]int // and how many of them are new there
	unlink   []string
	newFiles bool
	// described is the new session.json on its way to its name, with SyncFS.
	described string
}

func (s *dirStore) publishSome() error {
	s.round.Lock()
	defer s.round.Unlock()
	if s.flushLost != nil {
		return s.flushLost
	}
	if s.unflushed != nil {
		if err := s.unflushed(); err != nil {
			return err
		}
		s.unflushed = nil
	}
	b := s.gather()
	if len(b.items) > 0 {
		if err := s.writeFiles(b); err != nil {
			return err
		}
		err := s.each(b, s.describe)
		if err == nil && s.opts.SyncFS {
			err = s.flushAll(b)
		}
		if err != nil {
			return errors.Join(err, s.dropDescriptions(b))
		}
		if err := s.each(b, s.sweep); err != nil {
			return err
		}
		if err := s.appendEvents(b); err != nil {
			return err
		}
		if err := s.appendIndex(b); err != nil {
			return err
		}
		if err := s.writeHead(b); err != nil {
			return err
		}
		s.settle(b)
	}
	return s.retire()
}

// gather takes whole groups from the queue and looks up, under the lock, what they need.
func (s *dirStore) gather() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.items), s.roundSize())
	for n > 0 && n < len(s.items) && s.items[n].group == s.items[n-1].group {
		n++
	}
	s.gathered = n
	b := &batch{items: s.items[:n:n], sessions: map[checkpoint.ID]*sessionJob{}, created: s.headState.Created, next: s.headState.FirstEvent}
	b.first = b.next
	for i := range b.items {
		s.gatherItem(b, &b.items[i])
	}
	for _, j := range b.sessions {
		j.meta = j.s.meta
	}
	return b
}

func (s *dirStore) gatherItem(b *batch, it *item) {
	b.group, b.bytes = it.group, b.bytes+it.bytes
	if it.event != nil {
		b.events = append(b.events, eventLine{it.number, it.event})
		b.next = it.number + 1
	}
	if it.rec.Type == recSession {
		b.created++
	}
	if it.session == nil {
		return
	}
	id := it.session.meta.ID
	j := b.sessions[id]
	if j == nil || j.s != it.session {
		j = &sessionJob{
			s: it.session, notes: map[checkpoint.ID][]checkpoint.Annotation{}, noted: map[checkpoint.ID]int{}, wrote: map[checkpoint.ID]int{},
		}
		b.sessions[id] = j
	}
	j.deleted = it.session.gone
	if it.rec.Type == recDelete || it.rec.Type == recSessionDelete {
		s.sweepDue.Add(int64(max(len(it.rec.IDs), it.rec.Count)))
	}
	switch it.rec.Type {
	case "", recLarge:
		s.gatherCheckpoint(b, j, it)
	case recDelete:
		j.lines = append(j.lines, record{Type: recRemoved, IDs: it.rec.IDs, Numbers: it.rec.Numbers})
		for i, gone := range it.rec.IDs {
			j.unlink = append(j.unlink, checkpointPath(id, it.rec.Numbers[i], gone), notesPath(id, gone))
		}
	case recAnnotate:
		if _, ok := s.index.byID[it.rec.CheckpointID]; ok {
			j.notes[it.rec.CheckpointID] = append([]checkpoint.Annotation(nil), s.notes[it.rec.CheckpointID]...)
			j.noted[it.rec.CheckpointID] = 0
		}
	}
}

func (s *dirStore) gatherCheckpoint(b *batch, j *sessionJob, it *item) {
	row, ok := s.index.byID[it.id]
	if !ok || it.p == nil || s.index.pending[row] != it.p {
		return // deleted before it was published, or a file already
	}
	p := it.p
	r := s.index.row(row)
	b.files = append(b.files, fileJob{
		session: j, id: it.id, p: p, path: checkpointPath(j.s.meta.ID, r.sequence, it.id), number: r.sequence,
		bytes: int64(r.bytes), summary: p.summary,
	})
	j.lines = append(j.lines, record{Type: recAdded, CheckpointID: it.id, Number: r.sequence, Bytes: int64(r.bytes), Sum: p.sum})
	j.newFiles = true
}

// parallel runs f for 0..n-1 on some workers and joins what went wrong.
func parallel(n, workers int, f func(int) error) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		next int
		errs []error
	)
	for range min(n, workers) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := len(errs) > 0
				mu.Unlock()
				if i >= n || stop {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *dirStore) each(b *batch, f func(*sessionJob) error) error {
	jobs := make([]*sessionJob, 0, len(b.sessions))
	for _, j := range b.sessions {
		jobs = append(jobs, j)
	}
	return parallel(len(jobs), s.opts.PublishWorkers, func(i int) error { return f(jobs[i]) })
}

// settle lets go of what memory held until the files were there.
func (s *dirStore) settle(b *batch) {
	s.mu.Lock()
	s.items = s.items[len(b.items):]
	if len(s.items) == 0 {
		s.items = nil
	}
	s.unpublished -= len(b.items)
	var large []string
	for i := range b.files {
		f := &b.files[i]
		if row, ok := s.index.byID[f.id]; ok && s.index.pending[row] == f.p {
			delete(s.index.pending, row)
		}
	}
	for _, j := range b.sessions {
		for id, n := range j.wrote {
			row, ok := s.index.byID[id]
			if !ok || len(s.notes[id]) < n {
				continue
			}
			if s.notes[id] = s.notes[id][n:]; len(s.notes[id]) == 0 {
				delete(s.notes, id)
			}
			s.index.row(row).notes = uint16(j.noted[id] + len(s.notes[id])) // damaged ones are lost
		}
	}
	for i := range b.items {
		if b.items[i].rec.Type == recLarge {
			large = append(large, b.items[i].rec.File)
		}
	}
	s.mu.Unlock()
	for _, path := range large {
		s.dropLarge(path)
	}
	s.qmu.Lock()
	s.published = b.group
	s.backlog -= b.bytes
	s.pace.behind -= len(b.items)
	s.qbell.Broadcast()
	s.pbell.Broadcast()
	s.qmu.Unlock()
}

// retire removes segments whose records all are files now.
func (s *dirStore) retire() error {
	for {
		s.qmu.Lock()
		if !s.retirable() {
			s.qmu.Unlock()
			return nil
		}
		g := s.segments[0]
		s.qmu.Unlock()
		if s.headState.Segment < g.number {
			if err := s.makeMarkers(); err != nil {
				return err
			}
			h := &s.headState
			if err := s.writeHead(&batch{group: h.Group, next: h.FirstEvent, created: h.Created, segment: g.number}); err != nil {
				return err
			}
		} else if err := s.fs.SyncDir("events"); err != nil { // who wrote head.json may have died before this
			return err
		}
		s.syncIndex()
		if err := g.close(); err != nil {
			return err
		}
		if err := s.retireFile(g); err != nil {
			return err
		}
		s.qmu.Lock()
		s.segments = s.segments[1:]
		s.pbell.Broadcast()
		s.qmu.Unlock()
	}
}

func (s *dirStore) setPublishError(err error) {
	s.stateMu.Lock()
	changed := (s.publishErr == nil) != (err == nil)
	s.publishErr = err
	s.stateMu.Unlock()
	s.qmu.Lock()
	s.pbell.Broadcast()
	s.qmu.Unlock()
	if changed && err != nil {
		s.opts.Logger.Error("publishing waits: the files cannot be written; it is tried again", "error", err)
	}
}

package storage

import (
	"context"
	"errors"
	"os"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// findRoom lets the publisher go on, on a full disk: with what was held back for it, with
// what deletions give back, or with a smaller round, after which a segment may go. It says
// whether to try again at once.
func (s *dirStore) findRoom() (bool, error) {
	if s.dropSpares() || s.releaseReserve() {
		return true, nil
	}
	removed, err := s.publishDeletions()
	if removed {
		s.sweepFiles(context.Background())
		return true, nil
	}
	if n := min(s.roundSize(), s.gathered); n > 1 {
		s.fewer = n / 2
		return true, nil
	}
	return false, err
}

// roundSize is how many records a round takes, or some more to the end of a group.
func (s *dirStore) roundSize() int {
	n := publishBatch
	if s.opts.SyncFS {
		n = syncFSBatch
	}
	if s.fewer > 0 {
		n = min(n, s.fewer)
	}
	return n
}

// publishDeletions carries out the deletions that wait behind checkpoints for which there is
// no room. What it leaves is what a round leaves that ends after it: the journal still has
// all of them, and the next round does them again.
func (s *dirStore) publishDeletions() (removed bool, err error) {
	s.round.Lock()
	defer s.round.Unlock()
	if s.flushLost != nil {
		return false, s.flushLost
	}
	b := s.gatherDeletions()
	for id, j := range b.sessions {
		if !j.deleted && !j.s.disk.made {
			delete(b.sessions, id) // it has no files yet
		}
	}
	if len(b.sessions) == 0 {
		return false, nil
	}
	err = s.each(b, s.describe)
	if err == nil && s.opts.SyncFS {
		err = s.flushAll(b)
	}
	if err != nil {
		return false, errors.Join(err, s.dropDescriptions(b))
	}
	if err := s.each(b, s.sweep); err != nil {
		return false, err
	}
	s.shrunk = b.group
	return true, nil
}

// gatherDeletions takes those from the queue that were not carried out yet.
func (s *dirStore) gatherDeletions() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &batch{group: s.shrunk, sessions: map[checkpoint.ID]*sessionJob{}}
	for i := range s.items {
		it := &s.items[i]
		if it.group > s.shrunk && (it.rec.Type == recDelete || it.rec.Type == recSessionDelete) {
			s.gatherItem(b, it)
		}
	}
	for _, j := range b.sessions {
		j.meta = j.s.meta
	}
	return b
}

func (s *dirStore) releaseReserve() bool {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if !s.reserved {
		return false
	}
	s.reserved = false
	if err := s.fs.Remove(reservePath); err != nil {
		s.opts.Logger.Warn("the reserve cannot be let go", "error", err)
		return false
	}
	return true
}

func (s *dirStore) takeReserve() {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if s.reserved || s.opts.ReserveBytes <= 0 {
		return
	}
	f, err := s.fs.Open(reservePath, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return // a full disk has none; it is tried again
	}
	err = f.Reserve(s.opts.ReserveBytes)
	if s.reserved = errors.Join(err, f.Close()) == nil; !s.reserved {
		_ = s.fs.Remove(reservePath) // room that is not there is not held
	}
}

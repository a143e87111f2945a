package storage

import "time"

// Publishing costs more than committing: a file takes as much processor time as ten lines
// of the journal, and its flush delays theirs. So the publisher gives way to a burst, and
// works in the pauses.
const (
	// quietTime without a commit is a pause.
	quietTime = 20 * time.Millisecond
	// patience is how long a record stays in the journal alone while commits keep coming.
	patience = 2 * time.Second
	// maxBehind records may wait: closing the store publishes them all.
	maxBehind = 24576
)

// pace is what the publisher knows of the committer's work; guarded by the queue's lock.
type pace struct {
	behind  int       // lines of the journal that are not published
	oldest  time.Time // when the first of them came
	newest  time.Time
	busy    bool        // a group is being written: a slow flush is no pause
	waiters int         // callers who wait for the files
	alarm   *time.Timer // wakes the publisher when the pause has come
}

func (p *pace) came(lines int) {
	p.newest = time.Now()
	if p.behind == 0 {
		p.oldest = p.newest
	}
	p.behind += lines
}

// givesWay is called with qmu held. It says whether publishing should wait, and sees to
// it that the publisher asks again.
func (s *dirStore) givesWay() bool {
	p := &s.pace
	if p.busy {
		p.newest = time.Now()
	}
	if p.waiters > 0 || s.closing || s.backlog > s.opts.BacklogBytes/4*3 || p.behind > maxBehind || s.stuck() != nil {
		return false
	}
	left := min(quietTime-time.Since(p.newest), patience-time.Since(p.oldest))
	if left <= 0 {
		return false
	}
	if p.alarm == nil {
		p.alarm = time.AfterFunc(left, s.wakePublisher)
	} else {
		p.alarm.Reset(left)
	}
	return true
}

func (s *dirStore) wakePublisher() {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	s.pbell.Broadcast()
}

package rpc

import (
	"sync"
	"time"
)

// budget bounds the bytes that all connections together hold in flight. Three parts keep
// the parties out of each other's way: small frames have their own share; large ones take
// from the main share as they grow, and share it with the replies; and when that is used
// up, one frame at a time may grow out of a reserve of a whole frame, so that frames that
// wait for each other cannot stand still. A read whose result can be large sets a state's
// length aside before it runs, since what it holds is known only when it has run.
type budget struct {
	mu                 sync.Mutex
	smallMax, mainMax  int64
	small, main, extra int64
	replies            int64
	read, reads        int64 // what one large read sets aside, and what all have
	reserved           bool
	line               chan struct{} // holds who waits for a large read's room
	stall              time.Duration // how long one waits before stalled is called
	changed            chan struct{} // closed at the next release; nil: nobody waits
}

// share is what one frame holds.
type share struct {
	small, main, extra int64
	reserve            bool
}

func newBudget(l *Limits) *budget {
	b := &budget{line: make(chan struct{}, 1), stall: stallTime}
	b.resize(l)
	return b
}

func (b *budget) resize(l *Limits) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = int64(l.StateBytes)
	b.smallMax = l.InFlightBytes / 8
	b.mainMax = max(0, l.InFlightBytes-b.smallMax-int64(l.FrameBytes))
}

// take waits for n bytes, until stop is closed. stalled is called each time that a
// second has passed without room.
func (b *budget) take(s *share, n int64, small bool, stop <-chan struct{}, stalled func()) bool {
	for {
		b.mu.Lock()
		switch {
		case s.reserve:
			s.extra += n
			b.extra += n
		case small && b.small+n <= b.smallMax:
			s.small += n
			b.small += n
		case b.shared()+n <= b.mainMax:
			s.main += n
			b.main += n
		case !b.reserved:
			b.reserved, s.reserve = true, true
			s.extra += n
			b.extra += n
		default:
			changed := b.next()
			b.mu.Unlock()
			if !b.wait(changed, stop, stalled) {
				return false
			}
			continue
		}
		b.mu.Unlock()
		return true
	}
}

func (b *budget) wait(changed, stop <-chan struct{}, stalled func()) bool {
	timer := time.NewTimer(b.stall)
	defer timer.Stop()
	select {
	case <-changed:
		return true
	case <-timer.C:
		stalled()
		return true
	case <-stop:
		return false
	}
}

func (b *budget) give(s *share) {
	if *s == (share{}) {
		return
	}
	b.mu.Lock()
	b.small -= s.small
	b.main -= s.main
	b.extra -= s.extra
	if s.reserve {
		b.reserved = false
	}
	*s = share{}
	b.wake()
	b.mu.Unlock()
}

// next is closed at the next release. b.mu is held.
func (b *budget) next() <-chan struct{} {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// wake tells of a release. b.mu is held.
func (b *budget) wake() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// reply counts the bytes of a reply that waits to be written, or with n < 0 was.
func (b *budget) reply(n int64) {
	b.mu.Lock()
	b.replies += n
	if n < 0 {
		b.wake()
	}
	b.mu.Unlock()
}

// shared is what the main share holds. b.mu is held.
func (b *budget) shared() int64 { return b.main + b.replies + b.reads }

// full says that replies have no room left.
func (b *budget) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shared() >= b.mainMax
}

// beginRead waits in line until a large read may run, and sets aside what it may hold: the
// returned bytes, which endRead takes back. 0: stop was closed.
func (b *budget) beginRead(stop <-chan struct{}, stalled func()) int64 {
	select {
	case b.line <- struct{}{}: // senders are let through in the order they came
	case <-stop:
		return 0
	}
	defer func() { <-b.line }()
	for {
		b.mu.Lock()
		if n := b.tryReadLocked(); n > 0 {
			b.mu.Unlock()
			return n
		}
		changed := b.next()
		b.mu.Unlock()
		if !b.wait(changed, stop, stalled) {
			return 0
		}
	}
}

// tryRead is beginRead that does not wait: 0 says that there is no room. One at a time
// runs with any room.
func (b *budget) tryRead() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tryReadLocked()
}

func (b *budget) tryReadLocked() int64 {
	if held := b.shared(); held+b.read > b.mainMax && (b.reads > 0 || held >= max(b.mainMax, 1)) {
		return 0
	}
	b.reads += b.read
	return b.read
}

func (b *budget) endRead(n int64) {
	b.mu.Lock()
	b.reads -= n
	b.wake()
	b.mu.Unlock()
}

func (b *budget) held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.small + b.main + b.extra + b.replies
}

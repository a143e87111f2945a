package rpc

import (
	"sync"
	"time"
)

// budget bounds the bytes that all connections together hold in flight. Three parts keep
// the parties out of each other's way: small frames have their own share; large ones take
// from the main share as they grow; and when that is used up, one frame at a time may grow
// out of a reserve of a whole frame, so that frames that wait for each other cannot stand
// still. Replies are counted after they are made, and hold back the next large read.
type budget struct {
	mu                 sync.Mutex
	smallMax, mainMax  int64
	total              int64
	small, main, extra int64
	replies            int64
	reserved           bool
	changed            chan struct{} // closed at each release
}

// share is what one frame holds.
type share struct {
	small, main, extra int64
	reserve            bool
}

func newBudget(l *Limits) *budget {
	b := &budget{changed: make(chan struct{})}
	b.resize(l)
	return b
}

func (b *budget) resize(l *Limits) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total = l.InFlightBytes
	b.smallMax = l.InFlightBytes / 8
	b.mainMax = max(0, l.InFlightBytes-b.smallMax-int64(l.FrameBytes))
}

// take waits for n bytes, until stop is closed. stalled is called each time that a second
// has passed without room.
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
		case b.main+n <= b.mainMax:
			s.main += n
			b.main += n
		case !b.reserved:
			b.reserved, s.reserve = true, true
			s.extra += n
			b.extra += n
		default:
			changed := b.changed
			b.mu.Unlock()
			if !wait(changed, stop, stalled) {
				return false
			}
			continue
		}
		b.mu.Unlock()
		return true
	}
}

func wait(changed, stop <-chan struct{}, stalled func()) bool {
	timer := time.NewTimer(stallTime)
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

func (b *budget) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
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

// room waits until a large reply may be made.
func (b *budget) room(stop <-chan struct{}, stalled func()) bool {
	for {
		b.mu.Lock()
		if b.small+b.main+b.extra+b.replies < b.total {
			b.mu.Unlock()
			return true
		}
		changed := b.changed
		b.mu.Unlock()
		if !wait(changed, stop, stalled) {
			return false
		}
	}
}

func (b *budget) held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.small + b.main + b.extra + b.replies
}

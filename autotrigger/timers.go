package autotrigger

import (
	"container/heap"
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// timers is a heap of sessions by due time: one timer for all of them.
type timers []*session

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}
func (t *timers) Push(x any) {
	s := x.(*session)
	s.index = len(*t)
	*t = append(*t, s)
}
func (t *timers) Pop() any {
	old := *t
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	s.index = -1
	return s
}

// requeue puts a session where its timers now belong. Called with mu held.
func (e *Engine) requeue(s *session) {
	now := wall()
	if s.nextCron.IsZero() {
		if at := s.cronAfter(now, 1); len(at) == 1 {
			s.nextCron = at[0]
		}
	}
	s.schedule(now)
	switch {
	case s.removed || s.due.IsZero() || s.running:
		if s.index >= 0 {
			heap.Remove(&e.timers, s.index)
		}
	case s.index >= 0:
		heap.Fix(&e.timers, s.index)
	default:
		heap.Push(&e.timers, s)
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// maxSleep bounds one wait, so that a clock that was set, or a machine that slept, is
// noticed: timers do not run while it sleeps.
const maxSleep = time.Minute

// runTimers starts what is due until ctx ends. Due sessions start at a bounded rate and
// Workers at a time; as an interval counts from its last run, those that were due
// together are not the next time.
func (e *Engine) runTimers(ctx context.Context) {
	pace := rate.NewLimiter(rate.Limit(e.opts.StartsPerSec), max(1, e.opts.StartsPerSec/10))
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	for {
		s, cause, wait := e.nextDue()
		if s != nil {
			if pace.Wait(ctx) != nil || !e.slot(ctx) {
				e.unstart(s)
				return
			}
			e.wg.Go(func() {
				defer e.free()
				e.runDue(ctx, s, cause)
			})
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
	}
}

func (e *Engine) slot(ctx context.Context) bool {
	select {
	case e.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *Engine) free() { <-e.slots }

// nextDue takes the first due session off the heap, or says how long there is none.
func (e *Engine) nextDue() (*session, checkpoint.Cause, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := wall()
	for len(e.timers) > 0 {
		s := e.timers[0]
		if wait := s.due.Sub(now); wait > 0 {
			return nil, "", min(wait, maxSleep)
		}
		// A checkpoint that was taken meanwhile moves the interval.
		due, cause := s.schedule(now)
		if due.After(now) {
			heap.Fix(&e.timers, 0)
			continue
		}
		heap.Pop(&e.timers)
		s.running = true
		return s, cause, 0
	}
	return nil, "", maxSleep
}

func (e *Engine) unstart(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.running = false
	e.requeue(s)
}

// runDue makes one timer's run. One that finds the session busy is left out: a checkpoint
// is being made at this moment.
func (e *Engine) runDue(ctx context.Context, s *session, cause checkpoint.Cause) {
	if cause == checkpoint.CauseCron {
		e.mu.Lock()
		s.every = wall() // goes with the checkpoint
		e.mu.Unlock()
	}
	select {
	case s.busy <- struct{}{}:
		e.decideHeld(ctx, s, Trigger{Session: s.id, Cause: cause, Message: e.timerMessage(s, cause)}, nil)
		<-s.busy
	default:
		e.opts.Logger.Debug("a timer found its session busy", "session", s.id, "cause", cause)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := wall()
	s.running = false
	if cause == checkpoint.CauseInterval {
		s.anchor, s.started = now, true
	} else {
		s.nextCron = time.Time{}
	}
	e.requeue(s)
}

func (e *Engine) timerMessage(s *session, cause checkpoint.Cause) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cause == checkpoint.CauseInterval && s.policy != nil {
		return "every " + s.policy.interval.String()
	}
	return ""
}

// wall is the time without its monotonic reading: due times come from the store, and a
// machine's sleep must count.
func wall() time.Time { return time.Now().Round(0) }

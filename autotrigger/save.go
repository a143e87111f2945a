package autotrigger

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// touch has the session's state saved within d. Called with mu held.
func (e *Engine) touch(s *session, d time.Duration) {
	if e.opts.Save == nil {
		return
	}
	s.touched++
	at := time.Now().Add(d)
	if old, there := e.unsaved[s]; !there || at.Before(old) {
		e.unsaved[s] = at
	}
}

// atEnd is a touch that waits for the end of Run, or for what is saved sooner.
const atEnd = math.MaxInt64

// saveLoop saves what is due once a second.
func (e *Engine) saveLoop(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			e.save(ctx, func(at time.Time) bool { return !at.After(now) })
		}
	}
}

func (e *Engine) saveAll(ctx context.Context) {
	e.save(ctx, func(time.Time) bool { return true })
}

// save writes the states that are due, several at once: the store makes one flush of them.
func (e *Engine) save(ctx context.Context, due func(time.Time) bool) {
	e.mu.Lock()
	var batch []*session
	for s, at := range e.unsaved {
		if due(at) {
			batch = append(batch, s)
			delete(e.unsaved, s)
		}
	}
	e.mu.Unlock()
	var wg sync.WaitGroup
	room := make(chan struct{}, e.opts.Workers)
	for _, s := range batch {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			e.saveOne(ctx, s)
		})
	}
	wg.Wait()
}

func (e *Engine) saveOne(ctx context.Context, s *session) {
	e.mu.Lock()
	raw, err := s.state()
	rendered := s.rendered
	e.mu.Unlock()
	if err == nil {
		err = e.opts.Save(ctx, s.id, raw)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && s.rendered != rendered {
		e.touch(s, e.opts.SaveEvery) // a checkpoint may have brought a later one, which this one undid
	}
	switch {
	case err == nil || errors.Is(err, checkpoint.ErrNotFound): // deleted: nothing to keep
		if _, again := e.unsaved[s]; !again && e.parted[s.id] == s {
			delete(e.parted, s.id)
		}
	case ctx.Err() != nil:
		e.touch(s, 0) // the last save of Run takes it
	default:
		e.opts.Logger.Warn("save a session's automation state; trying again", "session", s.id, "error", err)
		e.touch(s, e.opts.SaveCounts)
	}
}

// savedWith notes that the state went with a checkpoint: it was rendered when the session
// had been touched so often. Called with mu held.
func (e *Engine) savedWith(s *session, touched uint64) {
	if s.touched != touched {
		return
	}
	delete(e.unsaved, s)
	if e.parted[s.id] == s {
		delete(e.parted, s.id)
	}
}

// saveBeginning saves at once where the following of transcripts began, so that a crash
// does not make it begin again behind what was written meanwhile. Later places may be
// lost: what is read again makes the same checkpoints.
func (e *Engine) saveBeginning(ctx context.Context, s *session, f *files) {
	if e.opts.Save == nil || !f.began() {
		return
	}
	e.mu.Lock()
	delete(e.unsaved, s)
	e.mu.Unlock()
	e.saveOne(ctx, s)
}

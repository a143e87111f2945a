package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// scrubStatus is what the last reading of the whole store found. Health is red until a
// later one finds nothing.
type scrubStatus struct {
	mu      sync.Mutex // guards what follows
	at      time.Time
	invalid int
	first   storage.Problem
	told    map[storage.Problem]bool // damage that an event told of already
}

// note keeps a report and returns the problems that no event told of yet.
func (s *scrubStatus) note(rep storage.Report, at time.Time) []storage.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.invalid, s.first = at, len(rep.Problems), storage.Problem{}
	if len(rep.Problems) > 0 {
		s.first = rep.Problems[0]
	}
	var fresh []storage.Problem
	told := map[storage.Problem]bool{}
	for _, p := range rep.Problems {
		if !s.told[p] {
			fresh = append(fresh, p)
		}
		told[p] = true
	}
	s.told = told
	return fresh
}

func (s *scrubStatus) check() rpc.HealthCheck {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := rpc.HealthCheck{Name: "scrub", OK: s.invalid == 0, Message: "the store was not read through yet"}
	switch {
	case s.invalid > 0:
		c.Message = fmt.Sprintf("%d problems, the first in %s: %s; forge-cpd fsck tells more", s.invalid, s.first.Path, s.first.Problem)
	case !s.at.IsZero():
		c.Message = "the store was read through at " + s.at.Format(time.RFC3339) + " and was sound"
	}
	return c
}

// runScrub reads the whole store again by its schedule, slowly. wake tells of a new configuration.
func (s *service) runScrub(ctx context.Context, wake <-chan struct{}) {
	for {
		next := s.nextScrub(time.Now())
		var timer <-chan time.Time // an abandoned timer is the garbage collector's
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer:
			if err := s.scrubOnce(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the store was not read through", "err", err)
			}
		}
	}
}

func (s *service) nextScrub(now time.Time) time.Time {
	spec := s.config().Scrub.Cron
	if spec == "" {
		return time.Time{}
	}
	schedule, err := autotrigger.ParseCron(spec, now)
	if err != nil {
		s.log.Error("scrub.cron is not followed", "err", err)
		return time.Time{}
	}
	return schedule.Next(now)
}

// scrubOnce reads everything, at most bytes_per_second of it.
func (s *service) scrubOnce(ctx context.Context) error {
	perSecond := s.config().Scrub.BytesPerSecond
	var pace func(int64) error
	if perSecond > 0 {
		limiter := rate.NewLimiter(rate.Limit(perSecond), int(min(perSecond, 1<<30)))
		pace = func(n int64) error {
			for n > 0 {
				part := min(n, int64(limiter.Burst()))
				if err := limiter.WaitN(ctx, int(part)); err != nil {
					return err
				}
				n -= part
			}
			return nil
		}
	}
	rep, err := s.store.ValidateAll(ctx, checkpoint.ID{}, pace)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	for _, p := range s.scrub.note(rep, time.Now().UTC()) {
		if !p.CheckpointID.IsZero() {
			continue // the store has told of it
		}
		s.store.LogEvent(checkpoint.Event{Type: checkpoint.EventCorrupt, Timestamp: time.Now().UTC(), Path: p.Path, Problem: p.Problem})
		s.log.Error("damage was found", "path", p.Path, "problem", p.Problem)
	}
	return nil
}

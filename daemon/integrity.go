package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// CheckpointValidate reads one checkpoint's stored bytes again.
func (s *service) CheckpointValidate(ctx context.Context, p *rpc.CheckpointParams) (*rpc.ValidateResult, error) {
	sum, err := s.summary(ctx, p.CheckpointID)
	if err != nil {
		return nil, err
	}
	v, err := s.store.Validate(ctx, p.CheckpointID)
	if err != nil {
		return nil, err
	}
	if v.Checksum == "" {
		v.Checksum = sum.Checksum // what it should be: the bytes no longer tell
	}
	return &rpc.ValidateResult{Valid: v.Valid, Checksum: v.Checksum, Problem: v.Problem}, nil
}

// CheckpointValidateAll reads everything again: a session, or the whole store, or for a
// uid that does not see all of it each of its own sessions.
func (s *service) CheckpointValidateAll(ctx context.Context, p *rpc.ValidateAllParams) (*rpc.ValidateAllResult, error) {
	id, err := s.optionalSession(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	at := time.Now().UTC()
	var rep storage.Report
	if o := s.owner(ctx); o != nil && id.IsZero() {
		rep, err = s.validateOwned(ctx, *o)
	} else {
		rep, err = s.store.ValidateAll(ctx, id, nil)
	}
	if err != nil {
		return nil, err
	}
	if id.IsZero() && s.owner(ctx) == nil {
		s.scrub.note(rep, at)
	}
	r := &rpc.ValidateAllResult{
		Valid: rep.Valid, Invalid: rep.Invalid, Skipped: rep.Skipped, Total: rep.Total,
		AllValid: rep.Invalid == 0 && rep.Skipped == 0 && len(rep.Problems) == 0,
		Problems: []rpc.Problem{}, CheckedAt: at,
	}
	for _, q := range rep.Problems {
		r.Problems = append(r.Problems, rpc.Problem(q))
	}
	return r, nil
}

func (s *service) validateOwned(ctx context.Context, owner uint32) (storage.Report, error) {
	var sum storage.Report
	err := s.eachSession(ctx, storage.SessionQuery{Owner: &owner}, func(sess checkpoint.Session) error {
		rep, err := s.store.ValidateAll(ctx, sess.ID, nil)
		sum.Valid += rep.Valid
		sum.Invalid += rep.Invalid
		sum.Skipped += rep.Skipped
		sum.Total += rep.Total
		sum.Problems = append(sum.Problems, rep.Problems...)
		return err
	})
	return sum, err
}

// eachSession calls f with every session that q selects.
func (s *service) eachSession(ctx context.Context, q storage.SessionQuery, f func(checkpoint.Session) error) error {
	q.Limit = 1000
	for {
		page, err := s.store.Sessions(ctx, q)
		if err != nil {
			return err
		}
		for _, sess := range page.Sessions {
			if err := f(sess); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Cursor = page.Next
	}
}

// Health says whether the daemon does its work, and with validate reads the newest
// checkpoints of each session back. It changes nothing: damage stays where it is.
func (s *service) Health(ctx context.Context, p *rpc.HealthParams) (*rpc.Health, error) {
	h := &rpc.Health{Healthy: true, Checks: []rpc.HealthCheck{}}
	for _, c := range s.checks() {
		h.Checks = append(h.Checks, c)
		if !c.OK {
			h.Healthy = false
			if h.Message == "" {
				h.Message = c.Name + ": " + c.Message
			}
		}
	}
	if p.Validate {
		if err := s.validateRecent(ctx, p.Recent, h); err != nil {
			return nil, err
		}
	}
	if h.Healthy {
		h.Message = "everything is well"
	}
	return h, nil
}

// checks gathers what the store, the scrub and the drain have to say.
func (s *service) checks() []rpc.HealthCheck {
	var out []rpc.HealthCheck
	for _, c := range s.store.Health().Checks {
		check := rpc.HealthCheck{Name: c.Name, OK: c.OK, Message: c.Message}
		if c.Name == rpc.FileSystemCheck {
			check.Path = s.dataDir
		}
		out = append(out, check)
	}
	out = append(out, s.scrub.check(), s.retained.check())
	if !s.drainSince().IsZero() {
		out = append(out, rpc.HealthCheck{Name: "serving", Message: "the daemon is stopping"})
	}
	return out
}

func (s *service) validateRecent(ctx context.Context, recent int, h *rpc.Health) error {
	if recent == 0 {
		recent = 5
	}
	if recent < 0 || recent > 1000 {
		return checkpoint.Invalid("recent", "%d is not between 1 and 1000", recent)
	}
	return s.eachSession(ctx, storage.SessionQuery{Owner: s.owner(ctx)}, func(sess checkpoint.Session) error {
		ids, err := s.newest(ctx, sess.ID, recent)
		if err != nil {
			return err
		}
		for _, id := range ids {
			v, err := s.store.Inspect(ctx, id)
			if err != nil {
				if isNotFound(err) {
					continue // removed since it was listed
				}
				return err
			}
			h.Checked++
			if !v.Valid {
				h.Invalid++
				h.Healthy = false
				h.Message = fmt.Sprintf("checkpoint %s is damaged: %s", id, v.Problem)
			}
		}
		return nil
	})
}

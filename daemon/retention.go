package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// retentionState remembers whether the store is held under its bound.
type retentionState struct {
	mu      sync.Mutex // guards what follows
	problem string
}

func (r *retentionState) set(problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problem = problem
}

func (r *retentionState) check() rpc.HealthCheck {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := rpc.HealthCheck{Name: "retention", OK: r.problem == "", Message: r.problem}
	if c.OK {
		c.Message = "the rules could be applied"
	}
	return c
}

// rulesOf are the session's own rules, else the configuration's.
func (s *service) rulesOf(sess checkpoint.Session) checkpoint.Retention {
	if sess.Auto != nil && sess.Auto.Retention != nil {
		return *sess.Auto.Retention
	}
	return s.config().Retention.Retention
}

// whole is an automation as the wire shows it: with the rules that hold where it has none
// of its own. What is stored stays as it was given, and follows the configuration.
func (s *service) whole(cfg *checkpoint.AutoConfig) *checkpoint.AutoConfig {
	if cfg == nil || cfg.Retention != nil {
		return cfg
	}
	c, rules := *cfg, s.config().Retention.Retention
	c.Retention = &rules
	return &c
}

// shown is a session as the wire shows it.
func (s *service) shown(sess checkpoint.Session) checkpoint.Session {
	sess.Auto = s.whole(sess.Auto)
	return sess
}

// retain applies the rules to one session after an automatic checkpoint.
func (s *service) retain(ctx context.Context, sess checkpoint.Session) {
	rules := s.rulesOf(sess)
	if rules.IsZero() {
		return
	}
	if rules.KeepRecent != nil && int64(sess.CheckpointCount) < *rules.KeepRecent {
		return // all of them are recent
	}
	c, err := s.store.Compact(context.WithoutCancel(ctx), sess.ID, rules, storage.CompactOptions{KeepNewest: true, Now: time.Now()})
	if err != nil {
		if !isNotFound(err) {
			s.log.WarnContext(ctx, "retention was not applied", "session", sess.ID, "err", err)
		}
		return
	}
	if c.Deleted > 0 {
		s.log.InfoContext(ctx, "retention removed checkpoints", "session", sess.ID, "deleted", c.Deleted, "remaining", c.Remaining)
	}
}

// retainAll applies the rules to every session, then the bound on the whole store.
func (s *service) retainAll(ctx context.Context) {
	err := s.eachSession(ctx, storage.SessionQuery{}, func(sess checkpoint.Session) error {
		s.retain(ctx, sess)
		return ctx.Err()
	})
	if err == nil {
		err = s.boundStore(ctx)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.WarnContext(ctx, "retention was not applied to the whole store", "err", err)
	}
}

// boundStore removes the oldest automatic checkpoints while the store is over
// max_store_bytes. A session's newest one stays, and what clients asked for too.
func (s *service) boundStore(ctx context.Context) error {
	limit := s.config().Retention.MaxStoreBytes
	if limit <= 0 {
		s.retained.set("")
		return nil
	}
	removed := 0
	for {
		if _, err := s.store.Sync(ctx); err != nil { // so that what was deleted is counted as gone
			return err
		}
		st, err := s.store.Stats(ctx)
		if err != nil {
			return err
		}
		if st.Bytes <= limit {
			s.retained.set("")
			break
		}
		n, err := s.removeOldest(ctx, st.Bytes-limit)
		if err != nil {
			return err
		}
		if n == 0 {
			s.retained.set(fmt.Sprintf("the store holds %d bytes and retention.max_store_bytes is %d; only manual checkpoints and each session's newest are left: delete some, or raise the bound", st.Bytes, limit))
			break
		}
		removed += n
	}
	if removed > 0 {
		s.log.InfoContext(ctx, "the store was over retention.max_store_bytes", "deleted", removed)
	}
	return nil
}

// removeOldest deletes automatic and scheduled checkpoints, oldest first, until about
// enough bytes are gone.
func (s *service) removeOldest(ctx context.Context, enough int64) (int, error) {
	newest := map[checkpoint.ID]bool{}
	if err := s.eachSession(ctx, storage.SessionQuery{}, func(sess checkpoint.Session) error {
		if sess.Last != nil {
			newest[sess.Last.ID] = true
		}
		return nil
	}); err != nil {
		return 0, err
	}
	removed := 0
	q := storage.Query{Limit: 1000}
	for enough > 0 {
		page, err := s.store.List(ctx, q)
		if err != nil {
			return removed, err
		}
		for _, raw := range page.Summaries {
			sum, err := decodeSummary(raw)
			if err != nil {
				return removed, err
			}
			if sum.Trigger == checkpoint.Manual || newest[sum.ID] || sum.Corrupt || enough <= 0 {
				continue
			}
			if err := s.store.Delete(ctx, sum.ID); err != nil && !isNotFound(err) {
				return removed, err
			}
			removed++
			enough -= sum.StateBytes + 1024 // the rest of its file, about
		}
		if page.Next == "" {
			break
		}
		q.Cursor = page.Next
	}
	return removed, nil
}

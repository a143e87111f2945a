package daemon

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// service answers the wire: one method a row of its table, one file an area.
type service struct {
	store   storage.Store
	auto    *autotrigger.Engine
	log     *slog.Logger
	uid     uint32
	started time.Time
	info    rpc.Info

	cfg     atomic.Pointer[config.Config]
	pending *pendingStates
	agents  *agents
	hub     *eventHub
	metrics metrics
	capture *capturer
	scrub   scrubStatus

	dataDir string // of the store, "" when it is kept in memory
	// wireStats is the server's own count of connections and bytes in flight.
	wireStats func() rpc.Stats
	// reload and shutdown belong to Run.
	reload   func(context.Context) (*rpc.ReloadResult, error)
	shutdown func()

	drainMu sync.RWMutex // guards draining
	// draining is when the drain began, zero before: creates received before it are made.
	draining time.Time

	retained retentionState

	kept   keptLocks
	usages usages
}

var _ rpc.Service = (*service)(nil)

// access says who may connect beside root and the daemon's own uid.
func (s *service) access() rpc.Access {
	c := s.config().Socket
	return rpc.Access{UIDs: c.AllowedUIDs, GIDs: c.AllowedGIDs}
}

func (s *service) config() *config.Config { return s.cfg.Load() }

// beginDrain makes creates received from now on be refused.
func (s *service) beginDrain(now time.Time) {
	s.drainMu.Lock()
	defer s.drainMu.Unlock()
	if s.draining.IsZero() {
		s.draining = now
	}
}

func (s *service) drainSince() time.Time {
	s.drainMu.RLock()
	defer s.drainMu.RUnlock()
	return s.draining
}

// notDraining refuses what arrived after the drain began.
func (s *service) notDraining(ctx context.Context) error {
	since := s.drainSince()
	if since.IsZero() {
		return nil
	}
	if got := rpc.Received(ctx); !got.IsZero() && got.Before(since) {
		return nil
	}
	e := checkpoint.Errorf(checkpoint.KindInvalidState, "the daemon is stopping and takes no more changes: connect again when it is back")
	e.Retry = true
	return e
}

// mayChange refuses changes while draining and in a closed session.
func (s *service) mayChange(ctx context.Context, sess checkpoint.Session) error {
	if err := s.notDraining(ctx); err != nil {
		return err
	}
	if sess.Status == checkpoint.Closed {
		return checkpoint.Errorf(checkpoint.KindInvalidState, "session %s is closed: session.reopen opens it again", sess.ID)
	}
	return nil
}

// checkState bounds a state. The frame was bounded before; this is the state's own limit.
func (s *service) checkState(field string, state []byte) error {
	if limit := s.config().Limits.StateBytes; int64(len(state)) > limit {
		return tooLarge(field, len(state), limit, "limits.state_bytes")
	}
	return nil
}

func tooLarge(field string, got int, limit int64, key string) error {
	e := checkpoint.Errorf(checkpoint.KindTooLarge, "%s is %d bytes and the limit is %d: make it smaller, or raise %s in the configuration", field, got, limit, key)
	e.Field = field
	return e
}

func ptr[T any](v T) *T { return &v }

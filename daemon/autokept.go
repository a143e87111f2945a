package daemon

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// keptLocks order the changes of what is kept beside one session. Sessions that share a
// lock wait for each other's flush now and then; most changes go into one flush together.
type keptLocks [64]sync.Mutex

// hold locks for a session and returns what unlocks.
func (l *keptLocks) hold(id checkpoint.ID) (release func()) {
	mu := &l[id[len(id)-1]%byte(len(l))]
	mu.Lock()
	return mu.Unlock
}

// keptAuto is what the store keeps beside a session for its automation.
type keptAuto struct {
	Engine json.RawMessage `json:"engine,omitempty"`
	// Configured: the automation is the configuration file's, and ends with its entry there,
	// also when that goes while no daemon runs.
	Configured bool `json:"configured,omitempty"`
}

func (s *service) keptAuto(ctx context.Context, id checkpoint.ID) (keptAuto, error) {
	raw, err := s.store.AutoState(ctx, id)
	if err != nil || len(raw) == 0 {
		return keptAuto{}, err
	}
	var k keptAuto
	if err := json.Unmarshal(raw, &k); err != nil {
		return keptAuto{}, checkpoint.Errorf(checkpoint.KindInternal, "reading what was kept of a session's automation: %w", err)
	}
	return k, nil
}

func (s *service) keepAuto(ctx context.Context, id checkpoint.ID, change func(*keptAuto)) error {
	defer s.kept.hold(id)()
	k, err := s.keptAuto(ctx, id)
	if err != nil {
		return err
	}
	change(&k)
	raw, err := json.Marshal(k)
	if err != nil {
		return checkpoint.Errorf(checkpoint.KindInternal, "keeping a session's automation: %w", err)
	}
	_, err = s.store.ChangeSession(ctx, id, storage.SessionChange{AutoState: raw})
	return err
}

// saveAutoState keeps the engine's own state of a session.
func (s *service) saveAutoState(ctx context.Context, id checkpoint.ID, state json.RawMessage) error {
	return s.keepAuto(ctx, id, func(k *keptAuto) { k.Engine = state })
}

// loadAutoState is what saveAutoState kept, nil for nothing.
func (s *service) loadAutoState(ctx context.Context, id checkpoint.ID) (json.RawMessage, error) {
	k, err := s.keptAuto(ctx, id)
	return k.Engine, err
}

// submitWith is submit of a checkpoint that the engine's state of the session goes with,
// nil for none: both are kept or neither.
func (s *service) submitWith(ctx context.Context, c *storage.NewCheckpoint, from stateFrom, engine json.RawMessage) (checkpoint.Receipt, error) {
	if len(engine) == 0 {
		return s.submit(ctx, c, from)
	}
	defer s.kept.hold(c.SessionID)()
	k, err := s.keptAuto(ctx, c.SessionID)
	if err == nil {
		k.Engine = engine
		c.AutoState, err = json.Marshal(k)
	}
	if err != nil {
		s.log.WarnContext(ctx, "the automation's state does not go with its checkpoint", "session", c.SessionID, "err", err)
	}
	return s.submit(ctx, c, from)
}

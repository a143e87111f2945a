package daemon

import (
	"context"
	"encoding/json"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

var emptyState = json.RawMessage("{}")

// CheckpointCreate makes a checkpoint durable. Its order is fixed by Submit; after Admit
// the connection's next create for the session joins the same fsync.
func (s *service) CheckpointCreate(ctx context.Context, p *rpc.CheckpointCreateParams) (*checkpoint.Receipt, error) {
	start := time.Now()
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, sess); err != nil {
		return nil, err
	}
	if err := s.checkState("state", p.State); err != nil {
		return nil, err
	}
	if limit := s.config().Limits.MetadataBytes; int64(len(p.Metadata)) > limit {
		return nil, tooLarge("metadata", len(p.Metadata), limit, "limits.metadata_bytes")
	}
	c := &storage.NewCheckpoint{
		ID: p.CheckpointID, SessionID: sess.ID, Message: p.Message, Tags: p.Tags, Trigger: checkpoint.Manual,
		ParentID: p.ParentID, Metadata: p.Metadata, State: p.State,
	}
	if p.ExpectedHeadID != nil {
		c.ExpectedHead = &p.ExpectedHeadID.ID
	}
	if !c.ParentID.IsZero() && s.owner(ctx) != nil {
		// The store knows every checkpoint; this caller only those of its own sessions.
		if _, err := s.summary(ctx, c.ParentID); err != nil {
			return nil, err
		}
	}
	from, err := s.stateOfCreate(ctx, c)
	if err != nil {
		return nil, err
	}
	c.Context = s.contextOf(ctx, sess, rpc.PeerFrom(ctx), from.source)
	r, err := s.submit(ctx, c, from)
	if err != nil {
		return nil, err
	}
	s.metrics.createSeconds.observe(time.Since(start))
	s.auto.Note(sess.ID, r.Timestamp)
	return &r, nil
}

// stateFrom says where a checkpoint's state came from. A taken one goes back when the
// create fails; without taken, revision is the put_state that the checkpoint outdates.
type stateFrom struct {
	source   checkpoint.StateSource
	taken    []byte
	revision uint64
}

// stateOfCreate fills in a state that was left out: the last put_state, else {}.
func (s *service) stateOfCreate(ctx context.Context, c *storage.NewCheckpoint) (stateFrom, error) {
	if c.State != nil {
		return stateFrom{source: checkpoint.StateGiven, revision: s.pending.revision(c.SessionID)}, nil
	}
	if !c.ID.IsZero() {
		// A create that is sent again left its state out again: it means what it got then.
		if old, ok := s.takenBefore(ctx, c); ok {
			c.State = old
			return stateFrom{source: checkpoint.StatePut}, nil
		}
	}
	state, rev, ok, err := s.pending.take(c.SessionID)
	if err != nil {
		return stateFrom{}, err
	}
	if !ok {
		c.State = emptyState
		return stateFrom{source: checkpoint.StateNone}, nil
	}
	c.State = state
	return stateFrom{source: checkpoint.StatePut, taken: state, revision: rev}, nil
}

// takenBefore is the state of the checkpoint with c's id, when that one's was left out too.
func (s *service) takenBefore(ctx context.Context, c *storage.NewCheckpoint) ([]byte, bool) {
	sum, err := s.store.Summary(ctx, c.ID)
	if err != nil || sum.SessionID != c.SessionID {
		return nil, false
	}
	st, err := s.store.Get(ctx, c.ID)
	if err != nil {
		return nil, false
	}
	var got struct {
		Context struct {
			Source checkpoint.StateSource `json:"state_source"`
		} `json:"context"`
	}
	if json.Unmarshal(st.Raw, &got) != nil || got.Context.Source == checkpoint.StateGiven {
		return nil, false
	}
	return st.State, true
}

// submit waits for a create. A change that was received is made: the connection's end
// does not undo it.
func (s *service) submit(ctx context.Context, c *storage.NewCheckpoint, from stateFrom) (checkpoint.Receipt, error) {
	type result struct {
		r   checkpoint.Receipt
		err error
	}
	id := c.SessionID
	done := make(chan result, 1)
	s.store.Submit(context.WithoutCancel(ctx), c, func(r checkpoint.Receipt, err error) { done <- result{r, err} })
	rpc.Admit(ctx)
	got := <-done
	if got.err != nil {
		if from.taken != nil {
			if err := s.pending.giveBack(id, from.taken, from.revision); err != nil {
				s.log.ErrorContext(ctx, "a state kept aside was lost with its failed checkpoint", "session", id, "err", err)
			}
		}
		return got.r, got.err
	}
	if from.taken == nil && from.revision != 0 && !got.r.Existing {
		// A newer state than the one put before it. What was put since then stays.
		if err := s.pending.drop(id, from.revision); err != nil {
			s.log.WarnContext(ctx, "a state kept aside was not removed", "session", id, "err", err)
		}
	}
	s.pending.taken(id, got.r.CheckpointID)
	s.metrics.creates.Add(1)
	return got.r, nil
}

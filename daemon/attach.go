package daemon

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// agent is the connection that said it is a session's agent.
type agent struct {
	peer          rpc.Peer
	providesState bool
}

// agents holds one agent a session; the last to attach is it.
type agents struct {
	mu sync.Mutex // guards by
	by map[checkpoint.ID]agent
}

func newAgents() *agents { return &agents{by: map[checkpoint.ID]agent{}} }

func (a *agents) attach(id checkpoint.ID, ag agent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by[id] = ag
}

func (a *agents) detach(id checkpoint.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.by, id)
}

func (a *agents) of(id checkpoint.ID) (agent, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ag, ok := a.by[id]
	return ag, ok
}

// gone detaches a connection from all of its sessions and returns them.
func (a *agents) gone(conn uint64) []checkpoint.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []checkpoint.ID
	for id, ag := range a.by {
		if ag.peer.ConnID() == conn {
			delete(a.by, id)
			ids = append(ids, id)
		}
	}
	return ids
}

// SessionAttach makes the calling connection the session's agent.
func (s *service) SessionAttach(ctx context.Context, p *rpc.AttachParams) (*rpc.AttachResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, sess); err != nil {
		return nil, err
	}
	peer := rpc.PeerFrom(ctx)
	if peer == nil {
		return nil, checkpoint.Errorf(checkpoint.KindInternal, "session.attach outside a connection")
	}
	s.agents.attach(sess.ID, agent{peer: peer, providesState: p.ProvidesState})
	return &rpc.AttachResult{Attached: true}, nil
}

// SessionDetach takes the session's agent away, whichever connection that was: nothing is
// taken when it drops.
func (s *service) SessionDetach(ctx context.Context, p *rpc.SessionParams) (*rpc.DetachResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	s.agents.detach(sess.ID)
	return &rpc.DetachResult{Detached: true}, nil
}

// Disconnected ends what belonged to a connection. An agent that dropped without saying
// so leaves a last checkpoint of the state it had put.
func (s *service) Disconnected(peer rpc.Peer) {
	s.hub.dropConn(peer.ConnID())
	s.capture.forget(peer.ConnID())
	ctx := context.Background()
	for _, id := range s.agents.gone(peer.ConnID()) {
		s.takeUnsaved(ctx, id, "the agent's connection ended")
	}
}

// takeUnsaved checkpoints a put state that differs from the newest checkpoint's. A session
// that was closed has had its agent's last word.
func (s *service) takeUnsaved(ctx context.Context, id checkpoint.ID, message string) {
	state, rev, ok, err := s.pending.peek(id)
	if err == nil && !ok {
		return
	}
	if sess, gone := s.store.Session(ctx, storage.Ref{ID: id}); gone != nil || sess.Status == checkpoint.Closed {
		return
	}
	if err == nil {
		newest, latestErr := s.store.Latest(ctx, id)
		if latestErr == nil && newest != nil && bytes.Equal(newest.State, state) {
			err = s.pending.drop(id, rev) // the newest checkpoint holds it
			if err == nil {
				return
			}
		}
	}
	if err != nil {
		s.log.ErrorContext(ctx, "the last state of an agent was not saved", "session", id, "err", err)
		return
	}
	out, err := s.auto.Trigger(ctx, autotrigger.Trigger{
		Session: id, Cause: checkpoint.CauseDisconnect, Message: message, Always: true,
	})
	switch {
	case errors.Is(err, checkpoint.ErrInvalidState), errors.Is(err, checkpoint.ErrNotFound):
		// It was closed or deleted meanwhile.
	case err != nil:
		s.log.ErrorContext(ctx, "the last state of an agent was not saved", "session", id, "err", err)
	case out.Skipped == "":
		s.log.InfoContext(ctx, "the last state of an agent was saved", "session", id, "checkpoint", out.CheckpointID)
	}
}

// askAgent asks the attached agent for its state. No agent, no answer in time, an error
// and an answer without a state are all "no": the last put_state is taken then.
func (s *service) askAgent(ctx context.Context, id checkpoint.ID, cause checkpoint.Cause) ([]byte, bool) {
	ag, ok := s.agents.of(id)
	if !ok || !ag.providesState {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, s.config().Capture.Timeout)
	defer cancel()
	var reply rpc.CaptureReply
	err := ag.peer.Call(ctx, "state.capture", rpc.CaptureRequest{SessionID: id, Cause: cause}, &reply)
	var state []byte
	switch {
	case err != nil:
	case reply.State == nil:
		err = errors.New("the answer has no state")
	default:
		if state, err = rawjson.Compact(nil, reply.State, s.config().Limits.JSONDepth); err == nil {
			err = s.checkState("state", state)
		}
	}
	if err != nil {
		s.metrics.captureFailures.Add(1)
		s.log.WarnContext(ctx, "the agent did not give its state: its last put_state is taken", "session", id, "err", err)
		return nil, false
	}
	return state, true
}

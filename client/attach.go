package client

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// CaptureFunc gives the state of a session at this moment. The daemon waits a few seconds
// for it (its capture.timeout) and then takes the last PutState instead; so it does after an error.
type CaptureFunc func(ctx context.Context, r rpc.CaptureRequest) (state json.RawMessage, err error)

type attachment struct{ capture CaptureFunc }

// Attach makes this client the session's agent: session.attach. With a capture function
// the daemon asks it for the state whenever a trigger fires; it is called from a goroutine
// of its own. When this program ends without CloseSession or Detach, the daemon keeps the last
// PutState in a checkpoint with cause disconnect. Attach holds across reconnections.
func (c *Client) Attach(ctx context.Context, s rpc.SessionRef, capture CaptureFunc) error {
	id := s.SessionID
	if id.IsZero() {
		session, err := c.Session(ctx, s)
		if err != nil {
			return err
		}
		id = session.ID
	}
	c.mu.Lock()
	before, had := c.attached[id]
	if c.attached == nil {
		c.attached = map[checkpoint.ID]attachment{}
	}
	c.attached[id] = attachment{capture} // before the call: its first question may outrun its answer
	c.mu.Unlock()
	_, err := c.Call(ctx, "session.attach", rpc.AttachParams{SessionRef: ByID(id), ProvidesState: capture != nil})
	if err != nil {
		c.mu.Lock()
		delete(c.attached, id)
		if had {
			c.attached[id] = before
		}
		c.mu.Unlock()
	}
	return err
}

// Detach ends Attach: session.detach.
func (c *Client) Detach(ctx context.Context, s rpc.SessionRef) error {
	id := s.SessionID
	if id.IsZero() {
		session, err := c.Session(ctx, s)
		if err != nil {
			return err
		}
		id = session.ID
	}
	c.mu.Lock()
	delete(c.attached, id)
	c.mu.Unlock()
	_, err := c.Call(ctx, "session.detach", rpc.SessionParams{SessionRef: ByID(id)})
	return err
}

// attachAgain makes a new connection the agent of the sessions that the old one had.
func (c *Client) attachAgain(ctx context.Context, cn *conn) error {
	c.mu.Lock()
	todo := make(map[checkpoint.ID]attachment, len(c.attached))
	for id, a := range c.attached {
		todo[id] = a
	}
	c.mu.Unlock()
	for id, a := range todo {
		body, err := encode(rpc.AttachParams{SessionRef: ByID(id), ProvidesState: a.capture != nil})
		if err != nil {
			return err
		}
		if _, err := cn.call(ctx, "session.attach", body); err != nil {
			return fmt.Errorf("attaching session %s again: %w", id, err)
		}
	}
	return nil
}

// capture answers the daemon's state.capture.
func (c *Client) capture(ctx context.Context, method string, params json.RawMessage) (any, error) {
	if method != "state.capture" {
		return nil, unknownMethod(method)
	}
	var r rpc.CaptureRequest
	if err := json.Unmarshal(params, &r); err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInvalidParams, "%w", err)
	}
	c.mu.Lock()
	a := c.attached[r.SessionID]
	c.mu.Unlock()
	if a.capture == nil {
		return nil, checkpoint.Errorf(checkpoint.KindNotFound, "session %s is not attached here", r.SessionID)
	}
	state, err := a.capture(ctx, r)
	if err != nil {
		return nil, err
	}
	return rpc.CaptureReply{State: state}, nil
}

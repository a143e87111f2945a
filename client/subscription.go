package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

var (
	// ErrOverflow: this subscriber did not keep up, and the daemon ended the subscription.
	// Nothing is lost yet: the next call of Next resumes after the last event given out.
	ErrOverflow = errors.New("events came faster than they were read")
	// ErrEventsLost: the daemon no longer has all events since the cursor. What changed
	// meanwhile must be listed anew; the next call of Next goes on from now.
	ErrEventsLost = errors.New("older events are gone: list anew what you follow")
)

// Event is an event and the cursor that resumes after it.
type Event struct {
	checkpoint.Event
	Cursor string          // give it as SinceCursor to go on from here, even in another process
	Raw    json.RawMessage // the event as it came
}

// Subscription follows events. It has a connection of its own, which is read only as fast
// as Next is called: a slow reader costs neither memory here nor time in the other calls
// of the Client. It survives restarts of the daemon: Next connects again and resumes after
// the last event that it gave out. Not safe for concurrent use.
type Subscription struct {
	client *Client
	params rpc.SubscribeParams
	cursor string
	fresh  bool
	conn   *eventConn
}

// Subscribe begins to follow events: events.subscribe. Without SinceCursor it is from now
// on; with one whose events are gone, Fresh is true.
func (c *Client) Subscribe(ctx context.Context, p rpc.SubscribeParams) (*Subscription, error) {
	s := &Subscription{client: c, params: p}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Fresh tells that the first cursor was too old, or that none was given: list what you follow.
func (s *Subscription) Fresh() bool { return s.fresh }

// Cursor resumes after the last event that was given out.
func (s *Subscription) Cursor() string { return s.cursor }

// Close ends the subscription and its connection.
func (s *Subscription) Close() error {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
	return nil
}

// Next waits for the next event. ErrOverflow and ErrEventsLost are told once each and the
// subscription goes on; after another error it is over.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	r := s.client.newRetry()
	for {
		resumed := false
		if s.conn == nil {
			since := s.cursor
			s.params.SinceCursor = &since
			err := s.open(ctx)
			if r.again(ctx, "events.subscribe", err) {
				continue
			}
			if err != nil {
				return Event{}, err
			}
			resumed = true
		}
		if resumed && s.fresh {
			return Event{}, ErrEventsLost
		}
		ev, err := s.conn.next(ctx)
		switch {
		case err == nil:
			s.cursor = ev.Cursor
			return ev, nil
		case ctx.Err() != nil:
			return Event{}, context.Cause(ctx)
		}
		s.conn.close()
		s.conn = nil
		if errors.Is(err, ErrOverflow) {
			return Event{}, err
		}
		if !r.again(ctx, "events.subscribe", &lostError{err: err}) {
			return Event{}, &lostError{err: err}
		}
	}
}

// All gives events until ctx ends, the loop stops, or an error other than ErrOverflow
// and ErrEventsLost was given out.
func (s *Subscription) All(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			ev, err := s.Next(ctx)
			if ctx.Err() != nil {
				return
			}
			goesOn := err == nil || errors.Is(err, ErrOverflow) || errors.Is(err, ErrEventsLost)
			if !yield(ev, err) || !goesOn {
				return
			}
		}
	}
}

func (s *Subscription) open(ctx context.Context) error {
	ec := &eventConn{got: make(chan notification), gone: make(chan struct{})}
	cn, err := s.client.open(ctx, nil, ec.notify)
	if err != nil {
		return err
	}
	ec.conn = cn
	body, err := encode(s.params)
	if err != nil {
		ec.close()
		return err
	}
	raw, err := cn.call(ctx, "events.subscribe", body)
	ec.mu.Lock()
	ec.ready = true
	ec.mu.Unlock()
	if err != nil {
		ec.close()
		return err
	}
	var r rpc.SubscribeResult
	if err := json.Unmarshal(raw, &r); err != nil {
		ec.close()
		return fmt.Errorf("the daemon's answer to events.subscribe: %w", err)
	}
	s.cursor, s.fresh, s.conn = r.Cursor, r.Fresh, ec
	s.client.mu.Lock()
	s.client.was = true
	s.client.mu.Unlock()
	return nil
}

type notification struct {
	method string
	params json.RawMessage
}

// eventConn hands notifications from the connection's reader to Next, one at a time.
type eventConn struct {
	conn *conn
	got  chan notification
	gone chan struct{}

	mu    sync.Mutex // guards what follows
	ready bool       // the answer to events.subscribe is here
	early []notification
}

// notify runs in the connection's reader: while it waits, nothing more is read.
func (e *eventConn) notify(method string, params json.RawMessage) {
	e.mu.Lock()
	if !e.ready { // it outran the answer to events.subscribe, which must still be read
		e.early = append(e.early, notification{method, params})
		e.mu.Unlock()
		return
	}
	e.mu.Unlock()
	select {
	case e.got <- notification{method, params}:
	case <-e.gone:
	}
}

// outran takes the first of what came before the subscription's answer.
func (e *eventConn) outran() (notification, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.early) == 0 {
		return notification{}, false
	}
	n := e.early[0]
	e.early = e.early[1:]
	return n, true
}

func (e *eventConn) next(ctx context.Context) (Event, error) {
	for {
		n, ok := e.outran()
		if !ok {
			select {
			case n = <-e.got:
			case <-ctx.Done():
				return Event{}, ctx.Err()
			case <-e.conn.ctx.Done():
				e.conn.mu.Lock()
				defer e.conn.mu.Unlock()
				return Event{}, e.conn.err
			}
		}
		switch n.method {
		case "overflow":
			return Event{}, ErrOverflow
		case "event":
			var p struct {
				Cursor string          `json:"cursor"`
				Event  json.RawMessage `json:"event"`
			}
			ev := Event{}
			if err := json.Unmarshal(n.params, &p); err != nil {
				return Event{}, fmt.Errorf("an event cannot be read: %w", err)
			}
			if err := json.Unmarshal(p.Event, &ev.Event); err != nil {
				return Event{}, fmt.Errorf("an event cannot be read: %w", err)
			}
			ev.Cursor, ev.Raw = p.Cursor, p.Event
			return ev, nil
		}
	}
}

func (e *eventConn) close() {
	close(e.gone)
	e.conn.close()
}

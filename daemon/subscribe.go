package daemon

import (
	"context"
	"slices"
	"strconv"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// EventsSubscribe starts notifications, after its own reply.
func (s *service) EventsSubscribe(ctx context.Context, p *rpc.SubscribeParams) (*rpc.SubscribeResult, error) {
	id, err := s.optionalSession(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	for i, t := range p.Types {
		if !slices.Contains(checkpoint.EventTypes, t) {
			return nil, checkpoint.Invalid("types["+strconv.Itoa(i)+"]", "%.64q is no event type: rpc.discover lists them", string(t))
		}
	}
	peer := rpc.PeerFrom(ctx)
	if peer == nil {
		return nil, checkpoint.Errorf(checkpoint.KindInternal, "events.subscribe outside a connection")
	}
	since := ""
	if p.SinceCursor != nil {
		if since = *p.SinceCursor; since == "" {
			return nil, checkpoint.Invalid("since_cursor", "is empty: give a cursor that an event or events.subscribe gave you, or leave it out")
		}
	}
	page, err := s.store.Events(ctx, since, 1)
	if err != nil {
		return nil, err
	}
	cursor := since
	if since == "" || page.Fresh {
		if cursor, err = s.nowCursor(ctx); err != nil {
			return nil, err
		}
	}
	sub := &subscription{peer: peer, owner: s.owner(ctx), session: id, types: p.Types, cursor: cursor}
	if err := s.hub.add(sub, s.config().Limits.SubscriptionsPerConnection); err != nil {
		return nil, err
	}
	rpc.AfterReply(ctx, func() { s.hub.begin(sub) })
	return &rpc.SubscribeResult{SubscriptionID: sub.id, Cursor: cursor, Fresh: since == "" || page.Fresh}, nil
}

// nowCursor is the place after the newest durable event.
func (s *service) nowCursor(ctx context.Context) (string, error) {
	page, err := s.store.Events(ctx, "", 1)
	return page.Cursor, err
}

// EventsUnsubscribe ends a subscription of this connection.
func (s *service) EventsUnsubscribe(ctx context.Context, p *rpc.UnsubscribeParams) (*rpc.UnsubscribeResult, error) {
	peer := rpc.PeerFrom(ctx)
	if peer == nil || !s.hub.drop(p.SubscriptionID, peer.ConnID()) {
		return nil, checkpoint.Errorf(checkpoint.KindNotFound, "this connection has no subscription %.64q", p.SubscriptionID)
	}
	return &rpc.UnsubscribeResult{Unsubscribed: true}, nil
}

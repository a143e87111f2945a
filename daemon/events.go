package daemon

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

const (
	eventPage = 1000
	// hubRing is how many of the last events a subscriber that catches up finds in memory;
	// it only has to span what happens while one page is replayed.
	hubRing = 4096
	// replayPatience is how long a replay waits for a peer that does not read before it
	// ends in an overflow; live events never wait.
	replayPatience = 10 * time.Second
	maxOwners      = 100_000 // remembered; 40 bytes each
)

// eventHub follows the store's events with one reader and hands each to the subscribers
// it concerns. Notify queues and never waits, so no writer and no other subscriber does.
type eventHub struct {
	store storage.Store
	log   *slog.Logger
	owner func(context.Context, checkpoint.ID) (uint32, bool) // of a session

	overflows atomic.Uint64
	nextID    atomic.Uint64

	mu      sync.Mutex // guards what follows
	subs    map[string]*subscription
	ring    []storage.EventRecord
	cursor  string        // of the newest event handed out
	started bool          // cursor is known
	moved   chan struct{} // closed when cursor changes
	closed  bool

	ownersMu sync.Mutex // guards owners; taken after mu
	// owners remembers whose a session is, so that its owner hears of its deletion.
	owners map[checkpoint.ID]uint32

	work sync.WaitGroup // replays and overflow notices
	stop context.Context
}

// subscription is one events.subscribe.
type subscription struct {
	id      string
	peer    rpc.Peer
	owner   *uint32
	session checkpoint.ID
	types   []checkpoint.EventType
	cursor  string // of the last event sent or passed over; guarded by the hub's mu when live
	live    bool
	ctx     context.Context
	cancel  context.CancelFunc
}

func newEventHub(store storage.Store, log *slog.Logger) *eventHub {
	h := &eventHub{store: store, log: log, subs: map[string]*subscription{}, owners: map[checkpoint.ID]uint32{}, moved: make(chan struct{})}
	h.owner = func(ctx context.Context, id checkpoint.ID) (uint32, bool) {
		sess, err := store.Session(ctx, storage.Ref{ID: id})
		return sess.OwnerUID, err == nil
	}
	return h
}

// start fixes the place from which events are handed out.
func (h *eventHub) start(ctx context.Context) error {
	page, err := h.store.Events(ctx, "", 1)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop, h.cursor, h.started = ctx, page.Cursor, true
	return nil
}

// run hands events out until ctx ends, and returns after its helpers have.
func (h *eventHub) run(ctx context.Context) {
	defer h.shut()
	for {
		changed := h.store.EventsChanged()
		n, err := h.advance(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.log.Error("reading events failed and is tried again", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return
			}
		case n == 0:
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (h *eventHub) shut() {
	h.mu.Lock()
	h.closed = true
	for id, sub := range h.subs {
		sub.cancel()
		delete(h.subs, id)
	}
	h.mu.Unlock()
	h.work.Wait()
}

// advance hands out one page.
func (h *eventHub) advance(ctx context.Context) (int, error) {
	h.mu.Lock()
	from := h.cursor
	h.mu.Unlock()
	page, err := h.store.Events(ctx, from, eventPage)
	if err != nil {
		return 0, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if page.Fresh {
		// The hub fell behind by all that the store keeps: every subscriber must list anew.
		for _, sub := range h.subs {
			if sub.live {
				h.overflow(sub)
			}
		}
		h.ring = nil
	}
	for _, rec := range page.Events {
		h.hand(ctx, rec)
	}
	if page.Cursor != h.cursor {
		h.cursor = page.Cursor
		close(h.moved)
		h.moved = make(chan struct{})
	}
	return len(page.Events), nil
}

// hand gives one event to the live subscribers. h.mu is held.
func (h *eventHub) hand(ctx context.Context, rec storage.EventRecord) {
	h.ring = append(h.ring, rec)
	if len(h.ring) > 2*hubRing {
		h.ring = slices.Clone(h.ring[len(h.ring)-hubRing:])
	}
	for _, sub := range h.subs {
		if !sub.live {
			continue
		}
		if h.wants(ctx, sub, rec.Event) && !sub.peer.Notify("event", sub.notification(rec)) {
			h.overflow(sub)
			continue
		}
		sub.cursor = rec.Cursor
	}
}

func (sub *subscription) notification(rec storage.EventRecord) rpc.EventNotification {
	return rpc.EventNotification{SubscriptionID: sub.id, Cursor: rec.Cursor, Event: rec.Event}
}

// wants filters. Other uids see the events of their own sessions only; those of damage
// that belongs to no session, only who sees all.
func (h *eventHub) wants(ctx context.Context, sub *subscription, e checkpoint.Event) bool {
	if !sub.session.IsZero() && e.SessionID != sub.session {
		return false
	}
	if len(sub.types) > 0 && !slices.Contains(sub.types, e.Type) {
		return false
	}
	if sub.owner == nil || !sub.session.IsZero() { // a named session was looked at when subscribing
		return true
	}
	h.ownersMu.Lock()
	defer h.ownersMu.Unlock()
	owner, ok := h.owners[e.SessionID]
	if e.OwnerUID != nil { // the session may be gone by now
		owner, ok = *e.OwnerUID, true
		h.remember(e.SessionID, owner)
	}
	if !ok {
		if owner, ok = h.owner(ctx, e.SessionID); !ok {
			return false
		}
		h.remember(e.SessionID, owner)
	}
	return owner == *sub.owner
}

// remember keeps a session's owner. h.ownersMu is held.
func (h *eventHub) remember(id checkpoint.ID, owner uint32) {
	if len(h.owners) >= maxOwners {
		clear(h.owners)
	}
	h.owners[id] = owner
}

// overflow ends a subscription whose peer does not keep up, and tells it where to resume.
// h.mu is held.
func (h *eventHub) overflow(sub *subscription) {
	h.overflows.Add(1)
	delete(h.subs, sub.id)
	sub.live = false
	notice := rpc.OverflowNotification{SubscriptionID: sub.id, Cursor: sub.cursor}
	h.goWork(func() {
		defer sub.cancel()
		// The peer's queue is full: the notice waits for room, as long as it is there.
		if err := sub.peer.NotifyWait(sub.ctx, "overflow", notice); err != nil {
			h.log.Debug("a subscriber left before it read its overflow", "subscription", sub.id, "err", err)
		}
	})
}

// goWork runs f as one of the hub's helpers. h.mu is held.
func (h *eventHub) goWork(f func()) {
	if !h.closed {
		h.work.Go(f)
	}
}

// add makes a subscription that is not live yet.
func (h *eventHub) add(sub *subscription, perConn int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || !h.started {
		return checkpoint.Errorf(checkpoint.KindInvalidState, "the daemon is stopping: connect again when it is back")
	}
	n := 0
	for _, other := range h.subs {
		if other.peer.ConnID() == sub.peer.ConnID() {
			n++
		}
	}
	if n >= perConn {
		return checkpoint.Errorf(checkpoint.KindOverloaded, "this connection has %d subscriptions, the most that limits.subscriptions_per_connection allows: end one first", n)
	}
	sub.id = "sub-" + strconv.FormatUint(h.nextID.Add(1), 10)
	sub.ctx, sub.cancel = context.WithCancel(h.stop)
	h.subs[sub.id] = sub
	return nil
}

// begin makes a subscription live, after a replay of what came since its cursor.
func (h *eventHub) begin(sub *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[sub.id] == sub && !h.join(sub) {
		h.goWork(func() { h.replay(sub) })
	}
}

// join makes sub live if its cursor is at the hub's own or within the ring. h.mu is held.
func (h *eventHub) join(sub *subscription) bool {
	if sub.cursor == h.cursor {
		sub.live = true
		return true
	}
	at := slices.IndexFunc(h.ring, func(r storage.EventRecord) bool { return r.Cursor == sub.cursor })
	// What is left in the ring is queued at once, so it must be little; more is replayed.
	if at < 0 || len(h.ring)-at > 64 {
		return false
	}
	sub.live = true
	for _, rec := range h.ring[at+1:] {
		if h.wants(sub.ctx, sub, rec.Event) && !sub.peer.Notify("event", sub.notification(rec)) {
			h.overflow(sub)
			return true
		}
		sub.cursor = rec.Cursor
	}
	return true
}

// replay reads the store's events for one subscription until it meets the hub. It may
// read past the hub: then it waits for the hub to pass.
func (h *eventHub) replay(sub *subscription) {
	for {
		h.mu.Lock()
		if h.subs[sub.id] != sub || h.join(sub) {
			h.mu.Unlock()
			return
		}
		moved := h.moved
		h.mu.Unlock()

		page, err := h.store.Events(sub.ctx, sub.cursor, eventPage)
		if err != nil || page.Fresh {
			h.end(sub, err)
			return
		}
		for _, rec := range page.Events {
			if h.wants(sub.ctx, sub, rec.Event) && !h.sendPatiently(sub, rec) {
				h.end(sub, nil)
				return
			}
			sub.cursor = rec.Cursor
		}
		if len(page.Events) > 0 {
			continue
		}
		sub.cursor = page.Cursor
		h.mu.Lock()
		met := sub.cursor == h.cursor
		h.mu.Unlock()
		if met {
			continue
		}
		select {
		case <-moved:
		case <-sub.ctx.Done():
			return
		case <-sub.peer.Done():
			return
		}
	}
}

func (h *eventHub) sendPatiently(sub *subscription, rec storage.EventRecord) bool {
	ctx, cancel := context.WithTimeout(sub.ctx, replayPatience)
	defer cancel()
	return sub.peer.NotifyWait(ctx, "event", sub.notification(rec)) == nil
}

// end closes a subscription whose replay cannot go on.
func (h *eventHub) end(sub *subscription, err error) {
	if err != nil && sub.ctx.Err() == nil {
		h.log.Error("replaying events failed", "subscription", sub.id, "err", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[sub.id] == sub {
		h.overflow(sub)
	}
}

// drop ends a subscription of a connection; false when it has none of that id.
func (h *eventHub) drop(id string, conn uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := h.subs[id]
	if sub == nil || sub.peer.ConnID() != conn {
		return false
	}
	sub.cancel()
	delete(h.subs, id)
	return true
}

// dropConn ends all subscriptions of a connection that is gone.
func (h *eventHub) dropConn(conn uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, sub := range h.subs {
		if sub.peer.ConnID() == conn {
			sub.cancel()
			delete(h.subs, id)
		}
	}
}

func (h *eventHub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// eventStore is a store of which only the events are there.
type eventStore struct {
	storage.Store
	mu      sync.Mutex
	events  []storage.EventRecord
	changed chan struct{}
}

func (s *eventStore) Events(_ context.Context, cursor string, limit int) (storage.EventPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cursor == "" {
		return storage.EventPage{Cursor: strconv.Itoa(len(s.events)), Fresh: true}, nil
	}
	from, err := strconv.Atoi(cursor)
	if err != nil {
		return storage.EventPage{}, checkpoint.Invalid("since_cursor", "is none")
	}
	to := min(len(s.events), from+limit)
	return storage.EventPage{Events: s.events[from:to:to], Cursor: strconv.Itoa(to)}, nil
}

func (s *eventStore) EventsChanged() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *eventStore) LogEvent(e checkpoint.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, storage.EventRecord{Cursor: strconv.Itoa(len(s.events) + 1), Event: e})
	close(s.changed)
	s.changed = make(chan struct{})
}

// reader is a peer with room for so many notifications.
type reader struct {
	rpc.Peer
	id   uint64
	room int
	done chan struct{}

	mu       sync.Mutex
	got      []uint64
	overflow string // its cursor
	more     chan struct{}
}

func (r *reader) ConnID() uint64        { return r.id }
func (r *reader) Done() <-chan struct{} { return r.done }
func (r *reader) UID() uint32           { return 0 }

func (r *reader) Notify(_ string, params any) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.room == 0 {
		return false
	}
	r.room--
	switch p := params.(type) {
	case rpc.EventNotification:
		r.got = append(r.got, p.Event.Sequence)
	case rpc.OverflowNotification:
		r.overflow = p.Cursor
	}
	return true
}

func (r *reader) NotifyWait(ctx context.Context, method string, params any) error {
	for !r.Notify(method, params) {
		select {
		case <-r.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// read makes room.
func (r *reader) read(n int) {
	r.mu.Lock()
	r.room += n
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *reader) seen() ([]uint64, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.got...), r.overflow
}

func inOrder(got []uint64, first, last uint64) error {
	if uint64(len(got)) != last-first+1 {
		return fmt.Errorf("%d events, want %d", len(got), last-first+1)
	}
	for i, n := range got {
		if n != first+uint64(i) {
			return fmt.Errorf("event %d at place %d, want %d", n, i, first+uint64(i))
		}
	}
	return nil
}

// A hundred subscribers join at different places while events come; some never read. The
// readers get each event once, in order; the others are told where to go on, and do.
func TestSubscribersLoseAndDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const before, during, live, subs = 3000, 5000, 100, 100
		store := &eventStore{changed: make(chan struct{})}
		log := func(n int) { store.LogEvent(checkpoint.Event{Type: checkpoint.EventCreated, Sequence: uint64(n)}) }
		h := newEventHub(store, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		for n := 1; n <= before; n++ {
			log(n)
		}
		if err := h.start(ctx); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { h.run(ctx) })
		subscribe := func(r *reader, cursor string) {
			sub := &subscription{peer: r, cursor: cursor}
			if err := h.add(sub, 64); err != nil {
				t.Error(err)
				return
			}
			h.begin(sub)
		}
		readers := make([]*reader, subs)
		for i := range readers {
			readers[i] = &reader{id: uint64(i), room: 1 << 30, done: make(chan struct{}), more: make(chan struct{}, 1)}
			if i%5 == 0 {
				readers[i].room = 7 * i // stuck after that many
			}
		}
		wg.Go(func() {
			for n := before + 1; n <= before+during; n++ {
				log(n)
			}
		})
		for i, r := range readers {
			wg.Go(func() { subscribe(r, strconv.Itoa(i*before/subs)) })
		}
		synctest.Wait()
		for i, r := range readers { // others get stuck when they are live
			if i%5 == 1 {
				r.mu.Lock()
				r.room = i / 5
				r.mu.Unlock()
			}
		}
		for n := before + during + 1; n <= before+during+live; n++ {
			log(n)
		}
		time.Sleep(replayPatience + time.Second)
		for i, r := range readers {
			if i%5 < 2 {
				r.read(1 << 30) // it reads again: what was held back, then the overflow
			}
		}
		synctest.Wait()
		for i, r := range readers {
			first := uint64(i*before/subs) + 1
			got, cursor := r.seen()
			if cursor != "" {
				at, err := strconv.ParseUint(cursor, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				if err := inOrder(got, first, at); err != nil {
					t.Fatalf("subscriber %d before its overflow at %s: %v", i, cursor, err)
				}
				subscribe(r, cursor)
				synctest.Wait()
				got, _ = r.seen()
			}
			if err := inOrder(got, first, before+during+live); err != nil {
				t.Errorf("subscriber %d: %v", i, err)
			}
		}
		if n := h.overflows.Load(); n < subs/5 {
			t.Errorf("%d overflowed: the stuck ones were not stuck", n)
		}
		cancel()
		wg.Wait()
		if h.count() != 0 {
			t.Errorf("%d subscriptions stay", h.count())
		}
	})
}

func TestSubscriptionsPerConnectionAreBounded(t *testing.T) {
	store := &eventStore{changed: make(chan struct{})}
	h := newEventHub(store, slog.New(slog.DiscardHandler))
	if err := h.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &reader{id: 1}
	for i := range 4 {
		err := h.add(&subscription{peer: r}, 3)
		if (err != nil) != (i == 3) {
			t.Fatalf("subscription %d: %v", i, err)
		}
	}
	if h.drop("sub-1", 2) || !h.drop("sub-1", 1) || h.drop("sub-1", 1) {
		t.Fatal("a subscription ends by its own connection, once")
	}
}

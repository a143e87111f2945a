package rpc

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// TestSequencerKeepsItsPromises runs random requests, admitted and finished in random
// order, and checks each start and each reply against all requests sent before.
func TestSequencerKeepsItsPromises(t *testing.T) {
	for seed := range uint64(300) {
		if err := sequence(rand.New(rand.NewPCG(seed, 1)), 60); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

type sequenced struct {
	op      *op
	started bool
	replied bool
}

func sequence(random *rand.Rand, n int) (failed error) {
	var q sequencer
	var all, running []*sequenced
	fail := func(format string, args ...any) {
		if failed == nil {
			failed = fmt.Errorf(format, args...)
		}
	}
	started := func(s *sequenced) {
		if s.started {
			fail("started twice")
		}
		s.started = true
		running = append(running, s)
		for i, before := range all {
			if before == s {
				break
			}
			o, b := s.op, before.op
			same := b.order == barrier || o.order == barrier || b.session == o.session || o.order == read && o.session.IsZero()
			switch {
			case b.order == read || b.order == free || o.order == free || !same:
			case o.order == change && !b.admitted:
				fail("a change started before %d was admitted", i)
			case o.order != change && !b.done:
				fail("a read or barrier started before %d was done", i)
			}
		}
	}
	replied := func(s *sequenced) {
		s.replied = true
		for _, before := range all {
			if before == s {
				break
			}
			if s.op.order == change && before.op.order == change && before.op.session == s.op.session && !before.replied {
				fail("a change was answered before one of the same session that was sent before it")
			}
		}
	}
	act := func() {
		at := random.IntN(len(running))
		s := running[at]
		if random.IntN(3) == 0 {
			q.admit(s.op)
			return
		}
		running = append(running[:at], running[at+1:]...)
		q.finish(s.op, func() { replied(s) })
	}
	for range n {
		s := &sequenced{op: &op{order: []order{change, change, change, read, read, barrier, free}[random.IntN(7)]}}
		if s.op.order == change || s.op.order == read && random.IntN(4) > 0 {
			s.op.session = checkpoint.ID{byte(1 + random.IntN(3))}
		}
		s.op.start = func() { started(s) }
		all = append(all, s)
		q.add(s.op)
		for len(running) > 0 && random.IntN(2) == 0 {
			act()
		}
	}
	for len(running) > 0 {
		act()
	}
	for i, s := range all {
		if !s.started || !s.replied {
			fail("request %d never started or was never answered", i)
		}
	}
	if len(q.ops) > 0 || len(q.lanes) > 0 || q.wall != nil {
		fail("%d changes and %d sessions are still held", len(q.ops), len(q.lanes))
	}
	return failed
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// grown is a store with a session of some checkpoints, and one from the middle of it.
type grown struct {
	*store
	session checkpoint.ID
	middle  checkpoint.Summary
}

func openGrown(root string, n int) (*grown, error) {
	dir, err := os.MkdirTemp(root, "growth")
	if err != nil {
		return nil, err
	}
	k, err := newStore(storage.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	g := &grown{store: k}
	if err := k.fill(0, n, document(1024, 1)); err != nil {
		return g, err
	}
	g.session = k.sessions[0]
	page, err := k.s.List(context.Background(), storage.Query{SessionID: g.session, From: uint64(n / 2), Limit: 1})
	if err != nil {
		return g, err
	}
	return g, json.Unmarshal(page.Summaries[0], &g.middle)
}

// growth compares a session and store of 10 checkpoints with one of many: a create, and
// the reads that are to cost the same in both.
func (r *report) growth(root string, many int, d time.Duration, rounds int) error {
	few, err := openGrown(root, 10)
	if err != nil {
		return err
	}
	defer few.close()
	lots, err := openGrown(root, many)
	if err != nil {
		return err
	}
	defer lots.close()
	// Reads first: creates make both sessions longer.
	if err := r.growthReads(few, lots, many, 40*rounds); err != nil {
		return err
	}
	var ratios []float64
	serial := 0
	for range rounds {
		a, err := measure(few, 1, 8192, d, false, &serial)
		if err != nil {
			return err
		}
		b, err := measure(lots, 1, 8192, d, false, &serial)
		if err != nil {
			return err
		}
		ratios = append(ratios, b.P50/a.P50)
	}
	r.goal(fmt.Sprintf("create in a session of %d, to one of 10, p50", many), 1.3, false, medianOf(ratios), "")
	return nil
}

func (r *report) growthReads(few, lots *grown, many, rounds int) error {
	ctx := context.Background()
	for _, read := range []struct {
		name string
		f    func(*grown) error
	}{
		{"latest", func(g *grown) error { _, err := g.s.Latest(ctx, g.session); return err }},
		{"at a number", func(g *grown) error {
			_, err := g.s.At(ctx, g.session, storage.Point{Sequence: g.middle.Sequence})
			return err
		}},
		{"at a time", func(g *grown) error {
			_, err := g.s.At(ctx, g.session, storage.Point{Time: g.middle.Timestamp})
			return err
		}},
		{"get", func(g *grown) error { _, err := g.s.Get(ctx, g.middle.ID); return err }},
		{"list of 4 of a session", lists(storage.Query{}, false)},
		{"list of 4 from a number", func(g *grown) error {
			return lists(storage.Query{From: g.middle.Sequence}, false)(g)
		}},
		{"list of 4 since a time", func(g *grown) error {
			return lists(storage.Query{Since: g.middle.Timestamp}, false)(g)
		}},
		{"list of 4 until a time, newest first", func(g *grown) error {
			return lists(storage.Query{Until: g.middle.Timestamp}, true)(g)
		}},
	} {
		ms, err := times(rounds, inARow(read.f, few), inARow(read.f, lots))
		if err != nil {
			return fmt.Errorf("%s: %w", read.name, err)
		}
		r.goal(fmt.Sprintf("%s, session of %d, to one of 10", read.name, many), 1.3, false, ms[1]/ms[0], fmt.Sprintf("%.1f us", ms[1]*1000/readsInARow))
	}
	return nil
}

// readsInARow are timed together: a single one is over before a clock or a cache has settled.
const readsInARow = 100

func inARow(f func(*grown) error, g *grown) func() error {
	return func() error {
		for range readsInARow {
			if err := f(g); err != nil {
				return err
			}
		}
		return nil
	}
}

// lists asks for four summaries of the session: there is a fifth in both.
func lists(q storage.Query, descending bool) func(*grown) error {
	return func(g *grown) error {
		q.SessionID, q.Limit, q.Descending = g.session, 4, descending
		page, err := g.s.List(context.Background(), q)
		if err == nil && len(page.Summaries) != 4 {
			err = fmt.Errorf("%d summaries", len(page.Summaries))
		}
		return err
	}
}

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// compaction compares creates beside the compaction of a session of n, until the last of
// its files is gone, with creates alone just before.
func (r *report) compaction(root string, n int, d time.Duration, rounds int) error {
	dir, err := os.MkdirTemp(root, "compaction")
	if err != nil {
		return err
	}
	k, err := newStore(storage.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer k.close()
	doc := document(8192, 1)
	quantiles := []struct {
		name  string
		q     float64
		alone []float64
		with  []float64
		ratio []float64
	}{{name: "p50", q: 0.5}, {name: "p99", q: 0.99}, {name: "slowest", q: 1}}
	for range rounds {
		if err := k.fill(1, n, document(1024, 2)); err != nil {
			return err
		}
		over := time.After(d)
		alone, err := k.createsUntil(doc, over)
		if err != nil {
			return err
		}
		if err := k.settle(); err != nil {
			return err
		}
		done := make(chan error, 1)
		ended := make(chan time.Time)
		go func() {
			defer close(ended)
			keep := int64(1)
			_, err := k.s.Compact(context.Background(), k.sessions[1], checkpoint.Retention{KeepRecent: &keep}, storage.CompactOptions{})
			if err == nil {
				err = k.settle()
			}
			done <- err
		}()
		beside, err := k.createsUntil(doc, ended)
		if err == nil {
			err = <-done
		}
		if err != nil {
			return err
		}
		for i := range quantiles {
			q := &quantiles[i]
			a, w := at(alone, q.q), at(beside, q.q)
			q.alone, q.with, q.ratio = append(q.alone, a), append(q.with, w), append(q.ratio, w/a)
		}
	}
	what := fmt.Sprintf("create beside the compaction of %d", n)
	for _, q := range quantiles {
		r.Times = append(r.Times, timing{what, q.name, medianOf(q.with)}, timing{what, q.name + " alone", medianOf(q.alone)})
		r.goal(what+", to one alone, "+q.name, 10, false, medianOf(q.ratio), "")
	}
	return nil
}

// createsUntil creates one after the other, and gives how long each took in milliseconds, rising.
func (k *store) createsUntil(doc []byte, end <-chan time.Time) ([]float64, error) {
	var took []float64
	for {
		start := time.Now()
		if err := k.put(0, 0, doc); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(start))/1e6)
		select {
		case <-end:
			slices.Sort(took)
			return took, nil
		default:
		}
	}
}

func at(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*q))]
}

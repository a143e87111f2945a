package main

import (
	"fmt"
	"os"
	"time"

	"github.com/forge-cpd/forge-cpd/storage"
)

// growth compares a create in a session of 10 with one in a session of many.
func (r *report) growth(root string, many int, d time.Duration, rounds int) error {
	open := func(n int) (*store, error) {
		dir, err := os.MkdirTemp(root, "growth")
		if err != nil {
			return nil, err
		}
		k, err := newStore(storage.Options{Dir: dir})
		if err != nil {
			return nil, err
		}
		return k, k.fill(0, n, document(1024, 1))
	}
	few, err := open(10)
	if err != nil {
		return err
	}
	defer few.close()
	lots, err := open(many)
	if err != nil {
		return err
	}
	defer lots.close()
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

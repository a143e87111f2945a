package main

import (
	"fmt"
	"os"
	"time"
)

// wireCost compares the processor time that a server spends on one 8 KB put: jsonrpc2 as
// it comes, forge-cpd's wire with nothing behind it, and the whole daemon.
func (r *report) wireCost(root string, d time.Duration, rounds int) error {
	names := []string{"jsonrpc2 as it comes", "the wire, no store", "the daemon"}
	opens := []func(string) (putter, error){openStubbed("plain"), openStubbed("wire"), openDaemon}
	cost := make([][]float64, len(names))
	servers := make([]*daemon, len(names))
	for i, open := range opens {
		dir, err := os.MkdirTemp(root, "w")
		if err != nil {
			return err
		}
		p, err := open(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		defer p.close()
		servers[i] = p.(*daemon)
	}
	serial := 0
	for range rounds {
		for i, s := range servers {
			before, err := s.cpu()
			if err != nil {
				return err
			}
			got, err := measure(s, 8, 8192, d, false, &serial)
			if err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			after, err := s.cpu()
			if err != nil {
				return err
			}
			cost[i] = append(cost[i], (after-before)/(got.Rate*d.Seconds())*1e6)
		}
	}
	for i, n := range names {
		r.Times = append(r.Times, timing{"processor time of one 8 KB put", n, medianOf(cost[i]) / 1000})
	}
	plain := medianOf(cost[0])
	r.goal("processor time of an 8 KB put on the wire, to jsonrpc2 as it comes", 0.25, false, medianOf(cost[1])/plain, fmt.Sprintf("%.0f us to %.0f us", medianOf(cost[1]), plain))
	r.goal("the same, of the whole daemon", 0.25, false, medianOf(cost[2])/plain, fmt.Sprintf("%.0f us", medianOf(cost[2])))
	return nil
}

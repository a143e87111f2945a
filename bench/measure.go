package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// sample is one round of one contender.
type sample struct {
	Rate float64 `json:"rate"` // documents a second
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
}

// runner measures itself, where its users would see the time.
type runner interface {
	run(workers, size int, seconds float64) (rate, p50, p99 float64, err error)
}

// measure has workers put documents for a while. With settled, the time that the
// contender needs to come to rest counts too.
func measure(p putter, workers, size int, d time.Duration, settled bool, serial *int) (sample, error) {
	if r, ok := p.(runner); ok {
		rate, p50, p99, err := r.run(workers, size, d.Seconds())
		return sample{rate, p50, p99}, err
	}
	base := *serial
	*serial += 1 << 20
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		times []time.Duration
		fail  error
	)
	start := time.Now()
	until := start.Add(d)
	for w := range workers {
		wg.Go(func() {
			doc := document(size, uint64(w))
			var mine []time.Duration
			var err error
			for n := base; time.Now().Before(until) && err == nil; n++ {
				t := time.Now()
				err = p.put(w, n, doc)
				mine = append(mine, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, mine...)
			if err != nil {
				fail = err
			}
		})
	}
	wg.Wait()
	if s, ok := p.(settler); ok && settled && fail == nil {
		fail = s.settle()
	}
	took := time.Since(start)
	if s, ok := p.(settler); ok && !settled && fail == nil {
		fail = s.settle() // what it does in the background is not to slow its neighbours' turns
	}
	if fail != nil {
		return sample{}, fail
	}
	slices.Sort(times)
	at := func(q float64) float64 {
		return float64(times[min(len(times)-1, int(float64(len(times))*q))]) / 1e6
	}
	return sample{float64(len(times)) / took.Seconds(), at(0.5), at(0.99)}, nil
}

// cell is one place of the table: what was put, by how many.
type cell struct {
	Clients int  `json:"clients"`
	Bytes   int  `json:"bytes"`
	Settled bool `json:"settled,omitempty"`
}

// result is a contender's medians in a cell.
type result struct {
	Name string `json:"name"`
	cell
	sample
	Ratio   float64  `json:"ratio"`     // of the rate, to the reference of the same round, median
	P50x    float64  `json:"p50_ratio"` // of the p50
	P99x    float64  `json:"p99_ratio"`
	Rounds  []sample `json:"rounds"`
	Skipped string   `json:"skipped,omitempty"`
}

// race runs the contenders in turns, round after round, in stores of their own that stay
// until the end: a directory just emptied is slow for a while and would blur what follows.
func race(dir string, cs []contender, c cell, rounds int, d time.Duration) ([]result, error) {
	out := make([]result, len(cs))
	open := make([]putter, len(cs))
	serial := make([]int, len(cs))
	defer func() {
		for _, p := range open {
			if p != nil {
				p.close()
			}
		}
	}()
	for i, k := range cs {
		out[i] = result{Name: k.name, cell: c, Skipped: k.absent()}
		if out[i].Skipped != "" {
			continue
		}
		sub, err := os.MkdirTemp(dir, "r")
		if err != nil {
			return nil, err
		}
		if open[i], err = k.open(sub); err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
	}
	for r := range rounds {
		for n := range cs {
			i := (n + r) % len(cs)
			if open[i] == nil {
				continue
			}
			workers := c.Clients
			if cs[i].single {
				workers = 1
			}
			s, err := measure(open[i], workers, c.Bytes, d, c.Settled, &serial[i])
			if err != nil {
				return nil, fmt.Errorf("%s, %d clients, %d bytes: %w", cs[i].name, c.Clients, c.Bytes, err)
			}
			out[i].Rounds = append(out[i].Rounds, s)
		}
	}
	ref := out[0].Rounds
	for i := range out {
		rs := out[i].Rounds
		if len(rs) == 0 {
			continue
		}
		out[i].sample = sample{
			median(rs, func(s sample) float64 { return s.Rate }),
			median(rs, func(s sample) float64 { return s.P50 }),
			median(rs, func(s sample) float64 { return s.P99 }),
		}
		ratio := func(f func(sample) float64) float64 {
			q := make([]float64, len(rs))
			for r := range rs {
				q[r] = f(rs[r]) / f(ref[r])
			}
			return medianOf(q)
		}
		out[i].Ratio = ratio(func(s sample) float64 { return s.Rate })
		out[i].P50x = ratio(func(s sample) float64 { return s.P50 })
		out[i].P99x = ratio(func(s sample) float64 { return s.P99 })
	}
	return out, nil
}

func median(rs []sample, f func(sample) float64) float64 {
	q := make([]float64, len(rs))
	for i, s := range rs {
		q[i] = f(s)
	}
	return medianOf(q)
}

func medianOf(q []float64) float64 {
	if len(q) == 0 {
		return 0
	}
	q = slices.Clone(q)
	slices.Sort(q)
	if n := len(q); n%2 == 0 {
		return (q[n/2-1] + q[n/2]) / 2
	}
	return q[len(q)/2]
}

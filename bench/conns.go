package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// resident is the server's memory that is really there, in bytes.
func (d *daemon) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	return float64(pages * os.Getpagesize()), err
}

// crowd measures what connections and sessions cost that do nothing, and what a large
// state costs the others.
func (r *report) crowd(root string, idle int, d time.Duration, rounds int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if most := int(limit.Max) - 1000; idle > most {
		idle = most
	}
	open := func() (*daemon, error) {
		dir, err := os.MkdirTemp(root, "crowd")
		if err != nil {
			return nil, err
		}
		p, err := openConfigured(dir, fmt.Sprintf("limits:\n  connections: %d\n", idle+500))
		if err != nil {
			return nil, err
		}
		return p.(*daemon), nil
	}
	alone, err := open()
	if err != nil {
		return err
	}
	defer alone.close()
	s, err := open()
	if err != nil {
		return err
	}
	defer s.close()
	if err := r.idleSessions(alone); err != nil {
		return err
	}
	const active = 100
	serial := 0
	run := func(s *daemon) (sample, error) { return measure(s, active, 1024, d, false, &serial) }
	for range 2 { // opens the active connections, and lets memory come to where it stays
		for _, s := range []*daemon{alone, s} {
			if _, err := run(s); err != nil {
				return err
			}
		}
	}
	before, err := s.resident()
	if err != nil {
		return err
	}
	for range idle {
		w, err := dial(s.sock)
		if err != nil {
			return err
		}
		defer w.c.Close()
		w.r = nil // its buffer is not needed again
	}
	w, err := dial(s.sock)
	if err != nil {
		return err
	}
	defer w.c.Close()
	if _, err := w.call("daemon.info", []byte("{}")); err != nil { // the last one is served: all are
		return err
	}
	after, err := s.resident()
	if err != nil {
		return err
	}
	r.goal(fmt.Sprintf("memory of an idle connection, KiB, of %d", idle), 64, false, (after-before)/float64(idle)/1024, "resident")
	var ratios []float64
	var crowded []sample
	for range rounds { // in turns with a daemon that only the active ones use
		a, err := run(alone)
		if err != nil {
			return err
		}
		b, err := run(s)
		if err != nil {
			return err
		}
		ratios, crowded = append(ratios, b.P99/a.P99), append(crowded, b)
	}
	r.goal(fmt.Sprintf("p99 of %d clients beside %d idle ones, to that alone", active, idle), 2, false, medianOf(ratios),
		fmt.Sprintf("%.1f ms", median(crowded, p99)))

	return r.holdUp(s, rounds)
}

// comesToRest is longer than the daemon takes to give back what it was busy with.
const comesToRest = 7 * time.Second

// idleSessions asks a daemon that has done nothing yet, and asks again when it has come to
// rest, so that no garbage is counted or reused.
func (r *report) idleSessions(s *daemon) error {
	const sessions = 10_000
	w, err := dial(s.sock)
	if err != nil {
		return err
	}
	defer w.c.Close()
	before, err := s.resident()
	if err != nil {
		return err
	}
	for i := range sessions {
		if err := w.open("idle " + strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if err := s.settle(); err != nil {
		return err
	}
	time.Sleep(comesToRest)
	after, err := s.resident()
	if err != nil {
		return err
	}
	r.goal("memory of an idle session, KiB, of 10000", 4, false, (after-before)/sessions/1024, "resident")
	return nil
}

// holdUp has one client put 16 MiB states while another puts 1 KB ones.
func (r *report) holdUp(s *daemon, rounds int) error {
	small := func(n int) (float64, error) {
		w, err := s.conn(0)
		if err != nil {
			return 0, err
		}
		doc := document(1024, 1)
		var ms []float64
		for range n {
			t := time.Now()
			if _, err := w.create(doc); err != nil {
				return 0, err
			}
			ms = append(ms, float64(time.Since(t))/1e6)
		}
		return medianOf(ms), nil
	}
	alone, err := small(20 * rounds)
	if err != nil {
		return err
	}
	w, err := s.conn(1)
	if err != nil {
		return err
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	var large []float64
	var finished atomic.Int32
	go func() {
		doc := document(16<<20-1024, 2)
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			t := time.Now()
			if _, err := w.create(doc); err != nil {
				done <- err
				return
			}
			large = append(large, float64(time.Since(t))/1e6)
			finished.Add(1)
		}
	}()
	var besides []float64
	for err == nil && (len(besides) < 5*rounds || finished.Load() < 3 && len(besides) < 2000) { // three large ones long
		var ms float64
		ms, err = small(20)
		besides = append(besides, ms)
	}
	beside := medianOf(besides)
	close(stop)
	if e := <-done; err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	r.Times = append(r.Times, timing{"create of 1 KB", "alone", alone}, timing{"create of 1 KB", "beside one of 16 MiB", beside},
		timing{"create of 16 MiB", "beside those of 1 KB", medianOf(large)})
	r.goal("p50 of 1 KB beside a 16 MiB state, to one 16 MiB state", 0.25, false, beside/medianOf(large), fmt.Sprintf("%.2f ms, alone %.2f ms", beside, alone))
	return nil
}

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// round writes with 8 clients for a while, kills the daemon, starts it again and returns
// what was lost.
func (r *rig) round() []string {
	r.t.Helper()
	from := len(r.acks)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			if err := r.write(fmt.Sprint("writer ", w), nil); err != nil {
				r.t.Error(err)
			}
		})
	}
	time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond) // the moment is chance: that is the test
	r.kill()
	wg.Wait()
	r.start()
	missing := r.lost(from)
	for _, a := range r.acks[from:] {
		if a.sequence <= r.highest {
			missing = append(missing, fmt.Sprintf("number %d is given after %d", a.sequence, r.highest))
		}
	}
	for _, a := range r.acks[from:] {
		r.highest = max(r.highest, a.sequence)
	}
	return missing
}

func TestFaultKillNine(t *testing.T) {
	rounds := faultRounds(t, 1000, 200)
	t.Parallel()
	r := newRig(t, buildDaemon(t), t.TempDir())
	r.start()
	for i := range rounds {
		if missing := r.round(); len(missing) > 0 {
			t.Fatalf("kill %d: %d acknowledged are lost: %s", i, len(missing), strings.Join(missing[:min(len(missing), 5)], "; "))
		}
	}
	if missing := r.lost(0); len(missing) > 0 {
		t.Fatalf("%d are lost later: %s", len(missing), missing[0])
	}
	if err := r.sound(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills, %d acknowledged, none lost", rounds, len(r.acks))
}

// A daemon that writes its journal a moment after it has answered.
func TestFaultKillNineNoticesMutants(t *testing.T) {
	rounds := faultRounds(t, 100, 100)
	t.Parallel()
	bin := buildDaemon(t, "func (f *osFile) WriteAt(off int64, bufs ...[]byte) (int, error) {\n", `func (f *osFile) WriteAt(off int64, bufs ...[]byte) (int, error) {
	if len(f.path) > 8 && f.path[:8] == "journal/" {
		n := 0
		var late [][]byte
		for _, b := range bufs {
			n += len(b)
			late = append(late, append([]byte(nil), b...))
		}
		time.AfterFunc(5*time.Millisecond, func() { f.writeAt(off, late...) })
		return n, nil
	}
	return f.writeAt(off, bufs...)
}

func (f *osFile) writeAt(off int64, bufs ...[]byte) (int, error) {
`)
	r := newRig(t, bin, t.TempDir())
	r.start()
	for i := range rounds {
		if missing := r.round(); len(missing) > 0 {
			t.Logf("noticed at kill %d: %s", i, missing[0])
			return
		}
	}
	t.Fatal("a daemon that answers before it writes was not noticed")
}

package autotrigger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestTenThousandDueAtOnceComeSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{delay: 10 * time.Millisecond}
		e := newQuiet(Options{Take: k.take, Workers: 16, StartsPerSec: 500})
		cfg := auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 300 })
		old := time.Now().Add(-time.Hour)
		const sessions = 10_000
		for range sessions {
			mustSet(t, e, checkpoint.NewID(), cfg, old, nil)
		}
		stop := start(t, e)
		time.Sleep(60 * time.Second)
		first := len(k.requests())
		time.Sleep(300 * time.Second)
		stop()
		if first != sessions || len(k.got) != 2*sessions || k.peak > 16 {
			t.Errorf("%d, then %d runs, %d at once", first, len(k.got), k.peak)
		}
		inSecond := map[int64]int{}
		for _, at := range k.at {
			inSecond[at.Unix()]++
		}
		for s, n := range inSecond {
			if n > 600 {
				t.Errorf("%d runs in second %d", n, s)
			}
		}
	})
}

// A restart neither repeats nor delays what @every is due for.
func TestEveryGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		cfg := auto(func(c *checkpoint.AutoConfig) { c.Cron = "@every 1h" })
		id := checkpoint.NewID()
		begun := time.Now()
		run := func(until time.Duration, runs int) {
			t.Helper()
			e := newQuiet(Options{Take: k.take, Save: k.save})
			mustSet(t, e, id, cfg, begun, k.states[id])
			if next := e.Status(id).NextRuns; len(next) != 3 || next[1].Sub(next[0]) != time.Hour {
				t.Errorf("next runs: %v", next)
			}
			stop := start(t, e)
			time.Sleep(time.Until(begun.Add(until)))
			stop()
			if len(k.at) != runs {
				t.Fatalf("%d runs after %v, want %d", len(k.at), until, runs)
			}
		}
		run(40*time.Minute, 0)
		run(70*time.Minute, 1) // not 40 min and an hour
		run(119*time.Minute, 1)
		run(121*time.Minute, 2)
		time.Sleep(5 * time.Hour) // down: what was missed is made once
		run(7*time.Hour+5*time.Minute, 3)
		for i, want := range []time.Duration{time.Hour, 2 * time.Hour, 7*time.Hour + time.Minute} {
			if got := k.at[i].Sub(begun); got < want || got > want+2*time.Second {
				t.Errorf("run %d after %v, want %v", i, got, want)
			}
		}
	})
}

package autotrigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// taker is a Take that remembers. Its zero value succeeds at once.
type taker struct {
	mu     sync.Mutex
	got    []Request
	at     []time.Time
	active map[checkpoint.ID]int
	most   int // requests of one session at once
	busy   int // requests of all sessions at once
	peak   int
	delay  time.Duration
	answer func(n int, r Request) (Outcome, error)
	states map[checkpoint.ID]json.RawMessage
}

func (k *taker) take(ctx context.Context, r Request) (Outcome, error) {
	k.mu.Lock()
	if k.active == nil {
		k.active = map[checkpoint.ID]int{}
	}
	k.active[r.Session]++
	k.busy++
	k.most, k.peak = max(k.most, k.active[r.Session]), max(k.peak, k.busy)
	k.got, k.at = append(k.got, r), append(k.at, time.Now())
	n := len(k.got)
	k.mu.Unlock()
	if k.delay > 0 {
		time.Sleep(k.delay)
	}
	defer func() {
		k.mu.Lock()
		k.active[r.Session]--
		k.busy--
		k.mu.Unlock()
	}()
	if k.answer != nil {
		return k.answer(n, r)
	}
	return Outcome{CheckpointID: checkpoint.NewID(), Sequence: uint64(n), Timestamp: time.Now()}, nil
}

func (k *taker) save(_ context.Context, id checkpoint.ID, raw json.RawMessage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.states == nil {
		k.states = map[checkpoint.ID]json.RawMessage{}
	}
	k.states[id] = raw
	return nil
}

func (k *taker) requests() []Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Request(nil), k.got...)
}

// start runs an engine until the returned function is called.
func start(t *testing.T, e *Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	<-e.Ready()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func auto(change func(*checkpoint.AutoConfig)) *checkpoint.AutoConfig {
	c := checkpoint.DefaultAuto()
	c.IntervalSeconds = 0
	change(&c)
	return &c
}

func mustSet(t *testing.T, e *Engine, id checkpoint.ID, c *checkpoint.AutoConfig, newest time.Time, raw json.RawMessage) {
	t.Helper()
	if err := e.Set(t.Context(), id, c, newest, raw); err != nil {
		t.Fatal(err)
	}
}

func TestGate(t *testing.T) {
	everything := auto(func(c *checkpoint.AutoConfig) { c.OnToolCall = true })
	nothing := auto(func(c *checkpoint.AutoConfig) { c.OnError = false; c.Causes = nil })
	gap := auto(func(c *checkpoint.AutoConfig) { c.OnToolCall = true; c.MinGapSeconds = 10 })
	now := time.Now()
	for _, test := range []struct {
		name         string
		cfg          *checkpoint.AutoConfig
		cause        checkpoint.Cause
		newest, auto time.Time
		always       bool
		want         Skipped
	}{
		{name: "no automation, seed", cause: checkpoint.CauseBranchSwitch},
		{name: "no automation, error", cause: checkpoint.CauseError, want: NotEnabled},
		{name: "no automation, prompt", cause: checkpoint.CausePrompt, want: NotEnabled},
		{name: "no automation, disconnect", cause: checkpoint.CauseDisconnect, want: NotEnabled},
		{name: "no automation, own disconnect", cause: checkpoint.CauseDisconnect, always: true},
		{name: "error on", cfg: everything, cause: checkpoint.CauseError},
		{name: "error off", cfg: nothing, cause: checkpoint.CauseError, want: NotEnabled},
		{name: "tool call on", cfg: everything, cause: checkpoint.CauseToolCall},
		{name: "tool call off", cfg: nothing, cause: checkpoint.CauseToolCall, want: NotEnabled},
		{name: "seed off", cfg: nothing, cause: checkpoint.CauseGapFilled, want: NotEnabled},
		{name: "prompt always", cfg: nothing, cause: checkpoint.CausePrompt},
		{name: "time passed, young", cfg: everything, cause: checkpoint.CauseSignificantTimePassed, newest: now.Add(-299 * time.Second), want: Throttled},
		{name: "time passed, old", cfg: everything, cause: checkpoint.CauseSignificantTimePassed, newest: now.Add(-300 * time.Second)},
		{name: "time passed, none yet", cfg: everything, cause: checkpoint.CauseSignificantTimePassed},
		{name: "time passed, clock set back", cfg: everything, cause: checkpoint.CauseSignificantTimePassed, newest: now.Add(time.Hour)},
		{name: "time passed, own interval", cfg: auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 60 }), cause: checkpoint.CauseSignificantTimePassed, newest: now.Add(-70 * time.Second)},
		{name: "gap", cfg: gap, cause: checkpoint.CauseToolCall, auto: now.Add(-9 * time.Second), want: Throttled},
		{name: "gap over", cfg: gap, cause: checkpoint.CauseToolCall, auto: now.Add(-10 * time.Second)},
		{name: "gap counts no manual one", cfg: gap, cause: checkpoint.CauseToolCall, newest: now},
		{name: "gap and interval", cfg: gap, cause: checkpoint.CauseInterval, auto: now, want: Throttled},
		{name: "gap and disconnect", cfg: gap, cause: checkpoint.CauseDisconnect, auto: now},
		{name: "gap and prompt", cfg: gap, cause: checkpoint.CausePrompt, auto: now},
		{name: "gap and compaction", cfg: gap, cause: checkpoint.CauseContextCompactionWarning, auto: now},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p *policy
			if test.cfg != nil {
				var err error
				if p, err = newPolicy(*test.cfg, now); err != nil {
					t.Fatal(err)
				}
			}
			got := p.gate(Trigger{Cause: test.cause, Always: test.always}, now, test.newest, test.auto, 300*time.Second)
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestTriggerCountsAndNumbers(t *testing.T) {
	k := &taker{}
	e := New(Options{Take: k.take})
	id := checkpoint.NewID()
	mustSet(t, e, id, auto(func(c *checkpoint.AutoConfig) {}), time.Time{}, nil)
	trigger := func(c checkpoint.Cause, detail string) Outcome {
		t.Helper()
		out, err := e.Trigger(t.Context(), Trigger{Session: id, Cause: c, Detail: json.RawMessage(detail)})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := trigger(checkpoint.CauseToolCall, `{"id":"x"}`); out.Skipped != NotEnabled || out.Sequence != 0 {
		t.Errorf("tool call: %+v", out)
	}
	first := trigger(checkpoint.CauseError, `{"id":"call-1"}`)
	again := trigger(checkpoint.CauseError, `{"id":"call-1"}`)
	if first.Sequence != 1 || again.CheckpointID != first.CheckpointID || !again.Existing {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if st := e.Status(id); st.Taken != 1 || st.Skipped != 1 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
	if _, err := e.Trigger(t.Context(), Trigger{Session: id, Cause: "boredom"}); !errors.Is(err, checkpoint.ErrInvalidParams) {
		t.Errorf("unknown cause: %v", err)
	}
	k.answer = func(int, Request) (Outcome, error) { panic("a bug") }
	if _, err := e.Trigger(t.Context(), Trigger{Session: id, Cause: checkpoint.CauseError}); !errors.Is(err, checkpoint.ErrInternal) {
		t.Errorf("panic: %v", err)
	}
	if st := e.Status(id); st.Failed != 1 || st.LastError == "" {
		t.Errorf("%+v", st)
	}
	k.answer = nil
	if out := trigger(checkpoint.CauseError, `{"id":"call-2"}`); out.Sequence == 0 {
		t.Errorf("after a panic: %+v", out)
	}
}

func TestIntervalContinuesFromTheLastCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		e := newQuiet(Options{Take: k.take})
		id := checkpoint.NewID()
		begin := time.Now()
		mustSet(t, e, id, auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 60 }), begin.Add(-50*time.Second), nil)
		stop := start(t, e)
		defer stop()
		time.Sleep(25 * time.Second) // due at +10
		e.Note(id, time.Now())       // at +25: next at +85
		time.Sleep(50 * time.Second)
		if got := e.Status(id).NextRuns; len(got) != 3 || got[0].Sub(begin).Round(time.Millisecond) != 85*time.Second {
			t.Errorf("next runs %v after %v", got, begin)
		}
		time.Sleep(30 * time.Second) // +105
		stop()
		var at []time.Duration
		for _, a := range k.at {
			at = append(at, a.Sub(begin).Round(time.Second))
		}
		if fmt.Sprint(at) != "[10s 1m25s]" {
			t.Errorf("taken at %v", at)
		}
		if !k.got[0].SkipUnchanged || k.got[0].Cause != checkpoint.CauseInterval {
			t.Errorf("%+v", k.got[0])
		}
	})
}

func TestIntervalSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{answer: func(int, Request) (Outcome, error) { return Outcome{Skipped: Unchanged}, nil }}
		cfg := auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 60 })
		id := checkpoint.NewID()
		begin := time.Now()
		e := newQuiet(Options{Take: k.take, Save: k.save})
		mustSet(t, e, id, cfg, time.Time{}, nil)
		stop := start(t, e)
		time.Sleep(70 * time.Second) // ran at 60
		stop()
		time.Sleep(20 * time.Second)
		e = newQuiet(Options{Take: k.take, Save: k.save})
		mustSet(t, e, id, cfg, time.Time{}, k.states[id])
		stop = start(t, e)
		if st := e.Status(id); st.Skipped != 1 || st.NextRuns[0].Sub(begin).Round(time.Second) != 120*time.Second {
			t.Errorf("%+v", st)
		}
		time.Sleep(35 * time.Second)
		stop()
		if len(k.got) != 2 {
			t.Errorf("%d runs", len(k.got))
		}
	})
}

func TestCronRunsSkipsAndSurvivesPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{answer: func(n int, _ Request) (Outcome, error) {
			if n == 1 {
				panic("once")
			}
			return Outcome{Sequence: uint64(n), Timestamp: time.Now()}, nil
		}}
		e := newQuiet(Options{Take: k.take})
		id := checkpoint.NewID()
		mustSet(t, e, id, auto(func(c *checkpoint.AutoConfig) { c.Cron = "*/5 * * * *" }), time.Time{}, nil)
		stop := start(t, e)
		time.Sleep(21 * time.Minute)
		stop()
		if st := e.Status(id); len(k.got) != 4 || st.Taken != 3 || st.Failed != 1 || len(st.NextRuns) != 3 {
			t.Errorf("%d runs, %+v", len(k.got), st)
		}
	})
}

func TestNeverTwoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{delay: 90 * time.Second}
		e := newQuiet(Options{Take: k.take})
		id := checkpoint.NewID()
		mustSet(t, e, id, auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 60; c.Cron = "* * * * *" }), time.Time{}, nil)
		stop := start(t, e)
		for range 5 {
			go e.Trigger(t.Context(), Trigger{Session: id, Cause: checkpoint.CauseError})
		}
		time.Sleep(20 * time.Minute)
		stop()
		if k.most != 1 || len(k.got) < 10 {
			t.Errorf("%d at once in %d runs", k.most, len(k.got))
		}
	})
}

func TestDisableAndRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		e := newQuiet(Options{Take: k.take, Save: k.save})
		cfg := auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 60 })
		off, gone := checkpoint.NewID(), checkpoint.NewID()
		mustSet(t, e, off, cfg, time.Time{}, nil)
		mustSet(t, e, gone, cfg, time.Time{}, nil)
		stop := start(t, e)
		time.Sleep(61 * time.Second)
		mustSet(t, e, off, nil, time.Time{}, nil)
		e.Remove(gone)
		time.Sleep(10 * time.Minute)
		if len(k.requests()) != 2 {
			t.Errorf("%d runs", len(k.requests()))
		}
		if st := e.Status(off); st.Taken != 1 || len(st.NextRuns) != 0 {
			t.Errorf("disabled: %+v", st)
		}
		if st, err := decodeSaved(k.states[gone]); err != nil || st.Taken != 1 {
			t.Errorf("a removed session's state was not saved: %+v, %v", st, err)
		}
		// Reopened before anything was saved, the counts are there all the same.
		if _, err := e.Trigger(t.Context(), Trigger{Session: off, Cause: checkpoint.CauseBranchSwitch}); err != nil {
			t.Fatal(err)
		}
		e.Remove(off)
		mustSet(t, e, off, cfg, time.Time{}, k.states[off])
		if st := e.Status(off); st.Taken != 2 {
			t.Errorf("reopened: %+v", st)
		}
		stop()
	})
}

func TestWatchPathsBesideTheStore(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "state", "store")
	e := New(Options{StoreDir: store})
	for path, ok := range map[string]bool{
		filepath.Join(dir, "state", "store", "x"):   false,
		filepath.Join(dir, "state", "*", "x"):       false,
		filepath.Join(dir, "state", "other*", "x"):  true,
		filepath.Join(dir, "state", "notes.md"):     true,
		filepath.Join(dir, "state", "storehouse.x"): true,
	} {
		err := e.CheckPaths(*auto(func(c *checkpoint.AutoConfig) {
			c.Watch = []checkpoint.Watch{{Path: path}}
		}), "config.")
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
}

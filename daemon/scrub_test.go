package daemon

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/storage"
)

// damagedStore reports damage, after reading so many bytes.
type damagedStore struct {
	eventStore
	bytes    int64
	problems []storage.Problem
	reads    []time.Time
}

func (s *damagedStore) ValidateAll(_ context.Context, _ checkpoint.ID, pace func(int64) error) (storage.Report, error) {
	for n := int64(0); pace != nil && n < s.bytes; n += 1 << 20 {
		if err := pace(1 << 20); err != nil {
			return storage.Report{}, err
		}
	}
	s.reads = append(s.reads, time.Now())
	return storage.Report{Problems: s.problems, Invalid: len(s.problems), Total: 1}, nil
}

// The store is read by its schedule, no faster than allowed; each damage is told once, and
// health is red until it is mended.
func TestScrubBySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &damagedStore{eventStore: eventStore{changed: make(chan struct{})}, bytes: 60 << 20}
		store.problems = []storage.Problem{
			{Path: "sessions/x/manifest.jsonl", Problem: "cut short"},
			{Path: "sessions/x/checkpoints/y.json", Problem: "checksum", CheckpointID: checkpoint.NewID()}, // the store tells of it
		}
		s := &service{store: store, log: slog.New(slog.DiscardHandler)}
		cfg := config.Default()
		cfg.Scrub = config.Scrub{Cron: "@every 1h", BytesPerSecond: 1 << 20}
		s.cfg.Store(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begin := time.Now()
		wake := make(chan struct{})
		go s.runScrub(ctx, wake)
		time.Sleep(150 * time.Minute) // of the bubble's own time
		synctest.Wait()
		if len(store.reads) != 2 || len(store.events) != 1 || store.events[0].Event.Type != checkpoint.EventCorrupt {
			t.Fatalf("read %d times, %d events", len(store.reads), len(store.events))
		}
		// A minute's worth, less the first second's that may come at once.
		if took := store.reads[0].Sub(begin) - time.Hour; took < 58*time.Second || took > 61*time.Second {
			t.Errorf("60 MiB at 1 MiB/s took %v", took)
		}
		if c := s.scrub.check(); c.OK {
			t.Errorf("health says %+v", c)
		}
		store.problems = nil
		off := config.Default()
		off.Scrub = config.Scrub{Cron: "@every 10m"}
		s.cfg.Store(off)
		wake <- struct{}{}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if c := s.scrub.check(); !c.OK || len(store.reads) != 3 {
			t.Errorf("after mending, by the new schedule: %+v, read %d times", c, len(store.reads))
		}
	})
}

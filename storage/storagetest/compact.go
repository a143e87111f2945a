package storagetest

import (
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var compactTests = map[string]func(*harness){
	"CompactKeepsWhatAnyRuleKeeps": compactRules,
	"CompactWithoutARuleIsRefused": compactNoRule,
	"CompactIsOneChange":           compactOnce,
}

// compactRules makes one checkpoint an hour, three a day apart from each other, and tells
// the rules by what they keep.
func compactRules(h *harness) {
	h.ahead.Store(int64(time.Until(time.Date(2030, 1, 1, 0, 30, 0, 0, time.UTC))))
	s, other := h.session("s"), h.session("other")
	safe := h.create(other.ID, "another session's")
	day := func(gap time.Duration, message string, change ...func(*storage.NewCheckpoint)) {
		h.create(s.ID, message, change...)
		h.advance(gap)
	}
	day(10*time.Minute, "d1 00:30", tags("keep"))
	day(50*time.Minute, "d1 00:40", cause(checkpoint.CauseInterval))
	day(24*time.Hour, "d1 01:30", cause(checkpoint.CauseInterval), tags("x"))
	day(10*time.Minute, "d2 01:30", cause(checkpoint.CauseError))
	day(30*time.Hour, "d2 01:40")
	day(20*time.Minute, "d3 07:40", cause(checkpoint.CauseToolCall))
	now := h.now()
	for _, c := range []struct {
		name  string
		rules checkpoint.Retention
		opts  storage.CompactOptions
		want  []string
	}{
		{"recent", checkpoint.Retention{KeepRecent: ptr(int64(2))}, storage.CompactOptions{}, []string{"d2 01:40", "d3 07:40"}},
		{"none recent", checkpoint.Retention{KeepRecent: ptr(int64(0))}, storage.CompactOptions{}, []string{}},
		{"none but the newest", checkpoint.Retention{KeepRecent: ptr(int64(0))}, storage.CompactOptions{KeepNewest: true}, []string{"d3 07:40"}},
		{"more than there are", checkpoint.Retention{KeepRecent: ptr(int64(99))}, storage.CompactOptions{},
			[]string{"d1 00:30", "d1 00:40", "d1 01:30", "d2 01:30", "d2 01:40", "d3 07:40"}},
		{"a tag", checkpoint.Retention{PreserveTags: []string{"keep", "unknown"}}, storage.CompactOptions{}, []string{"d1 00:30"}},
		{"any tag", checkpoint.Retention{KeepTagged: true}, storage.CompactOptions{}, []string{"d1 00:30", "d1 01:30"}},
		{"manual", checkpoint.Retention{KeepManual: true}, storage.CompactOptions{}, []string{"d1 00:30", "d2 01:40"}},
		{"age", checkpoint.Retention{MaxAgeSeconds: ptr(int64(31 * 3600))}, storage.CompactOptions{}, []string{"d2 01:30", "d2 01:40", "d3 07:40"}},
		{"age of nothing", checkpoint.Retention{MaxAgeSeconds: ptr(int64(0))}, storage.CompactOptions{}, []string{}},
		{"hourly", checkpoint.Retention{KeepHourly: ptr(int64(3))}, storage.CompactOptions{}, []string{"d1 01:30", "d2 01:40", "d3 07:40"}},
		{"daily", checkpoint.Retention{KeepDaily: ptr(int64(2))}, storage.CompactOptions{}, []string{"d2 01:40", "d3 07:40"}},
		{"daily, more than there are", checkpoint.Retention{KeepDaily: ptr(int64(9))}, storage.CompactOptions{}, []string{"d1 01:30", "d2 01:40", "d3 07:40"}},
		{"any of several", checkpoint.Retention{KeepRecent: ptr(int64(1)), PreserveTags: []string{"x"}, KeepManual: true}, storage.CompactOptions{},
			[]string{"d1 00:30", "d1 01:30", "d2 01:40", "d3 07:40"}},
	} {
		h.Log(c.name)
		// A fork of the session would be another one: what the rules keep is told by a dry run.
		c.opts.DryRun, c.opts.Now = true, now
		got, err := h.s.Compact(h.Context(), s.ID, c.rules, c.opts)
		h.must(err)
		gone := map[checkpoint.ID]bool{}
		for _, id := range got.DeletedIDs {
			gone[id] = true
		}
		left := []string{}
		for _, sum := range h.all(storage.Query{SessionID: s.ID}) {
			if !gone[sum.ID] {
				left = append(left, sum.Message)
			}
		}
		h.equal("kept", left, c.want)
		h.equal("counts", []int{got.Deleted, got.Remaining, len(got.DeletedIDs)}, []int{6 - len(left), len(left), 6 - len(left)})
	}
	c, err := h.s.Compact(h.Context(), s.ID, checkpoint.Retention{KeepDaily: ptr(int64(2))}, storage.CompactOptions{Now: now})
	h.must(err)
	h.equal("deleted", c.Deleted, 4)
	h.twice(func() {
		h.equal("left", messages(h.all(storage.Query{SessionID: s.ID})), []string{"d2 01:40", "d3 07:40"})
		h.get(safe.CheckpointID)
		for _, id := range c.DeletedIDs {
			_, err := h.s.Get(h.Context(), id)
			h.want(err, checkpoint.ErrNotFound)
		}
	})
}

func compactNoRule(h *harness) {
	s := h.session("s")
	h.create(s.ID, "x")
	_, err := h.s.Compact(h.Context(), s.ID, checkpoint.Retention{}, storage.CompactOptions{})
	h.want(err, checkpoint.ErrInvalidParams)
	h.equal("left", len(h.all(storage.Query{})), 1)
}

func compactOnce(h *harness) {
	s := h.session("s")
	for range 30 {
		h.create(s.ID, "x")
	}
	cursor := h.lastCursor()
	c, err := h.s.Compact(h.Context(), s.ID, checkpoint.Retention{KeepRecent: ptr(int64(10))}, storage.CompactOptions{})
	h.must(err)
	h.twice(func() {
		events := h.since(cursor)
		if len(events) != 1 {
			h.Fatalf("%d events for one compaction: %+v", len(events), events)
		}
		e := events[0]
		h.equal("event", []any{e.Type, e.Deleted, e.Remaining, e.DeletedIDs}, []any{checkpoint.EventCompacted, 20, 10, c.DeletedIDs})
	})
	// With nothing to remove nothing happens.
	c, err = h.s.Compact(h.Context(), s.ID, checkpoint.Retention{KeepRecent: ptr(int64(10))}, storage.CompactOptions{})
	h.must(err)
	h.equal("again", c, storage.Compaction{Remaining: 10, DeletedIDs: []checkpoint.ID{}})
	h.equal("events", len(h.since(cursor)), 1)
}

package daemon

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/forge-cpd/forge-cpd/rpc"
)

// metrics are the daemon's own counters; the store counts what it holds itself.
type metrics struct {
	creates, restores, sessionsCreated atomic.Uint64
	redacted, corrupt, captureFailures atomic.Uint64
	autoTaken, autoSkipped, autoFailed atomic.Uint64
	createSeconds, restoreSeconds      histogram
}

// buckets are seconds: from a shared fsync on a fast disk to one that hangs.
var buckets = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// histogram counts durations; each goes into the first bucket that holds it.
type histogram struct {
	counts [len(buckets) + 1]atomic.Uint64
	nanos  atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(buckets) && d.Seconds() > buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.nanos.Add(int64(d))
}

// Metrics counts.
func (s *service) Metrics(ctx context.Context, _ rpc.NoParams) (*rpc.Metrics, error) {
	m, err := s.counts(ctx)
	if err != nil {
		return nil, err
	}
	m.Sessions, err = s.usage(ctx, m.UnpublishedRecords == 0)
	return m, err
}

// counts are the metrics that cost nothing to tell.
func (s *service) counts(ctx context.Context) (*rpc.Metrics, error) {
	st, err := s.store.Stats(ctx)
	if err != nil {
		return nil, err
	}
	m := &rpc.Metrics{
		TotalCheckpoints: st.Checkpoints, ActiveSessions: st.ActiveSessions, TotalSessionsCreated: st.SessionsCreated,
		GlobalSequence: st.Sequence, StoreBytes: st.Bytes, Subscribers: s.hub.count(),
		Automatic: rpc.AutomaticMetrics{
			Taken: s.metrics.autoTaken.Load(), Skipped: s.metrics.autoSkipped.Load(), Failed: s.metrics.autoFailed.Load(),
		},
		UptimeSeconds: time.Since(s.started).Seconds(), CreatesTotal: s.metrics.creates.Load(),
		RestoresTotal: s.metrics.restores.Load(), RedactedTotal: s.metrics.redacted.Load(),
		OverflowsTotal:     s.hub.overflows.Load(),
		UnpublishedRecords: st.Unpublished, QuarantinedFiles: st.Quarantined, JournalBytes: st.JournalBytes, BlobBytes: st.BlobBytes,
	}
	if s.wireStats != nil {
		st := s.wireStats()
		m.Connections, m.InFlightBytes, m.ErrorsTotal = st.Connections, st.InFlightBytes, st.Errors
	}
	return m, nil
}

// Prometheus renders the same as OpenMetrics text.
func (s *service) Prometheus(ctx context.Context, _ rpc.NoParams) (*rpc.Prometheus, error) {
	text, err := s.openMetrics(ctx)
	if err != nil {
		return nil, err
	}
	return &rpc.Prometheus{Text: text}, nil
}

func (s *service) openMetrics(ctx context.Context) (string, error) {
	m, err := s.counts(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	metric := func(name, kind, help string, samples ...any) {
		fmt.Fprintf(&b, "# HELP forge_cpd_%s %s\n# TYPE forge_cpd_%s %s\n", name, help, name, kind)
		for i := 0; i < len(samples); i += 2 {
			suffix := samples[i].(string)
			if kind == "counter" {
				suffix = "_total" + suffix
			}
			fmt.Fprintf(&b, "forge_cpd_%s%s %v\n", name, suffix, samples[i+1])
		}
	}
	healthy := 1
	for _, c := range s.checks() {
		if !c.OK {
			healthy = 0
		}
	}
	fmt.Fprintf(&b, "# HELP forge_cpd_build Version of the daemon.\n# TYPE forge_cpd_build info\nforge_cpd_build_info{version=%s,driver=%s} 1\n",
		strconv.Quote(s.info.Version), strconv.Quote(s.info.Driver))
	metric("healthy", "gauge", "1 when daemon.health says so.", "", healthy)
	metric("checkpoints", "gauge", "Checkpoints in the store.", "", m.TotalCheckpoints)
	metric("active_sessions", "gauge", "Sessions that are not closed.", "", m.ActiveSessions)
	metric("sessions_created", "counter", "Sessions created since the store was made.", "", m.TotalSessionsCreated)
	metric("sequence_number", "gauge", "The highest sequence number given.", "", m.GlobalSequence)
	metric("store_bytes", "gauge", "Bytes that the store takes.", "", m.StoreBytes)
	metric("journal_bytes", "gauge", "Bytes of the journal.", "", m.JournalBytes)
	metric("blob_bytes", "gauge", "Bytes of captured files' chunks.", "", m.BlobBytes)
	metric("unpublished_records", "gauge", "Records that are only in the journal yet.", "", m.UnpublishedRecords)
	metric("quarantined_files", "gauge", "Files that were found damaged.", "", m.QuarantinedFiles)
	metric("subscribers", "gauge", "Subscriptions to events.", "", m.Subscribers)
	metric("connections", "gauge", "Open connections.", "", m.Connections)
	metric("in_flight_bytes", "gauge", "Bytes of requests and replies in flight.", "", m.InFlightBytes)
	metric("uptime_seconds", "gauge", "Seconds since the daemon started.", "", strconv.FormatFloat(m.UptimeSeconds, 'f', 3, 64))
	metric("creates", "counter", "Checkpoints made since the daemon started.", "", m.CreatesTotal)
	metric("restores", "counter", "Checkpoints restored since the daemon started.", "", m.RestoresTotal)
	metric("automatic", "counter", "What the triggers did.",
		`{outcome="taken"}`, m.Automatic.Taken, `{outcome="skipped"}`, m.Automatic.Skipped, `{outcome="failed"}`, m.Automatic.Failed)
	metric("capture_failures", "counter", "Attached agents that did not give their state.", "", s.metrics.captureFailures.Load())
	metric("redacted", "counter", "Environment variables held back because they look like secrets.", "", m.RedactedTotal)
	metric("overflows", "counter", "Subscriptions that ended because their client did not keep up.", "", m.OverflowsTotal)
	metric("corrupt_reads", "counter", "Reads that found damage.", "", s.metrics.corrupt.Load())
	metric("errors", "counter", "Requests that were answered with an error.", "", m.ErrorsTotal)
	s.metrics.createSeconds.write(&b, "create_seconds", "Time from request to durable checkpoint.")
	s.metrics.restoreSeconds.write(&b, "restore_seconds", "Time from request to verified state.")
	b.WriteString("# EOF\n")
	return b.String(), nil
}

func (h *histogram) write(b *strings.Builder, name, help string) {
	fmt.Fprintf(b, "# HELP forge_cpd_%s %s\n# TYPE forge_cpd_%s histogram\n# UNIT forge_cpd_%s seconds\n", name, help, name, name)
	var total uint64
	for i := range h.counts {
		total += h.counts[i].Load()
		le := math.Inf(1)
		if i < len(buckets) {
			le = buckets[i]
		}
		text := strconv.FormatFloat(le, 'f', -1, 64)
		if !strings.Contains(text, ".") && !math.IsInf(le, 1) {
			text += ".0"
		}
		fmt.Fprintf(b, "forge_cpd_%s_bucket{le=\"%s\"} %d\n", name, text, total)
	}
	fmt.Fprintf(b, "forge_cpd_%s_count %d\nforge_cpd_%s_sum %s\n", name, total, name,
		strconv.FormatFloat(time.Duration(h.nanos.Load()).Seconds(), 'f', -1, 64))
}

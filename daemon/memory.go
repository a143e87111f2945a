package daemon

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"slices"
	"time"
)

const (
	memorySlack = 48 << 20 // what the collector needs to work with
	memoryEvery = time.Second
	// leastGarbage may lie about before it is collected, however little is alive: a small
	// store under load would be collected a hundred times a second.
	leastGarbage = 16 << 20
)

// boundGarbage has Go collect earlier while large messages are many. Left alone, garbage
// grows to as much as is alive, and limits.in_flight_bytes would cost its double; the soft
// limit set here allows that for what the store keeps and not for what is in flight. It
// follows the store as it grows, by the least of the last minute: what lived at the last
// collection may have been in flight then. Stacks are on top: those of 10,000 connections are
// no garbage, and a limit below them would have Go collect without end. A limit that the
// environment gives (GOMEMLIMIT) stays.
func (d *instance) boundGarbage(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	now := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var last int64
	percent := 100
	var minute []int64
	for {
		runtimemetrics.Read(now)
		minute = append(minute, max(0, int64(now[0].Value.Uint64())-d.server.Stats().InFlightBytes))
		minute = minute[max(0, len(minute)-int(time.Minute/memoryEvery)):]
		limit := 2*slices.Min(minute) + int64(now[1].Value.Uint64()) + d.svc.config().Limits.InFlightBytes + memorySlack
		if limit < last-last/8 || limit > last+last/8 { // setting it stops the world for a moment
			debug.SetMemoryLimit(limit)
			last = limit
		}
		if os.Getenv("GOGC") == "" {
			percent = setPercent(percent, int64(now[0].Value.Uint64()))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// setPercent has Go collect when there is as much garbage as what is alive, or leastGarbage.
func setPercent(last int, alive int64) int {
	percent := 100 * max(1, int(leastGarbage/max(alive, 1<<20)))
	if percent != last {
		debug.SetGCPercent(percent)
	}
	return percent
}

package daemon

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"slices"
	"time"
)

const (
	memorySlack = 48 << 20 // what the collector needs to work with
	memoryEvery = time.Second
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
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

const (
	// busyGarbage may lie about while much is allocated, however little is alive: otherwise a
	// small store under load is collected again and again.
	busyGarbage = 64 << 20
	// busyGap between two collections says that much is allocated.
	busyGap = 200 * time.Millisecond
	// quietTime without a collection ends that, and what is free goes back to the system.
	quietTime = 5 * time.Second
)

// spareCollections lets garbage grow to busyGarbage while the daemon is busy, and no larger
// than what is alive, as Go does, while it is not. GOGC from the environment stays.
func spareCollections(ctx context.Context, quiet time.Duration) {
	if os.Getenv("GOGC") != "" {
		return
	}
	collected := make(chan struct{}, 1)
	watchCollections(ctx, collected)
	percent := 100
	set := func(p int) {
		if p != percent {
			debug.SetGCPercent(p)
			percent = p
		}
	}
	defer func() { set(100) }()
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var last time.Time
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-collected:
			now := time.Now()
			if percent > 100 || now.Sub(last) < busyGap { // and follow what is alive, both ways
				runtimemetrics.Read(live)
				set(100 * max(1, int(busyGarbage/max(live[0].Value.Uint64(), 1<<20))))
			}
			last = now
			timer.Reset(quiet)
		case <-timer.C:
			if percent > 100 {
				set(100)
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return
		}
	}
}

// watchCollections tells of each collection until ctx ends: an object that nobody refers to
// is cleaned up after each.
func watchCollections(ctx context.Context, tell chan<- struct{}) {
	type canary [64]byte
	runtime.AddCleanup(new(canary), func(tell chan<- struct{}) {
		select {
		case tell <- struct{}{}:
		default:
		}
		if ctx.Err() == nil {
			watchCollections(ctx, tell)
		}
	}, tell)
}

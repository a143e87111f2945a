package rpc

import (
	"sync"
	"sync/atomic"
)

// maxIdle workers wait for the next task.
const maxIdle = 64

// workers run tasks. A worker that is free keeps its stack, which a new goroutine would first
// have to grow for each request.
type workers struct {
	tasks chan func()
	stop  chan struct{}
	idle  atomic.Int32
	all   sync.WaitGroup
	once  sync.Once
}

// run never waits: when no worker is free there is one more.
func (w *workers) run(f func()) {
	select {
	case w.tasks <- f:
	default:
		w.all.Go(func() { w.work(f) })
	}
}

// end waits for the last worker; no task may come any more.
func (w *workers) end() {
	w.once.Do(func() { close(w.stop) })
	w.all.Wait()
}

func (w *workers) work(f func()) {
	for {
		f()
		if w.idle.Add(1) > maxIdle {
			w.idle.Add(-1)
			return
		}
		select {
		case f = <-w.tasks:
			w.idle.Add(-1)
		case <-w.stop:
			return
		}
	}
}

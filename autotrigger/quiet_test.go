package autotrigger

import (
	"errors"

	"github.com/forge-cpd/forge-cpd/autotrigger/internal/watch"
)

// newQuiet is New without a file watcher, whose system calls have no place in a bubble of
// synthetic time.
func newQuiet(o Options) *Engine {
	e := New(o)
	e.watcher = watch.New(watch.Options{
		Logger: e.opts.Logger, LockWait: e.opts.LockWait, VerifyEvery: e.opts.VerifyEvery,
		Open: func() (watch.Source, error) { return watch.Source{}, errors.New("no files in this test") },
	})
	return e
}

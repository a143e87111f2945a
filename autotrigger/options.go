package autotrigger

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Parser == nil {
		o.Parser = transcript.New
	}
	o.Workers = cmp.Or(o.Workers, 16)
	o.StartsPerSec = cmp.Or(o.StartsPerSec, 500)
	o.FileBytes = cmp.Or(o.FileBytes, 16<<20)
	o.TotalBytes = cmp.Or(o.TotalBytes, 64<<20)
	o.LineBytes = cmp.Or(o.LineBytes, 16<<20)
	o.MaxFiles = cmp.Or(o.MaxFiles, 10_000)
	o.LockWait = cmp.Or(o.LockWait, 30*time.Second)
	o.VerifyEvery = cmp.Or(o.VerifyEvery, 30*time.Second)
	o.SaveEvery = cmp.Or(o.SaveEvery, 5*time.Second)
	o.SaveCounts = cmp.Or(o.SaveCounts, time.Minute)
	o.RetryEvery = cmp.Or(o.RetryEvery, time.Second)
	o.DefaultWindow = cmp.Or(o.DefaultWindow, 300*time.Second)
	return o
}

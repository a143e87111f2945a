package daemon

import (
	"fmt"
	"sync"
	"testing"

	"github.com/forge-cpd/forge-cpd/rpc"
)

// Two connections of one agent at once: whichever makes the session, a trigger that comes
// after either answer finds its automation.
func TestATriggerFindsTheAutomationOfASessionJustMade(t *testing.T) {
	d := start(t, memoryOptions(t))
	for round := range 200 {
		params := obj{"name": "x", "key": fmt.Sprint("k", round), "auto": obj{"interval_seconds": 0}}
		var both sync.WaitGroup
		for range 2 {
			p := d.dial()
			both.Go(func() {
				var s rpc.SessionCreateResult
				if err := p.try("session.create", params, &s); err != nil {
					t.Error(err)
					return
				}
				var got rpc.AutoTriggerResult
				if err := p.try("auto.trigger", obj{"session_id": s.ID, "cause": "prompt", "message": "hello"}, &got); err != nil || got.Skipped != "" {
					t.Errorf("round %d: skipped as %q, %v", round, got.Skipped, err)
				}
			})
		}
		both.Wait()
	}
}

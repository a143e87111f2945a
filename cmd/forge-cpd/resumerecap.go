package main

import (
	"context"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// recapLooksAt is how many checkpoints, back from the one asked for, a recap without a
// transcript is made from.
const recapLooksAt = 500

// fromCheckpoints sums a session up from the messages of its checkpoints, where no
// transcript was recorded.
func (r *resumer) fromCheckpoints(ctx context.Context) (transcript.Done, error) {
	var done transcript.Done
	var list []checkpoint.Summary
	q := rpc.CheckpointListParams{SessionRef: client.ByID(r.cp.SessionID), ToSequence: &r.cp.Sequence, Order: "desc", Limit: recapLooksAt}
	for s, err := range r.c.AllCheckpoints(ctx, q) {
		if err != nil {
			return done, err
		}
		if list = append(list, s); len(list) == recapLooksAt {
			break
		}
	}
	for i := len(list) - 1; i >= 0; i-- {
		switch s := list[i]; s.Cause {
		case checkpoint.CausePrompt:
			done.Prompts = append(done.Prompts, s.Message)
		case checkpoint.CauseError:
			done.Calls, done.Failed = done.Calls+1, done.Failed+1
			done.Failures = append(done.Failures, s.Message)
		case checkpoint.CauseToolCall:
			done.Calls++
		}
	}
	done.Trim()
	return done, nil
}

package autotrigger

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// How many tool calls a session remembers, so that one told twice (by a hook and by a
// transcript, or by a transcript that was copied) is one checkpoint; the saved ones bridge a restart.
const (
	maxCalls      = 2048
	maxSavedCalls = 128
)

// saved is a session's state between runs of the daemon; Options.Save keeps it.
type saved struct {
	Version   int                     `json:"v"`
	Taken     uint64                  `json:"taken"`
	Skipped   uint64                  `json:"skipped"`
	Failed    uint64                  `json:"failed"`
	LastRun   time.Time               `json:"last_run,omitzero"`
	LastAuto  time.Time               `json:"last_auto,omitzero"`
	Anchor    time.Time               `json:"anchor,omitzero"`
	LastError string                  `json:"last_error,omitempty"`
	Calls     []savedCall             `json:"calls,omitempty"`
	Follow    map[string]*savedFollow `json:"follow,omitempty"`
}

type savedCall struct {
	Tool         string        `json:"tool_call_id"`
	CheckpointID checkpoint.ID `json:"checkpoint_id"`
	Sequence     uint64        `json:"sequence_number"`
}

const savedVersion = 1

func decodeSaved(raw json.RawMessage) (saved, error) {
	var s saved
	if len(raw) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return saved{}, fmt.Errorf("the session's saved automation state cannot be read, starting anew: %w", err)
	}
	if s.Version != savedVersion {
		return saved{}, fmt.Errorf("the session's saved automation state has version %d, not %d: starting anew", s.Version, savedVersion)
	}
	return s, nil
}

// calls remembers the newest tool calls and their checkpoints.
type calls struct {
	byID  map[string]savedCall
	order []string
}

func (c *calls) find(id string) (savedCall, bool) {
	if c == nil {
		return savedCall{}, false
	}
	call, ok := c.byID[id]
	return call, ok
}

func (c *calls) add(call savedCall) {
	if _, there := c.byID[call.Tool]; there {
		return
	}
	if len(c.order) == maxCalls {
		for _, id := range c.order[:maxCalls/2] {
			delete(c.byID, id)
		}
		c.order = slices.Clone(c.order[maxCalls/2:])
	}
	c.byID[call.Tool] = call
	c.order = append(c.order, call.Tool)
}

func (c *calls) save() []savedCall {
	if c == nil {
		return nil
	}
	from := max(0, len(c.order)-maxSavedCalls)
	out := make([]savedCall, 0, len(c.order)-from)
	for _, id := range c.order[from:] {
		out = append(out, c.byID[id])
	}
	return out
}

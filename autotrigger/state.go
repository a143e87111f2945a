package autotrigger

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// maxCalls is how many tool calls a session remembers, so that one told twice (by a hook
// and by a transcript, or by a transcript that was copied) is one checkpoint, though that
// one may be gone meanwhile. Over a restart the taker knows it by its id.
const maxCalls = 2048

// saved is a session's state between runs of the daemon; Options.Save keeps it.
type saved struct {
	Version   int                     `json:"v"`
	Taken     uint64                  `json:"taken"`
	Skipped   uint64                  `json:"skipped"`
	Failed    uint64                  `json:"failed"`
	LastRun   time.Time               `json:"last_run,omitzero"`
	LastAuto  time.Time               `json:"last_auto,omitzero"`
	Anchor    time.Time               `json:"anchor,omitzero"`
	Every     time.Time               `json:"every,omitzero"`
	LastError string                  `json:"last_error,omitempty"`
	Follow    map[string]*savedFollow `json:"follow,omitempty"`
}

// knownCall is a tool call and its checkpoint.
type knownCall struct {
	tool     string
	id       checkpoint.ID
	sequence uint64
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
	byID  map[string]knownCall
	order []string
}

func (c *calls) find(id string) (knownCall, bool) {
	if c == nil {
		return knownCall{}, false
	}
	call, ok := c.byID[id]
	return call, ok
}

func (c *calls) add(call knownCall) {
	if _, there := c.byID[call.tool]; there {
		return
	}
	if len(c.order) == maxCalls {
		for _, id := range c.order[:maxCalls/2] {
			delete(c.byID, id)
		}
		c.order = slices.Clone(c.order[maxCalls/2:])
	}
	c.byID[call.tool] = call
	c.order = append(c.order, call.tool)
}

package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

type triggered struct {
	CheckpointID checkpoint.ID `json:"checkpoint_id"`
	Sequence     uint64        `json:"sequence_number"`
	Skipped      string        `json:"skipped"`
}

func TestAToolCallToldTwiceIsOneCheckpoint(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{"auto": obj{"on_tool_call": true, "interval_seconds": 0}})
	var first, second triggered
	call := obj{"session_id": s.ID, "cause": "tool_call", "detail": obj{"tool": "Bash", "id": "toolu_1"}, "state": 1}
	p.call("auto.trigger", call, &first)
	p.call("auto.trigger", call, &second)
	if first.CheckpointID.IsZero() || first != second || first.CheckpointID != toolCallID(s.ID, "toolu_1") {
		t.Errorf("one call, told twice: %+v and %+v", first, second)
	}
	d.end() // the engine's memory of calls goes with it; the id does not
	d = start(t, o)
	p = d.dial()
	p.call("auto.trigger", call, &second)
	p.call("session.get", obj{"session_id": s.ID}, &s)
	if first != second || s.CheckpointCount != 1 {
		t.Errorf("after a restart: %+v, %d checkpoints", second, s.CheckpointCount)
	}
	var get struct{ Taken, Skipped uint64 }
	p.call("auto.get", obj{"session_id": s.ID}, &get)
	if get.Taken != 1 {
		t.Errorf("%d taken, want 1", get.Taken)
	}
	var m struct{ Automatic struct{ Taken uint64 } }
	p.call("daemon.metrics", obj{}, &m)
	if m.Automatic.Taken != 1 {
		t.Errorf("the metrics count %d taken, want 1", m.Automatic.Taken)
	}
}

func TestTriggersKeepThePutState(t *testing.T) {
	d := start(t, memoryOptions(t))
	p := d.dial()
	s := p.session(obj{})
	expect := func(state string, source checkpoint.StateSource) {
		t.Helper()
		var r triggered
		p.call("auto.trigger", obj{"session_id": s.ID, "cause": "gap_filled"}, &r)
		if c := p.latest(s.ID); c.ID != r.CheckpointID || string(c.State) != state || c.Context.StateSource != source {
			t.Errorf("got %s from %s, want %s from %s", c.State, c.Context.StateSource, state, source)
		}
	}
	expect(`{}`, checkpoint.StateNone)
	p.call("session.put_state", obj{"session_id": s.ID, "state": 1}, nil)
	expect(`1`, checkpoint.StatePut)
	expect(`1`, checkpoint.StatePut) // nothing new was put: it is the agent's state still
	p.refused(checkpoint.KindInvalidParams, "auto.trigger", obj{"session_id": s.ID, "cause": "no such"})
	var r triggered
	p.call("auto.trigger", obj{"session_id": s.ID, "cause": "error"}, &r)
	if r.Skipped != "not_enabled" {
		t.Errorf("%+v", r)
	}
}

// A configured session is checkpointed when its file changes, with no client connected.
func TestAConfiguredWatchTakesFiles(t *testing.T) {
	o := directoryOptions(t)
	notes := filepath.Join(shortDir(t), "NOTES.md")
	if err := os.WriteFile(notes, []byte("first"), 0o640); err != nil {
		t.Fatal(err)
	}
	auto := checkpoint.DefaultAuto()
	w := checkpoint.DefaultWatch()
	w.Path, w.DebounceMS = notes, 20
	auto.Watch = []checkpoint.Watch{w}
	o.Config.Sessions = append(o.Config.Sessions, sessionOf("watched", auto))
	d := start(t, o)
	p := d.dial()
	var sub struct{ Cursor string }
	p.call("events.subscribe", obj{"key": "watched", "types": []string{"created"}}, &sub)
	if err := os.WriteFile(notes, []byte("second"), 0o640); err != nil {
		t.Fatal(err)
	}
	var n struct{ Event checkpoint.Event }
	if m := p.note(); json.Unmarshal(m.Params, &n) != nil || n.Event.Cause != checkpoint.CauseFileChange {
		t.Fatalf("heard %s", m.Params)
	}
	var f struct{ Content, Mode string }
	p.call("checkpoint.file", obj{"checkpoint_id": n.Event.CheckpointID, "path": notes}, &f)
	if f.Content != "second" || f.Mode != "0640" {
		t.Errorf("captured %+v", f)
	}
	d.end()
	d = start(t, o)
	p = d.dial()
	// Cursors live on: what came after it is told again, first and in order.
	var again struct{ Fresh bool }
	p.call("events.subscribe", obj{"key": "watched", "types": []string{"created"}, "since_cursor": sub.Cursor}, &again)
	var replayed struct{ Event checkpoint.Event }
	if m := p.note(); json.Unmarshal(m.Params, &replayed) != nil || replayed.Event.CheckpointID != n.Event.CheckpointID || again.Fresh {
		t.Errorf("after a restart: %s, fresh %v", m.Params, again.Fresh)
	}
	p.refused(checkpoint.KindInvalidParams, "events.subscribe", obj{"since_cursor": "nonsense"})
}

func TestLargePutStatesAreNoDamage(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{})
	large := strings.Repeat("x", 3*pendingSmall)
	p.call("session.put_state", obj{"session_id": s.ID, "state": large}, nil)
	var v struct {
		AllValid bool `json:"all_valid"`
		Problems []any
	}
	p.call("checkpoint.validate_all", obj{}, &v)
	if !v.AllValid {
		t.Errorf("a state kept aside is taken for damage: %v", v.Problems)
	}
	p.call("checkpoint.create", obj{"session_id": s.ID, "message": "m"}, nil)
	if c := p.latest(s.ID); len(c.State) != len(large)+2 {
		t.Errorf("%d bytes of state", len(c.State))
	}
}

func TestDamageIsFoundAndTold(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{})
	var r checkpoint.Receipt
	p.call("checkpoint.create", obj{"session_id": s.ID, "message": "m", "state": "precious"}, &r)
	p.call("daemon.sync", obj{}, nil)
	path := filepath.Join(o.Paths.DataDir, "sessions", s.ID.String(), "checkpoints", fmt.Sprintf("%020d-%s.json", r.Sequence, r.CheckpointID))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[strings.Index(string(b), "precious")] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.call("events.subscribe", obj{"types": []string{"corrupt"}}, nil)
	p.refused(checkpoint.KindCorrupt, "checkpoint.get", obj{"checkpoint_id": r.CheckpointID})
	var n struct{ Event checkpoint.Event }
	if m := p.note(); json.Unmarshal(m.Params, &n) != nil || n.Event.CheckpointID != r.CheckpointID {
		t.Errorf("told %s", m.Params)
	}
	var v struct {
		AllValid bool `json:"all_valid"`
		Invalid  int
	}
	p.call("checkpoint.validate_all", obj{}, &v)
	var h struct {
		Healthy bool
		Message string
	}
	p.call("daemon.health", obj{}, &h)
	if v.AllValid || v.Invalid != 1 || h.Healthy {
		t.Errorf("%+v, health %+v", v, h)
	}
}

func TestTheStoreIsHeldUnderItsBound(t *testing.T) {
	o := directoryOptions(t)
	o.Config.Retention.MaxStoreBytes = 1 << 20
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{})
	var manual checkpoint.Receipt
	state := strings.Repeat("y", 100_000)
	p.call("checkpoint.create", obj{"session_id": s.ID, "message": "kept", "state": state}, &manual)
	for i := range 30 {
		p.call("auto.trigger", obj{"session_id": s.ID, "cause": "gap_filled", "state": fmt.Sprint(i, state)}, nil)
	}
	var list struct {
		Checkpoints []checkpoint.Summary `json:"checkpoints"`
	}
	d.svc(t).retainAll(t.Context())
	p.call("checkpoint.list", obj{"session_id": s.ID}, &list)
	n := len(list.Checkpoints)
	if n < 2 || n > 12 || list.Checkpoints[0].ID != manual.CheckpointID {
		t.Errorf("%d checkpoints stay", n)
	}
	p.refused(checkpoint.KindInvalidParams, "checkpoint.list", obj{"limit": 0})
	p.refused(checkpoint.KindInvalidParams, "checkpoint.list", obj{"limit": 1001})
}

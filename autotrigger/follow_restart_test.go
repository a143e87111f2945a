package autotrigger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// A daemon that was killed right after it began has saved where: a transcript that grew
// meanwhile is read from there, not from its new end.
func TestFollowAfterACrashMissesNothing(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	for _, there := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "t.jsonl")
		if there {
			write(t, path, nil)
		}
		k := &taker{}
		id := checkpoint.NewID()
		crashed := New(Options{Take: k.take, Save: k.save})
		stop := start(t, crashed)
		mustSet(t, crashed, id, following(path), time.Time{}, nil)
		k.mu.Lock()
		last := k.states[id] // what the disk holds when the daemon is killed
		k.mu.Unlock()
		stop()
		write(t, path, data)
		e := New(Options{Take: k.take})
		mustSet(t, e, id, following(path), time.Time{}, last)
		stop = start(t, e)
		eventually(t, "all calls", func() bool { return len(k.requests()) >= 28 })
		stop()
		checkCalls(t, k.got, path, data, 28, 1)
	}
}

// A daemon that was killed has saved nothing since: ids derived from the call make the
// taker answer with what is there.
func TestFollowAfterACrashRepeatsOnlyKnownCalls(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	path := filepath.Join(t.TempDir(), "t.jsonl")
	known := map[string]Outcome{}
	made := 0
	k := &taker{answer: func(n int, r Request) (Outcome, error) {
		out, there := known[r.ToolCallID]
		out.Existing = there
		if !there {
			made++
			out = Outcome{CheckpointID: checkpoint.NewID(), Sequence: uint64(n), Timestamp: time.Now()}
			known[r.ToolCallID] = out
		}
		return out, nil
	}}
	cfg := following(path)
	cfg.Watch[0].FromStart = true
	id := checkpoint.NewID()
	write(t, path, data[:len(data)/2])
	distinct := func() int {
		ids := map[string]bool{}
		for _, r := range k.requests() {
			ids[r.ToolCallID] = true
		}
		return len(ids)
	}
	run := func(want int) {
		e := New(Options{Take: k.take})
		mustSet(t, e, id, cfg, time.Time{}, nil) // nothing was saved
		stop := start(t, e)
		eventually(t, "the calls so far", func() bool { return distinct() >= want })
		stop()
	}
	run(5)
	write(t, path, data[len(data)/2:])
	run(28)
	if made != 28 || len(k.got) <= 28 {
		t.Errorf("%d checkpoints of %d requests", made, len(k.got))
	}
}

// A log that was rotated while nobody looked is finished under its new name.
func TestFollowRotatedBetweenRuns(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	lines := slices.Collect(bytes.Lines(data))
	path := filepath.Join(t.TempDir(), "t.jsonl")
	k := &taker{}
	id := checkpoint.NewID()
	cfg := following(path)
	cfg.Watch[0].FromStart = true
	run := func(want int) {
		e := New(Options{Take: k.take, Save: k.save})
		mustSet(t, e, id, cfg, time.Time{}, k.states[id])
		stop := start(t, e)
		eventually(t, "the calls so far", func() bool { return len(k.requests()) >= want })
		stop()
	}
	write(t, path, bytes.Join(lines[:90], nil))
	run(10)
	write(t, path, bytes.Join(lines[90:120], nil))
	must(t, os.Rename(path, path+".1"))
	write(t, path, bytes.Join(lines[120:], nil))
	run(28)
	ids := map[string]bool{}
	for _, r := range k.got {
		ids[r.ToolCallID] = true
	}
	if len(k.got) != 28 || len(ids) != 28 {
		t.Errorf("%d checkpoints of %d calls", len(k.got), len(ids))
	}
}

// keeper keeps the state with the checkpoint, as the store does, and refuses more than room.
type keeper struct {
	taker
	room  int
	kept  json.RawMessage
	lines []int
}

func newKeeper(room int) *keeper {
	k := &keeper{room: room}
	k.answer = func(n int, r Request) (Outcome, error) {
		var d struct{ Line int }
		if err := json.Unmarshal(r.Detail, &d); err != nil {
			return Outcome{}, err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.lines) == k.room {
			return Outcome{}, checkpoint.Errorf(checkpoint.KindStorage, "no room")
		}
		k.kept, k.lines = r.AutoState, append(k.lines, d.Line)
		return Outcome{CheckpointID: checkpoint.NewID(), Sequence: uint64(n), Timestamp: time.Now(), Saved: true}, nil
	}
	return k
}

func (k *keeper) took() []int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.lines)
}

// The place in the transcript is kept with each checkpoint: calls that have no id of their
// own are taken once too, wherever the daemon was killed, and so are the counts.
func TestFollowAfterACrashAnywhereTakesEachCallOnce(t *testing.T) {
	const calls = 4
	path := filepath.Join(t.TempDir(), "log.jsonl")
	for n := range calls {
		write(t, path, fmt.Appendf(nil, `{"kind":"call","n":%d}`+"\n"+`{"kind":"other"}`+"\n", n))
	}
	cfg := auto(func(c *checkpoint.AutoConfig) {
		c.OnToolCall = true
		w := checkpoint.DefaultWatch()
		w.Path, w.Format, w.FromStart = path, FormatJSONL, true
		w.Match = &checkpoint.Match{ToolCall: map[string]any{"kind": "call"}}
		c.Watch = []checkpoint.Watch{w}
	})
	for room := 1; room < calls; room++ {
		id := checkpoint.NewID()
		first := newKeeper(room)
		crashed := New(Options{Take: first.take, Save: first.save})
		mustSet(t, crashed, id, cfg, time.Time{}, nil)
		stop := start(t, crashed)
		eventually(t, "the refused call", func() bool { return len(first.requests()) > room })
		first.mu.Lock()
		disk := first.kept // what Save was given at the end is not in it
		first.mu.Unlock()
		stop()
		second := newKeeper(calls)
		e := New(Options{Take: second.take, Save: second.save})
		mustSet(t, e, id, cfg, time.Time{}, disk)
		stop = start(t, e)
		eventually(t, "the other calls", func() bool { return len(second.took()) >= calls-room })
		stop()
		if got, want := append(first.took(), second.took()...), []int{1, 3, 5, 7}; !slices.Equal(got, want) {
			t.Errorf("killed after %d: lines %v, want %v", room, got, want)
		}
		if st := e.Status(id); st.Taken != calls {
			t.Errorf("killed after %d: %d taken", room, st.Taken)
		}
	}
}

// What went with a checkpoint is not saved again, at whatever pace the transcript grows.
func TestFollowSavesNothingBesideItsCheckpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	k := &taker{answer: func(n int, _ Request) (Outcome, error) {
		return Outcome{CheckpointID: checkpoint.NewID(), Sequence: uint64(n), Timestamp: time.Now(), Saved: true}, nil
	}}
	id := checkpoint.NewID()
	e := New(Options{Take: k.take, Save: k.save})
	stop := start(t, e)
	mustSet(t, e, id, following(path), time.Time{}, nil)
	e.saveAll(t.Context()) // the beginning
	data := transcriptData(t, "claude-code-a")
	write(t, path, data)
	eventually(t, "all calls", func() bool { return e.Status(id).Taken == 28 })
	e.mu.Lock()
	at, unsaved := e.unsaved[e.sessions[id]]
	e.mu.Unlock()
	if unsaved && time.Until(at) < 24*time.Hour {
		t.Errorf("it would be saved again in %v", time.Until(at))
	}
	stop()
	st, err := decodeSaved(k.states[id])
	if err != nil || st.Taken != 28 {
		t.Fatalf("the end saved %s, %v", k.states[id], err)
	}
	rest := data[st.Follow[followKey(following(path).Watch[0])].Files[0].Offset:]
	if bytes.Contains(rest, []byte(`"type":"tool_result"`)) {
		t.Errorf("the end saved a place before the last call: %s", k.states[id])
	}
}

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// auto.enable answers the whole AutoConfig: the rules that hold are in it, the file's own
// where the session has none, and so in every answer that shows the session.
func TestAnAutomationIsShownWhole(t *testing.T) {
	d := start(t, memoryOptions(t))
	p := d.dial()
	s := p.session(obj{"name": "s"})
	want, err := json.Marshal(d.svc(t).config().Retention.Retention)
	if err != nil {
		t.Fatal(err)
	}
	var enabled, shown struct{ Retention json.RawMessage }
	p.call("auto.enable", obj{"session_id": s.ID}, &enabled)
	var got struct {
		Config struct{ Retention json.RawMessage }
	}
	p.call("auto.get", obj{"session_id": s.ID}, &got)
	var sess struct{ Auto json.RawMessage }
	p.call("session.get", obj{"session_id": s.ID}, &sess)
	if err := json.Unmarshal(sess.Auto, &shown); err != nil {
		t.Fatal(err)
	}
	for _, r := range []json.RawMessage{enabled.Retention, got.Config.Retention, shown.Retention} {
		if string(r) != string(want) {
			t.Errorf("retention %s, want %s", r, want)
		}
	}
	p.call("auto.enable", obj{"session_id": s.ID, "config": obj{"retention": obj{"keep_recent": 3}}}, &enabled)
	if string(enabled.Retention) != `{"keep_recent":3}` {
		t.Errorf("a session's own rules came back as %s", enabled.Retention)
	}
}

// A state that is put after a create was sent outlives it, pipelined or not.
func TestAStatePutBehindACreateStays(t *testing.T) {
	d := start(t, directoryOptions(t))
	p := d.dial()
	s := p.session(obj{"name": "s"})
	const rounds = 50
	for i := range rounds {
		p.send("checkpoint.create", obj{"session_id": s.ID, "message": "given", "state": "given"})
		p.send("session.put_state", obj{"session_id": s.ID, "state": i})
		p.send("checkpoint.create", obj{"session_id": s.ID, "message": fmt.Sprint(i)})
	}
	for range 3 * rounds {
		if m := p.read(); m.Error != nil {
			t.Fatal(m.Error)
		}
	}
	var list struct {
		Checkpoints []checkpoint.Summary
	}
	p.call("checkpoint.list", obj{"session_id": s.ID, "limit": 1000}, &list)
	for _, c := range list.Checkpoints {
		if c.Message == "given" {
			continue
		}
		var got struct{ State json.RawMessage }
		p.call("checkpoint.get", obj{"checkpoint_id": c.ID}, &got)
		if string(got.State) != c.Message {
			t.Errorf("the state put for %s was lost: its checkpoint has %s", c.Message, got.State)
		}
	}
}

// validate tells what the checksum should be, also when the bytes no longer do.
func TestValidateNamesTheChecksum(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{"name": "s"})
	var r checkpoint.Receipt
	p.call("checkpoint.create", obj{"session_id": s.ID, "message": "m", "state": obj{"a": 1}}, &r)
	p.call("daemon.sync", obj{}, nil)
	file := filepath.Join(o.Paths.DataDir, "sessions", s.ID.String(), "checkpoints", fmt.Sprintf("%020d-%s.json", r.Sequence, r.CheckpointID))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // found, then known
		var v struct {
			Valid             bool
			Checksum, Problem string
		}
		p.call("checkpoint.validate", obj{"checkpoint_id": r.CheckpointID}, &v)
		if v.Valid || v.Problem == "" || v.Checksum != r.Checksum {
			t.Errorf("%+v, want the checksum %s", v, r.Checksum)
		}
	}
}

// Who sees only their own sessions hears of their end too, in a replay as well, when
// nothing is left that tells whose they were.
func TestTheOwnerHearsThatASessionIsGone(t *testing.T) {
	store, err := storage.OpenMemory(t.Context(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	before, err := store.Events(t.Context(), "", 1)
	if err != nil {
		t.Fatal(err)
	}
	const mine, other = uint32(1234), uint32(99)
	for _, uid := range []uint32{mine, other} {
		sess, _, err := store.CreateSession(t.Context(), storage.NewSession{Name: "short-lived", OwnerUID: uid})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.DeleteSession(t.Context(), sess.ID); err != nil {
			t.Fatal(err)
		}
	}
	sub := &subscription{owner: ptr(mine)}
	var heard []checkpoint.EventType
	for seen, cursor := 0, before.Cursor; seen < 4; {
		changed := store.EventsChanged()
		page, err := store.Events(t.Context(), cursor, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			hub := newEventHub(store, slog.New(slog.DiscardHandler)) // knows nobody yet
			if hub.wants(t.Context(), sub, e.Event) {
				heard = append(heard, e.Event.Type)
			}
			cursor = e.Cursor
		}
		if seen += len(page.Events); len(page.Events) == 0 {
			<-changed
		}
	}
	if want := []checkpoint.EventType{checkpoint.EventSessionCreated, checkpoint.EventSessionDeleted}; !slices.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}

// An automation that is the file's ends with its entry, whether a daemon was there to see
// that or not; one that a client enabled stays.
func TestAnEntryThatGoesWhileTheDaemonIsDown(t *testing.T) {
	o := directoryOptions(t)
	auto := checkpoint.DefaultAuto()
	auto.IntervalSeconds = 3600
	o.Config.Sessions = append(o.Config.Sessions, sessionOf("stays", auto), sessionOf("goes", auto))
	d := start(t, o)
	p := d.dial()
	p.session(obj{"name": "own", "key": "own"})
	p.call("auto.enable", obj{"key": "own"}, nil)
	p.call("auto.trigger", obj{"key": "goes", "cause": "gap_filled", "state": 1}, nil)
	d.end()
	o.Config.Sessions = o.Config.Sessions[:1]
	for range 2 { // and it stays so
		d = start(t, o)
		p = d.dial()
		for key, want := range map[string]bool{"own": true, "stays": true, "goes": false} {
			var got struct {
				Config   *checkpoint.AutoConfig
				NextRuns []string `json:"next_runs"`
				Taken    int
			}
			p.call("auto.get", obj{"key": key}, &got)
			if (got.Config != nil) != want || (len(got.NextRuns) > 0) != want {
				t.Errorf("%s: automation %v, next runs %v; want %v", key, got.Config, got.NextRuns, want)
			}
			if key == "goes" && got.Taken != 1 {
				t.Errorf("its counts are gone: %d taken", got.Taken)
			}
		}
		d.end()
	}
}

// A killed daemon's lock may outlive it by a moment.
func TestAStartWaitsForTheLock(t *testing.T) {
	o := directoryOptions(t)
	held, err := storage.Open(t.Context(), storage.Options{Dir: o.Paths.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), o); !errors.Is(err, storage.ErrLocked) {
		t.Fatalf("with a holder that stays: %v", err)
	}
	closed := make(chan error, 1)
	time.AfterFunc(lockPatience/5, func() { closed <- held.Close() })
	start(t, o)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

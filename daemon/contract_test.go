package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
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

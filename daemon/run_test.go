package daemon

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
)

func TestASessionsLifeSurvivesARestart(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{"key": "k"})
	state := json.RawMessage(`{"n":1.0,"big":123456789012345678901234567890,"e":1e400}`)
	var first checkpoint.Receipt
	p.call("checkpoint.create", obj{"key": "k", "message": "one", "state": state}, &first)
	p.call("session.put_state", obj{"session_id": s.ID, "state": obj{"put": 1}}, nil)
	var second checkpoint.Receipt
	p.call("checkpoint.create", obj{"key": "k", "message": "two"}, &second)
	if second.Sequence <= first.Sequence {
		t.Fatalf("numbers %d, %d", first.Sequence, second.Sequence)
	}
	if c := p.latest(s.ID); string(c.State) != `{"put":1}` || c.Context.StateSource != checkpoint.StatePut || c.ParentID != first.CheckpointID {
		t.Fatalf("latest: %s from %s, parent %s", c.State, c.Context.StateSource, c.ParentID)
	}
	p.call("checkpoint.create", obj{"key": "k", "message": "three"}, nil)
	if c := p.latest(s.ID); string(c.State) != `{}` || c.Context.StateSource != checkpoint.StateNone {
		t.Fatalf("a put_state was taken twice: %s from %s", c.State, c.Context.StateSource)
	}
	d.end()
	if _, err := os.Lstat(o.Paths.Socket); !os.IsNotExist(err) {
		t.Fatalf("the socket stays: %v", err)
	}

	d = start(t, o)
	p = d.dial()
	var got struct {
		Checkpoint checkpoint.Checkpoint `json:"checkpoint"`
		State      json.RawMessage       `json:"state"`
	}
	p.call("checkpoint.restore", obj{"key": "k", "checkpoint_id": first.CheckpointID}, &got)
	if string(got.State) != string(state) {
		t.Fatalf("restored %s, want %s", got.State, state)
	}
	var r checkpoint.Receipt
	p.call("checkpoint.create", obj{"key": "k", "message": "grown from one"}, &r)
	if c := p.latest(s.ID); c.ParentID != first.CheckpointID || string(c.State) != string(state) || r.Sequence <= second.Sequence {
		t.Fatalf("after restore: parent %s, state %s, number %d", c.ParentID, c.State, r.Sequence)
	}
	p.call("session.close", obj{"key": "k"}, nil)
	p.refused(checkpoint.KindInvalidState, "checkpoint.create", obj{"key": "k", "message": "late", "state": 1})
	p.refused(checkpoint.KindInvalidState, "session.put_state", obj{"key": "k", "state": 1})
	p.call("session.reopen", obj{"key": "k"}, nil)
	p.call("checkpoint.create", obj{"key": "k", "message": "again", "state": 1}, nil)
	p.refused(checkpoint.KindNotFound, "session.get", obj{"key": "none"})
	var health struct {
		Healthy bool
		Checked int
	}
	p.call("daemon.health", obj{"validate": true}, &health)
	if !health.Healthy || health.Checked == 0 {
		t.Fatalf("health: %+v", health)
	}
}

func TestPipelinedCreatesRise(t *testing.T) {
	d := start(t, directoryOptions(t))
	p := d.dial()
	s := p.session(obj{})
	creates := make([]obj, 1000)
	for i := range creates {
		creates[i] = obj{"session_id": s.ID, "message": fmt.Sprint(i), "state": i}
	}
	var last uint64
	for i, raw := range p.pipelined("checkpoint.create", creates) {
		var r checkpoint.Receipt
		if err := json.Unmarshal(raw, &r); err != nil || r.Sequence <= last {
			t.Fatalf("request %d got number %d, the one before it %d: %v", i, r.Sequence, last, err)
		}
		last = r.Sequence
	}
}

// What was asked before the end is answered, and what an agent put is saved.
func TestDrainAnswersAndSaves(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{"key": "k"})
	unsaved := p.session(obj{"key": "unsaved"})
	p.call("session.put_state", obj{"session_id": unsaved.ID, "state": obj{"last": true}}, nil)
	const n = 200
	for i := range n {
		b, _ := json.Marshal(obj{"jsonrpc": "2.0", "id": i, "method": "checkpoint.create", "params": obj{"session_id": s.ID, "message": "m", "state": i}})
		p.write(b)
	}
	made := 0
	for i := range n {
		m := p.read()
		if i == 0 {
			d.stop() // in the middle of them
		}
		switch {
		case m.Error == nil:
			made++
		case m.Error.Data.Kind != string(checkpoint.KindInvalidState):
			t.Fatalf("refused with %v", m.Error)
		}
	}
	d.end()
	if _, err := net.Dial("unix", o.Paths.Socket); err == nil {
		t.Fatal("somebody listens still")
	}
	d = start(t, o)
	p = d.dial()
	p.call("session.get", obj{"key": "k"}, &s)
	if s.CheckpointCount != made || made == 0 {
		t.Errorf("%d were acknowledged, %d are there", made, s.CheckpointCount)
	}
	if c := p.latest(unsaved.ID); c == nil || c.Cause != checkpoint.CauseDisconnect || string(c.State) != `{"last":true}` {
		t.Errorf("the unsaved state: %+v", c)
	}
}

func TestShutdownOverTheWire(t *testing.T) {
	d := start(t, memoryOptions(t))
	var r struct{ Draining bool }
	d.dial().call("daemon.shutdown", obj{}, &r)
	if err := <-d.done; err != nil || !r.Draining {
		t.Fatalf("%v, %+v", err, r)
	}
	d.done <- nil
}

// dialAs connects with another uid: only this thread's, which ends with its goroutine.
func dialAs(t *testing.T, socket string, uid int) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	ch := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not used again
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			ch <- result{nil, e}
			return
		}
		c, err := net.Dial("unix", socket)
		ch <- result{c, err}
	}()
	r := <-ch
	if r.err != nil {
		t.Fatalf("connecting as uid %d: %v", uid, r.err)
	}
	return r.c
}

func TestOtherUsersSeeTheirOwnOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be two users")
	}
	o := memoryOptions(t)
	o.Config.Socket.AllowedUIDs = []uint32{12345, 12346}
	o.Config.Socket.Mode = "0666"
	if err := os.Chmod(filepath.Dir(filepath.Dir(o.Paths.Socket)), 0o711); err != nil {
		t.Fatal(err)
	}
	d := start(t, o)
	root := d.dial()
	a, b := d.peerOn(dialAs(t, o.Paths.Socket, 12345)), d.peerOn(dialAs(t, o.Paths.Socket, 12346))
	sa := a.session(obj{"key": "a"})
	if sa.OwnerUID != 12345 {
		t.Fatalf("owner %d", sa.OwnerUID)
	}
	var r checkpoint.Receipt
	a.call("checkpoint.create", obj{"key": "a", "message": "m", "state": 1}, &r)
	for method, params := range map[string]obj{
		"session.get": {"key": "a"}, "session.close": {"session_id": sa.ID}, "session.delete": {"key": "a"}, "session.put_state": {"key": "a", "state": 1},
		"session.attach": {"key": "a"}, "checkpoint.create": {"key": "a", "message": "m"}, "checkpoint.get": {"checkpoint_id": r.CheckpointID},
		"checkpoint.latest": {"key": "a"}, "checkpoint.list": {"key": "a"}, "checkpoint.restore": {"key": "a", "checkpoint_id": r.CheckpointID},
		"checkpoint.fork": {"checkpoint_id": r.CheckpointID, "name": "f"}, "checkpoint.delete": {"checkpoint_id": r.CheckpointID},
		"checkpoint.validate": {"checkpoint_id": r.CheckpointID}, "checkpoint.annotate": {"checkpoint_id": r.CheckpointID, "note": "n"},
		"auto.trigger": {"key": "a", "cause": "branch_switch"}, "auto.get": {"key": "a"}, "store.export": {"key": "a"}, "events.subscribe": {"key": "a"},
		"checkpoint.diff": {"from": r.CheckpointID, "to": r.CheckpointID}, "checkpoint.validate_all": {"key": "a"},
	} {
		b.refused(checkpoint.KindNotFound, method, params)
	}
	b.refused(checkpoint.KindConflict, "session.create", obj{"name": "b", "key": "a"})
	for _, method := range []string{"daemon.shutdown", "daemon.reload"} {
		b.refused(checkpoint.KindPermissionDenied, method, obj{})
	}
	b.refused(checkpoint.KindPermissionDenied, "session.create", obj{"name": "b", "auto": obj{"watch": []obj{{"path": "/etc/shadow"}}}})
	b.refused(checkpoint.KindPermissionDenied, "session.create", obj{"name": "b", "auto": obj{"capture": obj{"files": []string{"/etc/shadow"}}}})
	count := func(p *peer) int {
		var l struct{ Sessions []checkpoint.Session }
		p.call("session.list", obj{}, &l)
		return len(l.Sessions)
	}
	if na, nb, nr := count(a), count(b), count(root); na != 1 || nb != 0 || nr != 1 {
		t.Errorf("a sees %d sessions, b %d, root %d", na, nb, nr)
	}
	root.call("checkpoint.get", obj{"checkpoint_id": r.CheckpointID}, nil)
	// b's subscription to all hears nothing of a, and of itself.
	b.call("events.subscribe", obj{}, nil)
	a.call("checkpoint.create", obj{"key": "a", "message": "m", "state": 2}, nil)
	sb := b.session(obj{"key": "b"})
	var n struct{ Event checkpoint.Event }
	if m := b.note(); json.Unmarshal(m.Params, &n) != nil || n.Event.SessionID != sb.ID {
		t.Errorf("b heard %s", m.Params)
	}
}

func TestAttachedAgentsAreAsked(t *testing.T) {
	o := memoryOptions(t)
	o.Config.Capture.Timeout = 300 * time.Millisecond
	d := start(t, o)
	p, agent := d.dial(), d.dial()
	s := p.session(obj{})
	agent.call("session.attach", obj{"session_id": s.ID, "provides_state": true}, nil)
	p.call("session.put_state", obj{"session_id": s.ID, "state": "put"}, nil)
	trigger := func(state string, source checkpoint.StateSource) {
		t.Helper()
		var r struct {
			CheckpointID checkpoint.ID `json:"checkpoint_id"`
		}
		p.call("auto.trigger", obj{"session_id": s.ID, "cause": "branch_switch"}, &r)
		if c := p.latest(s.ID); string(c.State) != state || c.Context.StateSource != source || c.ID != r.CheckpointID {
			t.Errorf("got %s from %s, want %s from %s", c.State, c.Context.StateSource, state, source)
		}
	}
	answer := func(reply string) {
		m := agent.note()
		if m.Method != "state.capture" || !strings.Contains(string(m.Params), s.ID.String()) || !strings.Contains(string(m.Params), "branch_switch") {
			t.Errorf("the agent was asked %s %s", m.Method, m.Params)
		}
		agent.write(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,%s}`, m.ID, reply))
	}
	for _, c := range []struct {
		reply, state string
		source       checkpoint.StateSource
	}{
		{`"result":{"state": {"z": 1.0,"a":[1e400]} }`, `{"z":1.0,"a":[1e400]}`, checkpoint.StateAttached},
		{`"result":{"state":null}`, `null`, checkpoint.StateAttached},
		{`"result":{}`, `"put"`, checkpoint.StatePut},
		{`"error":{"code":1,"message":"no"}`, `"put"`, checkpoint.StatePut}, // put again by nobody: the newest is kept
	} {
		done := make(chan struct{})
		go func() { defer close(done); answer(c.reply) }()
		trigger(c.state, c.source)
		<-done
	}
	p.call("session.put_state", obj{"session_id": s.ID, "state": "put2"}, nil)
	trigger(`"put2"`, checkpoint.StatePut) // no answer in time

	p.call("session.put_state", obj{"session_id": s.ID, "state": "unsaved"}, nil)
	p.call("events.subscribe", obj{"session_id": s.ID, "types": []string{"created"}}, nil)
	agent.c.Close()
	p.note()
	if c := p.latest(s.ID); c.Cause != checkpoint.CauseDisconnect || string(c.State) != `"unsaved"` {
		t.Errorf("after the agent dropped: %s, cause %s", c.State, c.Cause)
	}
}

func TestReloadIsWholeOrNot(t *testing.T) {
	o := memoryOptions(t)
	o.Paths.Config = filepath.Join(shortDir(t), "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(o.Paths.Config, []byte("storage: {driver: memory}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sessions: [{key: one, auto: {interval_seconds: 60}}]\n")
	var err error
	if o.Config, err = config.Load(o.Paths.Config); err != nil {
		t.Fatal(err)
	}
	d := start(t, o)
	p := d.dial()
	auto := func(key string) *checkpoint.AutoConfig {
		var s checkpoint.Session
		p.call("session.get", obj{"key": key}, &s)
		return s.Auto
	}
	if a := auto("one"); a == nil || a.IntervalSeconds != 60 {
		t.Fatalf("the configured session has %+v", a)
	}
	for _, bad := range []string{"nonsense: 1\n", "scrub: {cron: \"TZ=\"}\n", "sessions: [{key: one, auto: {cron: \"61 * * * *\"}}]\n"} {
		write(bad)
		p.refused(checkpoint.KindInvalidParams, "daemon.reload", obj{})
	}
	if a := auto("one"); a == nil {
		t.Fatal("a bad file changed something")
	}
	write("log: {level: error}\nsessions: [{key: two, labels: {a: b}}]\nevents: {retain: 5000}\n")
	var r struct {
		Reloaded bool
		Restart  []string `json:"restart_to_apply"`
	}
	p.call("daemon.reload", obj{}, &r)
	if !r.Reloaded || fmt.Sprint(r.Restart) != "[events.retain]" || d.o.Level.Level().String() != "ERROR" {
		t.Errorf("%+v, level %s", r, d.o.Level.Level())
	}
	if auto("one") != nil || auto("two") == nil {
		t.Error("automation did not follow the file")
	}
}

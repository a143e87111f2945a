package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// fakeDaemon answers the calls that hooks make and remembers them.
type fakeDaemon struct {
	socket string
	mu     sync.Mutex
	calls  []fakeCall
	byKey  map[string]*checkpoint.Session
	made   map[checkpoint.ID]*checkpoint.Checkpoint
	files  map[string][]byte
	deny   bool          // it is another user's: no watches
	slow   chan struct{} // auto.trigger answers when it is closed; nil: at once
	l      net.Listener
}

type fakeCall struct {
	method string
	params json.RawMessage
}

func newFakeDaemon(t *testing.T, socket string) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{socket: socket, byKey: map[string]*checkpoint.Session{}, made: map[checkpoint.ID]*checkpoint.Checkpoint{}}
	d.listen(t)
	return d
}

func (d *fakeDaemon) listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	d.l = l
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(c)
		}
	}()
}

func (d *fakeDaemon) serve(c net.Conn) {
	defer c.Close()
	dec, enc := json.NewDecoder(c), json.NewEncoder(c)
	for {
		var req struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
		}
		if dec.Decode(&req) != nil {
			return
		}
		reply := map[string]any{"jsonrpc": "2.0", "id": req.ID}
		if d.deny && bytes.Contains(req.Params, []byte(`"watch"`)) {
			reply["error"] = map[string]any{"code": -32006, "message": "not yours", "data": map[string]any{"kind": "permission_denied"}}
		} else {
			reply["result"] = d.answer(req.Method, req.Params)
		}
		if enc.Encode(reply) != nil {
			return
		}
	}
}

func (d *fakeDaemon) answer(method string, params json.RawMessage) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	if method != "daemon.info" {
		d.calls = append(d.calls, fakeCall{method, params})
	}
	switch method {
	case "daemon.info":
		return rpc.Info{Name: "forge-cpd", API: rpc.APIVersion, Version: version}
	case "session.create":
		var p rpc.SessionCreateParams
		_ = json.Unmarshal(params, &p)
		s, existing := d.byKey[p.Key], true
		if s == nil {
			auto := checkpoint.DefaultAuto()
			_ = json.Unmarshal(p.Auto, &auto)
			s, existing = &checkpoint.Session{ID: checkpoint.NewID(), Key: p.Key, Name: p.Name, Labels: p.Labels, Status: checkpoint.Active, Auto: &auto}, false
			d.byKey[p.Key] = s
		}
		return rpc.SessionCreateResult{Session: *s, Existing: existing}
	case "session.get":
		var p rpc.SessionParams
		_ = json.Unmarshal(params, &p)
		for _, s := range d.byKey {
			if s.ID == p.SessionID {
				return s
			}
		}
	case "checkpoint.file":
		var p rpc.CheckpointFileParams
		_ = json.Unmarshal(params, &p)
		text := string(d.files[p.Path])
		return rpc.CheckpointFileResult{Path: p.Path, Mode: "0600", Content: &text}
	case "session.reopen":
		for _, s := range d.byKey {
			s.Status = checkpoint.Active
		}
	case "auto.enable":
		var p rpc.AutoEnableParams
		_ = json.Unmarshal(params, &p)
		for _, s := range d.byKey {
			if s.ID == p.SessionID {
				_ = json.Unmarshal(p.Config, s.Auto)
				return s.Auto
			}
		}
	case "auto.trigger":
		var p rpc.AutoTriggerParams
		_ = json.Unmarshal(params, &p)
		var detail hookDetail
		_ = json.Unmarshal(p.Detail, &detail)
		for _, c := range d.made {
			var known hookDetail
			if json.Unmarshal(c.Context.Detail, &known) == nil && known.EventID == detail.EventID && known.EventID != "" {
				return rpc.AutoTriggerResult{CheckpointID: c.ID}
			}
		}
		c := &checkpoint.Checkpoint{ID: checkpoint.NewID(), SessionID: p.SessionID, Cause: p.Cause, Message: p.Message, State: json.RawMessage("{}"), Tags: []string{}}
		c.Context.Detail = p.Detail
		d.made[c.ID] = c
		if d.slow != nil {
			d.mu.Unlock()
			<-d.slow
			d.mu.Lock()
		}
		return rpc.AutoTriggerResult{CheckpointID: c.ID, Sequence: uint64(len(d.made))}
	case "checkpoint.get":
		var p rpc.CheckpointParams
		_ = json.Unmarshal(params, &p)
		return d.made[p.CheckpointID]
	}
	return map[string]any{}
}

// told gives the triggers as "cause message".
func (d *fakeDaemon) told() []rpc.AutoTriggerParams {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []rpc.AutoTriggerParams
	for _, c := range d.calls {
		if c.method == "auto.trigger" {
			var p rpc.AutoTriggerParams
			_ = json.Unmarshal(c.params, &p)
			out = append(out, p)
		}
	}
	return out
}

func (d *fakeDaemon) count(method string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, c := range d.calls {
		if c.method == method {
			n++
		}
	}
	return n
}

// hookHome is an environment of its own for hooks: a socket, a store and a home.
func hookHome(t *testing.T) (dir, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	for name, value := range map[string]string{
		"HOME": dir, "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": "", "XDG_RUNTIME_DIR": "", "FORGE_CPD_SOCKET": socket,
		"FORGE_CPD_DATA_DIR": filepath.Join(dir, "data"), "FORGE_CPD_CONFIG": "", "FORGE_CPD_NO_AUTOSTART": "1", "CLAUDE_CONFIG_DIR": "", "CODEX_HOME": "",
	} {
		t.Setenv(name, value)
	}
	return dir, socket
}

// hookRun runs the command as an agent does and checks what every hook promises.
func hookRun(t *testing.T, agent string, event []byte) time.Duration {
	t.Helper()
	var out, talk bytes.Buffer
	start := time.Now()
	code := run(t.Context(), []string{"hook", agent}, bytes.NewReader(event), &out, &talk)
	if code != 0 || out.Len() > 0 || talk.Len() > 0 {
		t.Fatalf("hook %s: exit %d, printed %q and %q", agent, code, out.String(), talk.String())
	}
	return time.Since(start)
}

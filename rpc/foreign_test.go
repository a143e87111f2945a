package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
)

// These tests run the daemon as users do and talk to it with programs that nobody here
// wrote. One that is not installed is skipped, unless FORGE_CPD_REQUIRE_CLIENTS is set.

func absent(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("FORGE_CPD_REQUIRE_CLIENTS") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func program(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		absent(t, name+" is not installed: apt-get install "+pkg)
	}
	return path
}

var daemonDir string // where buildDaemon put it

var buildDaemon = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "forge-cpd")
	if err != nil {
		return "", err
	}
	daemonDir = dir
	bin := filepath.Join(dir, "forge-cpd")
	out, err := exec.Command("go", "build", "-o", bin, "../cmd/forge-cpd").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return bin, err
})

// daemon starts the real one, by another program when one is given, and returns its socket.
func daemon(t *testing.T, by ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it builds and runs the daemon")
	}
	bin, err := buildDaemon()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "run", "s")
	args := append(by, bin, "serve", "--config", config, "--socket", socket, "--data-dir", filepath.Join(dir, "data"))
	cmd := exec.Command(args[0], args[1:]...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) { // a test may have stopped it
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the daemon: %v", err)
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", log.Bytes())
		}
		os.RemoveAll(dir)
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(end) {
			t.Fatalf("the daemon did not start: %v\n%s", err, log.Bytes())
		}
	}
}

func script(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func TestForeignClients(t *testing.T) {
	socket := daemon(t)
	const clients = "testdata/clients/"
	for name, pkg := range map[string]string{
		"jayson": "jayson", "json-rpc-2.0": "json-rpc-2.0", "vscode-jsonrpc": "vscode-jsonrpc", "openrpc": "@open-rpc/meta-schema",
	} {
		t.Run(name, func(t *testing.T) {
			node := program(t, "node", "nodejs")
			if _, err := os.Stat(clients + "node_modules/" + pkg); err != nil {
				absent(t, "npm package "+pkg+" is not there: run npm ci in rpc/"+clients)
			}
			if out := script(t, node, clients+name+".cjs", socket); out != "ok\n" {
				t.Errorf("got %s", out)
			}
		})
	}
	t.Run("python", func(t *testing.T) {
		if out := script(t, program(t, "python3", "python3"), clients+"client.py", socket); out != "ok\n" {
			t.Errorf("got %s", out)
		}
	})
	// Both close their sending half at once and print what comes back.
	for name, pipe := range map[string]struct{ pkg, command string }{
		"nc":    {"netcat-openbsd", "nc -U -N %s"},
		"socat": {"socat", "socat -t5 - UNIX-CONNECT:%s"},
	} {
		t.Run(name, func(t *testing.T) {
			program(t, name, pipe.pkg)
			pipeJob(t, fmt.Sprintf(pipe.command, socket), name)
		})
	}
	for name, framing := range map[string]channel.Framing{"line": channel.Line, "lsp": channel.LSP} {
		t.Run("jrpc2 "+name, func(t *testing.T) { goJob(t, socket, framing) })
	}
}

// pipeJob sends all requests in one go.
func pipeJob(t *testing.T, command, key string) {
	id := "aaaaaaaa-0000-4000-8000-00000000000" + fmt.Sprint(len(key))
	in := strings.Join([]string{
		call(1, "session.create", fmt.Sprintf(`{"name":"n","key":%q}`, key)),
		call(2, "checkpoint.create", fmt.Sprintf(`{"key":%q,"message":"m","state":{"b":1.0,"a":2},"checkpoint_id":%q}`, key, id)),
		call(3, "checkpoint.list", fmt.Sprintf(`{"key":%q}`, key)),
		call(4, "checkpoint.restore", fmt.Sprintf(`{"key":%q,"checkpoint_id":%q}`, key, id)),
		call(5, "checkpoint.get", `{"checkpoint_id":"bbbbbbbb-0000-4000-8000-000000000000"}`),
	}, "\n")
	out := script(t, "sh", "-c", fmt.Sprintf("printf '%%s' '%s' | %s", in, command))
	got := map[string]string{}
	for line := range strings.Lines(out) {
		got[strings.Fields(brief(t, line))[0]] = line
	}
	if len(got) != 5 || !strings.Contains(got["3"], id) || !strings.Contains(got["4"], `"state":{"b":1.0,"a":2}}`) || !strings.Contains(got["5"], "-32001") {
		t.Errorf("got %s", out)
	}
}

func goJob(t *testing.T, socket string, framing channel.Framing) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	client := jrpc2.NewClient(framing(c, c), &jrpc2.ClientOptions{
		OnCallback: func(_ context.Context, r *jrpc2.Request) (any, error) {
			asked <- r.Method()
			return map[string]any{"state": map[string]any{"from": "callback"}}, nil
		},
	})
	defer client.Close()
	ctx := t.Context()
	must := func(method string, params, result any) {
		t.Helper()
		if err := client.CallResult(ctx, method, params, result); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	type object = map[string]any
	var session struct{ ID string }
	must("session.create", object{"name": "jrpc2"}, &session)
	var receipt struct {
		ID string `json:"checkpoint_id"`
	}
	must("checkpoint.create", object{"session_id": session.ID, "message": "m", "state": object{"a": 1}}, &receipt)
	var list struct{ Checkpoints []struct{ ID string } }
	must("checkpoint.list", object{"session_id": session.ID}, &list)
	if len(list.Checkpoints) != 1 || list.Checkpoints[0].ID != receipt.ID {
		t.Errorf("list %+v", list)
	}
	var back struct{ State json.RawMessage }
	must("checkpoint.restore", object{"session_id": session.ID, "checkpoint_id": receipt.ID}, &back)
	if string(back.State) != `{"a":1}` {
		t.Errorf("state %s", back.State)
	}
	var refused *jrpc2.Error
	if _, err := client.Call(ctx, "checkpoint.get", object{"checkpoint_id": session.ID}); !errors.As(err, &refused) || refused.Code != -32001 {
		t.Errorf("an unknown checkpoint: %v", err)
	}
	batch, err := client.Batch(ctx, []jrpc2.Spec{
		{Method: "session.get", Params: object{"session_id": session.ID}}, {Method: "daemon.info", Notify: true}, {Method: "no.such"},
	})
	if err != nil || len(batch) != 2 || batch[0].Error() != nil || batch[1].Error().Code != -32601 {
		t.Errorf("batch %v, %v", batch, err)
	}
	must("session.attach", object{"session_id": session.ID, "provides_state": true}, &object{})
	must("auto.enable", object{"session_id": session.ID, "config": object{"interval_seconds": 0}}, &object{})
	must("auto.trigger", object{"session_id": session.ID, "cause": "branch_switch"}, &receipt)
	if got := <-asked; got != "state.capture" {
		t.Errorf("asked %s", got)
	}
	must("checkpoint.get", object{"checkpoint_id": receipt.ID}, &back)
	if string(back.State) != `{"from":"callback"}` {
		t.Errorf("state %s", back.State)
	}
}

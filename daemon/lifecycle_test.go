package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// asAgent runs a process with an environment of its own that sends lines and returns the answers.
func asAgent(t *testing.T, socket, dir string, env []string, lines string) []byte {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(env, "FC_AGENT="+socket), strings.NewReader(lines)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Fifty secrets are allowed by name and planted in an agent's environment: none may get
// into a file, a log or an answer, and the counter says how many were held back.
func TestPlantedSecretsStayOut(t *testing.T) {
	o := directoryOptions(t)
	secrets := plantedSecrets()
	env := []string{"KEPT=an ordinary value"}
	for name, value := range secrets {
		if strings.HasPrefix(value, "x") && len(value) < 4 {
			value = "canary-" + value + "-yranac"
			secrets[name] = value
		}
		env = append(env, name+"="+value)
	}
	o.Config.Capture.Env = append(slices.Collect(maps.Keys(secrets)), "KEPT")
	d := start(t, o)
	s := d.dial().session(obj{})
	dir := shortDir(t)
	line, err := json.Marshal(obj{"jsonrpc": "2.0", "id": 1, "method": "checkpoint.create", "params": obj{"session_id": s.ID, "message": "m"}})
	if err != nil {
		t.Fatal(err)
	}
	get, err := json.Marshal(obj{"jsonrpc": "2.0", "id": 2, "method": "checkpoint.latest", "params": obj{"session_id": s.ID}})
	if err != nil {
		t.Fatal(err)
	}
	out := asAgent(t, o.Paths.Socket, dir, env, string(line)+"\n"+string(get)+"\n")
	var reply struct{ Result checkpoint.Checkpoint }
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &reply); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	c := reply.Result.Context
	if len(c.EnvVars) != 1 || c.EnvVars["KEPT"] != "an ordinary value" || c.WorkingDir != dir || c.PID == 0 || c.PID == os.Getpid() {
		t.Errorf("context: env %v, dir %q, pid %d", c.EnvVars, c.WorkingDir, c.PID)
	}
	var m struct {
		Redacted uint64 `json:"redacted_total"`
	}
	d.dial().call("daemon.metrics", obj{}, &m)
	if m.Redacted != 50 {
		t.Errorf("%d values were held back, want 50", m.Redacted)
	}
	texts := map[string][]byte{"the answer": out}
	gather := func(when, root string) {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				texts[when+path], err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	gather("before it was published: ", o.Paths.DataDir)
	pages, _ := d.dial().export(1 << 20)
	texts["the export"] = bytes.Join(asBytes(pages), nil)
	backup := filepath.Join(dir, "backup")
	if _, err := storage.Backup(t.Context(), storage.BackupOptions{
		From: o.Paths.DataDir, To: backup, Sync: func(context.Context) error { d.dial().call("daemon.sync", obj{}, nil); return nil },
	}); err != nil {
		t.Fatal(err)
	}
	gather("", backup)
	gather("published: ", o.Paths.DataDir)
	d.end()
	gather("at the end: ", o.Paths.DataDir)
	texts["the log"] = []byte(d.log.String())
	kept := 0
	for where, text := range texts {
		if bytes.Contains(text, []byte("an ordinary value")) {
			kept++
		}
		for name, value := range secrets {
			quoted, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte(value)) || bytes.Contains(text, quoted[1:len(quoted)-1]) {
				t.Errorf("%s is in %s", name, where)
			}
		}
	}
	if kept < 5 { // the answer, the journal, the export, the backup, the published file
		t.Errorf("the ordinary value is in %d of %d texts: not all was looked at", kept, len(texts))
	}
}

func asBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}

func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(shortDir(t), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "200000")
	next := func(want string) string {
		t.Helper()
		for {
			b := make([]byte, 4096)
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if text := string(b[:n]); strings.Contains(text, want) {
				return text
			}
		}
	}
	o := memoryOptions(t)
	hup := make(chan os.Signal, 1)
	o.Reload = hup
	d := start(t, o)
	next("READY=1")
	next("WATCHDOG=1")
	hup <- os.Interrupt
	if text := next("RELOADING=1"); !strings.Contains(text, "MONOTONIC_USEC=") {
		t.Errorf("the time is not in the same datagram: %q", text)
	}
	next("READY=1")
	d.end()
	next("STOPPING=1")
}

func TestAnInheritedSocketIsLeftAlone(t *testing.T) {
	o := memoryOptions(t)
	if err := os.Mkdir(filepath.Dir(o.Paths.Socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", o.Paths.Socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as one from systemd is
	o.Listener = l
	d := start(t, o)
	d.dial().call("daemon.info", obj{}, nil)
	d.end()
	if _, err := os.Lstat(o.Paths.Socket); err != nil {
		t.Errorf("the inherited socket: %v", err)
	}
}

func TestMetricsOverHTTP(t *testing.T) {
	o := memoryOptions(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Config.Metrics.Listen = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	d := start(t, o)
	p := d.dial()
	s := p.session(obj{})
	var r checkpoint.Receipt
	p.call("checkpoint.create", obj{"session_id": s.ID, "message": "m", "state": 1}, &r)
	p.call("checkpoint.restore", obj{"session_id": s.ID, "checkpoint_id": r.CheckpointID}, nil)
	resp, err := http.Get("http://" + o.Config.Metrics.Listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	text := b.String()
	for _, want := range []string{
		"forge_cpd_creates_total 1\n", "forge_cpd_restores_total 1\n", "forge_cpd_create_seconds_count 1\n",
		"forge_cpd_create_seconds_bucket{le=\"+Inf\"} 1\n", "forge_cpd_restore_seconds_count 1\n", "forge_cpd_healthy 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q", want)
		}
	}
	if !strings.HasSuffix(text, "\n# EOF\n") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/openmetrics-text") {
		t.Errorf("not OpenMetrics: %s ends %q", resp.Header.Get("Content-Type"), text[len(text)-20:])
	}
	o.Config.Metrics.Listen = "0.0.0.0:0"
	if _, err := listenMetrics(o.Config.Metrics.Listen, nil, nil); err == nil {
		t.Error("metrics would be served to the network")
	}
}

// Each line of a request has its number, at debug level each request has a line, and the
// level follows the configuration. What a client sends is in none of them.
func TestTheLogNamesRequestsAndTellsNoSecrets(t *testing.T) {
	o := directoryOptions(t)
	file := filepath.Join(filepath.Dir(o.Paths.DataDir), "config.yaml")
	o.Paths.Config = file
	level := func(name string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("log: {level: "+name+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level("debug")
	d := start(t, o)
	p := d.dial()
	const secret = "sk-canary-0123456789"
	s := p.session(obj{"name": secret + " name"})
	p.call("checkpoint.create", obj{"session_id": s.ID, "message": secret, "state": obj{"key": secret}, "metadata": obj{"m": secret}, "tags": []string{secret}}, nil)
	for _, bad := range []struct {
		method string
		params obj
	}{
		{secret, obj{}}, {"checkpoint.create", obj{secret: 1}}, {"session.get", obj{"key": secret}},
		{"checkpoint.create", obj{"session_id": s.ID, "message": 7, "state": secret}},
	} {
		if err := p.try(bad.method, bad.params, nil); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	text := d.log.String()
	for _, want := range []string{"request=1-2 method=checkpoint.create", "method=unknown", "error=-32601", "took="} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the log:\n%s", want, text)
		}
	}
	if strings.Contains(text, secret) {
		t.Errorf("what a client sent is in the log:\n%s", text)
	}
	level("warn")
	p.call("daemon.reload", obj{}, nil)
	before := d.log.String()
	p.call("daemon.info", obj{}, nil)
	level("debug")
	p.call("daemon.reload", obj{}, nil)
	p.call("daemon.info", obj{}, nil)
	after := strings.TrimPrefix(d.log.String(), before)
	if n := strings.Count(after, "method=daemon.info"); n != 1 {
		t.Errorf("daemon.info is in the log %d times, want once, at debug level only:\n%s", n, after)
	}
}

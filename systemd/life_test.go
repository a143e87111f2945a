package systemd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "forge-cpd-bin")
	if err != nil {
		return "", err
	}
	binDir = dir
	path := filepath.Join(dir, "forge-cpd")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/forge-cpd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building: %w\n%s", err, out)
	}
	return path, nil
})

var binDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if binDir != "" {
		if err := os.RemoveAll(binDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// manager stands for systemd: it holds the listening socket over restarts, passes it to
// the daemon as descriptor 3, and reads what the daemon tells it.
type manager struct {
	t      *testing.T
	dir    string
	socket string
	listen *os.File
	notify *net.UnixConn
	cmd    *exec.Cmd
}

func newManager(t *testing.T) *manager {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it builds and starts the real daemon")
	}
	dir, err := os.MkdirTemp("/tmp", "fc") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, dir: dir, socket: filepath.Join(dir, "run", "s")}
	t.Cleanup(func() {
		m.end()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Dir(m.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.notify.Close() })
	return m
}

// hold makes the socket, as a socket unit does.
func (m *manager) hold() {
	m.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.socket, Net: "unix"})
	if err != nil {
		m.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if m.listen, err = l.File(); err != nil {
		m.t.Fatal(err)
	}
	l.Close() // the file is a copy
	m.t.Cleanup(func() { m.listen.Close() })
}

func (m *manager) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir, "FORGE_CPD_SOCKET=" + m.socket, "FORGE_CPD_DATA_DIR=" + filepath.Join(m.dir, "data"),
		"FORGE_CPD_CONFIG=" + filepath.Join(m.dir, "config.yaml"), "FORGE_CPD_NO_AUTOSTART=1"}
}

// run starts a command with the service's environment and waits until it has said READY.
func (m *manager) run(name string, args ...string) {
	m.t.Helper()
	m.start(name, args...)
	m.await("READY=1")
}

func (m *manager) start(name string, args ...string) {
	m.t.Helper()
	config := filepath.Join(m.dir, "config.yaml")
	if err := os.WriteFile(config, []byte("log: {level: info}\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.cmd = exec.Command(name, args...)
	m.cmd.Env = append(m.environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "WATCHDOG_USEC=400000")
	m.cmd.Stderr = &testLog{m.t}
	if m.listen != nil {
		m.cmd.ExtraFiles = []*os.File{m.listen}
	}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
}

// serve starts the daemon with the held socket, as systemd would.
func (m *manager) serve() {
	m.t.Helper()
	// LISTEN_PID is the daemon's own, which only the process itself knows before it runs.
	m.run("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" serve`, mustBinary(m.t))
}

func mustBinary(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// await reads datagrams until one holds what is wanted.
func (m *manager) await(want string) string {
	m.t.Helper()
	if err := m.notify.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	for {
		b := make([]byte, 4096)
		n, err := m.notify.Read(b)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", want, err)
		}
		if text := string(b[:n]); strings.Contains(text, want) {
			return text
		}
	}
}

// stop sends TERM and wants a clean end.
func (m *manager) stop() error {
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := m.cmd.Wait()
	m.cmd = nil
	return err
}

func (m *manager) end() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	}
}

type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func TestTheDaemonTellsSystemd(t *testing.T) {
	m := newManager(t)
	m.start(mustBinary(t), "serve")
	if text := m.await("READY=1"); !strings.Contains(text, "STATUS=") {
		t.Errorf("ready without a status: %q", text)
	}
	m.await("WATCHDOG=1")
	m.await("WATCHDOG=1")
	for _, level := range []string{"debug", "lout"} { // the second is refused; the daemon goes on
		if err := os.WriteFile(filepath.Join(m.dir, "config.yaml"), []byte("log: {level: "+level+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		// In one datagram, or systemd waits for the other half.
		if text := m.await("RELOADING=1"); !regexp.MustCompile(`(?m)^MONOTONIC_USEC=\d+$`).MatchString(text) {
			t.Errorf("level %s: the time is not in the same datagram: %q", level, text)
		}
		m.await("READY=1")
	}
	c := &client.Client{Socket: m.socket}
	defer c.Close()
	if _, err := c.Info(context.Background()); err != nil {
		t.Errorf("after a refused reload: %v", err)
	}
	if err := m.stop(); err != nil {
		t.Errorf("TERM: %v", err)
	}
	m.await("STOPPING=1")
}

func TestSocketActivation(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is missing: install the package systemd")
	}
	m := newManager(t)
	args := []string{"-l", m.socket}
	for _, kv := range append(m.environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify")) {
		args = append(args, "-E", kv)
	}
	m.start(tool, append(args, mustBinary(t), "serve")...)
	c := &client.Client{Socket: m.socket}
	defer c.Close()
	var info *rpc.Info
	for deadline := time.Now().Add(20 * time.Second); ; { // it listens a moment after it was started
		if info, err = c.Info(t.Context()); err == nil || time.Now().After(deadline) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.await("READY=1")
	if info.PID != m.cmd.Process.Pid {
		t.Errorf("pid %d answers, and %d was activated", info.PID, m.cmd.Process.Pid)
	}
	if err := m.stop(); err != nil {
		t.Errorf("TERM: %v", err)
	}
	if _, err := os.Lstat(m.socket); err != nil {
		t.Errorf("the socket is not the daemon's to remove: %v", err)
	}
}

// Clients write while the service is stopped, killed and started again on the socket
// that stays: none of them sees more than a delay, and nothing acknowledged is lost.
func TestRestartsUnderWriters(t *testing.T) {
	m := newManager(t)
	m.hold()
	m.serve()
	const writers = 8
	type writer struct {
		acked   []checkpoint.ID
		longest time.Duration
		err     error
	}
	all := make([]writer, writers)
	var wg sync.WaitGroup
	var done atomic.Bool
	var acks [writers]atomic.Int64
	for i := range all {
		wg.Go(func() {
			w := &all[i]
			c := &client.Client{Socket: m.socket}
			defer c.Close()
			key := fmt.Sprintf("writer-%d", i)
			_, w.err = c.CreateSession(t.Context(), &rpc.SessionCreateParams{Name: key, Key: key})
			for n := 0; w.err == nil && !done.Load(); n++ {
				begin := time.Now()
				var r *checkpoint.Receipt
				r, w.err = c.CreateCheckpoint(t.Context(), &rpc.CheckpointCreateParams{
					SessionRef: client.ByKey(key), Message: "m", State: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)),
				})
				if w.err == nil {
					w.acked = append(w.acked, r.CheckpointID)
					w.longest = max(w.longest, time.Since(begin))
					acks[i].Add(1)
				}
			}
		})
	}
	// everyone waits until each writer has had some more acknowledged.
	everyone := func(more int64) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for i := range acks {
			for goal := acks[i].Load() + more; acks[i].Load() < goal; <-time.After(time.Millisecond) {
				if time.Now().After(deadline) {
					done.Store(true)
					m.end()
					t.Fatalf("writer %d gets nothing acknowledged any more: %v", i, all[i].err)
				}
			}
		}
	}
	for n := range 6 {
		everyone(5)
		if n%3 == 2 { // a crash
			if err := m.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := m.cmd.Wait(); !errors.As(err, &exit) {
				t.Fatal(err)
			}
		} else if err := m.stop(); err != nil {
			t.Errorf("TERM: %v", err)
		}
		m.serve()
	}
	everyone(5)
	done.Store(true)
	wg.Wait()
	total, longest := 0, time.Duration(0)
	c := &client.Client{Socket: m.socket}
	defer c.Close()
	for i, w := range all {
		if w.err != nil {
			t.Errorf("writer %d: %v", i, w.err)
		}
		there := map[checkpoint.ID]bool{}
		for sum, err := range c.AllCheckpoints(t.Context(), rpc.CheckpointListParams{SessionRef: client.ByKey(fmt.Sprintf("writer-%d", i))}) {
			if err != nil {
				t.Fatal(err)
			}
			if there[sum.ID] {
				t.Errorf("writer %d: %s is listed twice", i, sum.ID)
			}
			there[sum.ID] = true
		}
		for _, id := range w.acked {
			if !there[id] {
				t.Errorf("writer %d: %s was acknowledged and is gone", i, id)
			}
		}
		if len(there) != len(w.acked) {
			t.Errorf("writer %d: %d acknowledged, %d there: a repetition was made twice", i, len(w.acked), len(there))
		}
		total += len(w.acked)
		longest = max(longest, w.longest)
	}
	t.Logf("%d checkpoints acknowledged to %d writers over 4 restarts and 2 kills; the longest wait was %v", total, writers, longest.Round(time.Millisecond))
}

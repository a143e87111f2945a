package rpc

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const otherUID = 54321

// TestMainAsAnotherUser is the other user's client, when the test below runs this binary.
func TestMainAsAnotherUser(t *testing.T) {
	path := os.Getenv("FORGE_CPD_TEST_SOCKET")
	if path == "" {
		t.Skip("FORGE_CPD_TEST_SOCKET is not set: the test below runs this as another user")
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, call(1, "daemon.info", "{}")); err != nil {
		t.Logf("writing: %v", err) // it may be closed already
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Logf("closing: %v", err)
	}
	b, _ := io.ReadAll(c) // a reset is as good as an end
	os.Stdout.WriteString("got<" + string(b) + ">\n")
}

// TestAnotherUID connects as a uid that is not let in, then as one that is.
func TestAnotherUID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "client") // where the other user can run it
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(self, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		access  Access
		uid     uint32
		groups  []uint32
		letsIn  bool
		refused uint64
	}{
		"not named":    {Access{}, otherUID, nil, false, 1},
		"by uid":       {Access{UIDs: []uint32{otherUID}}, otherUID, nil, true, 0},
		"by group":     {Access{GIDs: []uint32{777}}, otherUID, []uint32{776, 777}, true, 0},
		"other group":  {Access{GIDs: []uint32{778}}, otherUID, []uint32{776, 777}, false, 1},
		"overflow uid": {Access{UIDs: []uint32{overflowUID}}, overflowUID, nil, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, path := serve(t, newFake(), func(o *Options) { o.Access = func() Access { return c.access } })
			if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self, "-test.run", "^TestMainAsAnotherUser$")
			cmd.Dir = "/"
			cmd.Env = []string{"FORGE_CPD_TEST_SOCKET=" + path, "TMPDIR=/tmp"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: otherUID, Groups: c.groups}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if in := strings.Contains(string(out), `got<{"jsonrpc"`); in != c.letsIn || !in && !strings.Contains(string(out), "got<>") {
				t.Errorf("got %s", out)
			}
			if got := s.Stats().Refused; got != c.refused {
				t.Errorf("%d connections were refused", got)
			}
		})
	}
}

// starved is a listener of a process without descriptors left, for a while.
type starved struct {
	*net.UnixListener
	left int
}

func (l *starved) Accept() (net.Conn, error) {
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.UnixListener.Accept()
}

func TestServeOutlastsMissingDescriptors(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := NewServer(newFake(), Options{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), &starved{l.(*net.UnixListener), 4}) }()
	w := dial(t, filepath.Join(dir, "s"))
	if got := brief(t, w.ask(call(1, "daemon.info", "{}"))); got != "1 ok" {
		t.Errorf("got %s", got)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestFewDescriptors has more clients than a daemon with 64 open files can serve: those it
// cannot are told, and those it serves go on.
func TestFewDescriptors(t *testing.T) {
	path := daemon(t, "sh", "-c", `ulimit -n 64 && exec "$@"`, "sh")
	first := dial(t, path)
	first.ask(call(1, "session.create", example(`{"name":"n","session_id":"$"}`)))
	answers := map[string]int{}
	for range 200 {
		w := dial(t, path)
		w.Write([]byte(call(1, "daemon.info", "{}") + "\n")) // it may be refused already
		answers[brief(t, w.line())]++
	}
	if told := answers["null -32008"]; told < 150 || answers["1 ok"] < 10 || told+answers["1 ok"] != 200 {
		t.Errorf("got %v", answers)
	}
	if got := brief(t, first.ask(create(2, aSession, "m", ""))); got != "2 ok" {
		t.Errorf("a client that was served before got %s", got)
	}
}

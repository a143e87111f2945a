package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// served is `forge-cpd serve` in the foreground, with a client that reads no reply.
type served struct {
	*exec.Cmd
	socket string
	log    *bufio.Scanner
	seen   strings.Builder
}

func serveForReal(t *testing.T, config string) *served {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it builds and starts a real daemon")
	}
	bin, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "fc") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &served{socket: filepath.Join(dir, "run", "s")}
	s.Cmd = exec.Command(filepath.Join(bin, "forge-cpd"), "serve", "--config", file, "--socket", s.socket, "--data-dir", filepath.Join(dir, "data"))
	out, err := s.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Process.Kill() // it has ended, or the test has failed
		_ = s.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.log = bufio.NewScanner(out)
	s.await(t, "ready")
	return s
}

// await reads the log until a line holds what is wanted.
func (s *served) await(t *testing.T, want string) {
	t.Helper()
	for s.log.Scan() {
		fmt.Fprintln(&s.seen, s.log.Text())
		if strings.Contains(s.log.Text(), want) {
			return
		}
	}
	t.Fatalf("the log ended without %q:\n%s", want, &s.seen)
}

// neverReads asks for more than a socket holds, and leaves the replies where they are.
func (s *served) neverReads(t *testing.T) {
	t.Helper()
	c := &client.Client{Socket: s.socket}
	defer c.Close()
	if _, err := c.CreateSession(t.Context(), &rpc.SessionCreateParams{Name: "n", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	state := json.RawMessage(`"` + strings.Repeat("x", 4<<20) + `"`)
	if _, err := c.CreateCheckpoint(t.Context(), &rpc.CheckpointCreateParams{SessionRef: client.ByKey("k"), Message: "m", State: state}); err != nil {
		t.Fatal(err)
	}
	deaf, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deaf.Close() })
	if _, err := fmt.Fprintln(deaf, `{"jsonrpc":"2.0","id":1,"method":"checkpoint.latest","params":{"key":"k"}}`); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := deaf.Read(one); err != nil { // the reply is on its way
		t.Fatal(err)
	}
}

func (s *served) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func TestATermEndsWithinItsBound(t *testing.T) {
	s := serveForReal(t, "limits: {drain_timeout: 1s, write_timeout: 1h}\n")
	s.neverReads(t)
	s.signal(t, syscall.SIGTERM)
	begin := time.Now()
	s.await(t, "some requests were not answered before limits.drain_timeout")
	s.await(t, "the store is closed")
	if err := s.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &s.seen)
	}
	if took := time.Since(begin); took > 20*time.Second { // 1 s for the replies, 1 s for the journal; the rest is a busy machine's
		t.Errorf("it took %v", took)
	}
}

func TestASecondTermQuitsAtOnce(t *testing.T) {
	s := serveForReal(t, "limits: {drain_timeout: 1h, write_timeout: 1h}\n")
	s.neverReads(t)
	s.signal(t, syscall.SIGTERM)
	s.await(t, "msg=stopping")
	s.signal(t, syscall.SIGTERM)
	err := s.Wait() // without the second one it would be an hour
	if status, ok := s.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("%v\n%s", err, &s.seen)
	}
}

func TestAHangupReloadsWholeOrNot(t *testing.T) {
	s := serveForReal(t, "log: {level: info}\n")
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	replies := bufio.NewReader(c)
	ask := func() {
		t.Helper()
		if _, err := fmt.Fprintln(c, `{"jsonrpc":"2.0","id":1,"method":"daemon.health"}`); err != nil {
			t.Fatal(err)
		}
		if line, err := replies.ReadString('\n'); err != nil || !strings.Contains(line, `"healthy":true`) {
			t.Fatalf("%s %v", line, err)
		}
	}
	ask()
	config := s.Args[3]
	if err := os.WriteFile(config, []byte("log: {level: debug}\nlimits: {connections: -1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(t, syscall.SIGHUP)
	s.await(t, config+":2: limits.connections")
	ask() // nothing of it was taken: a line of each request would come before the next reload's
	if err := os.WriteFile(config, []byte("log: {level: debug}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(t, syscall.SIGHUP)
	s.await(t, "the configuration was reloaded")
	if strings.Contains(s.seen.String(), "level=DEBUG") {
		t.Errorf("a part of a bad configuration was taken:\n%s", &s.seen)
	}
	ask()
	s.await(t, "level=DEBUG")
}

func TestTheLogAsJSONSaysTheSame(t *testing.T) {
	s := serveForReal(t, "log: {level: debug, format: json}\n")
	c := &client.Client{Socket: s.socket}
	defer c.Close()
	if _, err := c.Health(t.Context(), &rpc.HealthParams{}); err != nil {
		t.Fatal(err)
	}
	s.await(t, `"method":"daemon.health"`)
	var line struct{ Request, Took string }
	if err := json.Unmarshal(s.log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if _, err := time.ParseDuration(line.Took); err != nil || !regexp.MustCompile(`^\d+-\d+$`).MatchString(line.Request) {
		t.Errorf("%s: %v", s.log.Bytes(), err)
	}
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// The tests named TestFault… run by make test-fault: FORGE_CPD_FAULT=full, or short.

// faultRounds is how often a test kills or cuts: n in the long form, short in the short one.
func faultRounds(t *testing.T, n, short int) int {
	t.Helper()
	switch form := os.Getenv("FORGE_CPD_FAULT"); form {
	case "":
		t.Skip("FORGE_CPD_FAULT is not set: make test-fault sets it")
	case "short":
		return short
	case "full":
	default:
		t.Fatalf("FORGE_CPD_FAULT=%s: it is full or short", form)
	}
	return n
}

// hangs is when a daemon is given up: machines have stood still for ten seconds.
const hangs = time.Minute

// buildDaemon builds the daemon as it is shipped, or with edits to the one file through
// which it reaches the kernel: a daemon that cheats, which a fault test must notice.
func buildDaemon(t *testing.T, edits ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", filepath.Join(dir, "forge-cpd")}
	if len(edits) > 0 {
		path, err := filepath.Abs("../../storage/internal/vfs/os.go")
		if err != nil {
			t.Fatal(err)
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(edits); i += 2 {
			if !bytes.Contains(source, []byte(edits[i])) {
				t.Fatalf("%s has no %q to edit", path, edits[i])
			}
			source = bytes.ReplaceAll(source, []byte(edits[i]), []byte(edits[i+1]))
		}
		edited := filepath.Join(dir, "os.go")
		overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: edited}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(edited, source, 0o600), os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", filepath.Join(dir, "overlay.json"))
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("building the daemon: %v\n%s", err, out)
	}
	return filepath.Join(dir, "forge-cpd")
}

// rig is a daemon that is killed again and again, and what its clients were told.
type rig struct {
	t      *testing.T
	bin    string
	data   string
	home   string
	socket string
	cmd    *exec.Cmd
	log    bytes.Buffer
	exited chan struct{}

	mu      sync.Mutex
	acks    []ack
	highest uint64
}

type ack struct {
	id       checkpoint.ID
	sequence uint64
	state    string
}

func newRig(t *testing.T, bin, data string) *rig {
	t.Helper()
	home, err := os.MkdirTemp("/tmp", "fc") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, bin: bin, data: data, home: home, socket: filepath.Join(home, "s")}
	t.Cleanup(func() {
		r.kill()
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) start() {
	r.t.Helper()
	r.log.Reset()
	r.cmd = exec.Command(r.bin, "serve", "--data-dir", r.data, "--socket", r.socket)
	r.cmd.Env = []string{"HOME=" + r.home, "PATH=" + os.Getenv("PATH")}
	r.cmd.Stderr = &r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // it is killed: how it ended is known
		close(exited)
	}(r.cmd, r.exited)
	for deadline := time.Now().Add(hangs); ; {
		c, err := dial(r.socket)
		if err == nil {
			_, err = c.call("daemon.info", nil)
			c.close()
		}
		if err == nil {
			return
		}
		select {
		case <-r.exited:
			r.t.Fatalf("the daemon does not start:\n%s", &r.log)
		default:
		}
		if time.Now().After(deadline) {
			r.kill()
			r.t.Fatalf("the daemon does not answer: %v\n%s", err, &r.log)
		}
		time.Sleep(2 * time.Millisecond) // a process has no other way to say that it is there
	}
}

// kill ends the daemon with SIGKILL and waits for its end.
func (r *rig) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.exited
	r.cmd = nil
}

// wire is one connection, one request at a time.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(socket string) (*wire, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &wire{conn, bufio.NewReader(conn)}, nil
}

func (w *wire) close() { _ = w.conn.Close() } // the other end may be dead

// wireError is an error that the daemon answered.
type wireError struct {
	Code    int
	Message string
}

func (r *wireError) Error() string { return fmt.Sprintf("%d: %s", r.Code, r.Message) }

func (w *wire) call(method string, params any) (json.RawMessage, error) {
	if params == nil {
		params = struct{}{}
	}
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	if _, err := w.conn.Write(append(b, '\n')); err != nil {
		return nil, err
	}
	line, err := w.in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var reply struct {
		Result json.RawMessage
		Error  *wireError
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, err
	}
	if reply.Error != nil {
		return nil, reply.Error
	}
	return reply.Result, nil
}

// write makes checkpoints until the daemon is gone, and notes each that is acknowledged.
// told, if not nil, gets a value after each.
func (r *rig) write(key string, told chan<- struct{}) error {
	c, err := dial(r.socket)
	if err != nil {
		return nil // killed before it could answer
	}
	defer c.close()
	if _, err := c.call("session.create", map[string]any{"name": key, "key": key}); err != nil {
		return answered(err)
	}
	for {
		id := checkpoint.NewID()
		state := fmt.Sprintf(`{"id":"%s","pad":"%s"}`, id, strings.Repeat("x", rand.IntN(3000)))
		if rand.IntN(40) == 0 {
			state = fmt.Sprintf(`{"id":"%s","pad":"%s"}`, id, strings.Repeat("large", 60_000))
		}
		raw, err := c.call("checkpoint.create", map[string]any{
			"key": key, "message": "m", "checkpoint_id": id, "state": json.RawMessage(state),
		})
		if err != nil {
			return answered(err)
		}
		var receipt checkpoint.Receipt
		if err := json.Unmarshal(raw, &receipt); err != nil {
			return err
		}
		r.mu.Lock()
		r.acks = append(r.acks, ack{id, receipt.Sequence, state})
		r.mu.Unlock()
		if told != nil {
			select {
			case told <- struct{}{}:
			default:
			}
		}
	}
}

// answered is nil for the end of a connection: that is what a kill looks like. After a
// power cut the daemon may also say that the disk failed.
func answered(err error) error {
	var e *wireError
	if errors.As(err, &e) && e.Code != -32007 && e.Code != -32003 {
		return err
	}
	return nil
}

// lost reads back what was acknowledged from the given place on, and returns what is not
// there as it was.
func (r *rig) lost(from int) (missing []string) {
	r.t.Helper()
	c, err := dial(r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.close()
	seen := map[uint64]bool{}
	for _, a := range r.acks[from:] {
		if seen[a.sequence] {
			missing = append(missing, fmt.Sprintf("number %d was given twice", a.sequence))
		}
		seen[a.sequence] = true
		raw, err := c.call("checkpoint.get", map[string]any{"checkpoint_id": a.id})
		var got struct {
			Sequence uint64 `json:"sequence_number"`
			State    json.RawMessage
		}
		if err == nil {
			err = json.Unmarshal(raw, &got)
		}
		if errors.Is(err, io.EOF) {
			r.t.Fatalf("the daemon is gone:\n%s", &r.log)
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("number %d: %v", a.sequence, err))
		} else if got.Sequence != a.sequence || string(got.State) != a.state {
			missing = append(missing, fmt.Sprintf("number %d came back as %d with another state", a.sequence, got.Sequence))
		}
	}
	return missing
}

// sound asks the daemon to read everything again.
func (r *rig) sound() error {
	c, err := dial(r.socket)
	if err != nil {
		return err
	}
	defer c.close()
	raw, err := c.call("checkpoint.validate_all", nil)
	if err != nil {
		return err
	}
	var report struct {
		Invalid  int
		Problems []json.RawMessage
	}
	if err := json.Unmarshal(raw, &report); err != nil {
		return err
	}
	if report.Invalid > 0 || len(report.Problems) > 0 {
		return fmt.Errorf("%s", raw)
	}
	return nil
}

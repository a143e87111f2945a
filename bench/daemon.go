package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// daemon is the real forge-cpd behind its socket, or a server of the same wire with
// nothing behind it (started from this program). Each worker has a connection and a
// session of its own.
type daemon struct {
	cmd   *exec.Cmd
	dir   string
	sock  string
	mu    sync.Mutex
	conns map[int]*wire
}

// wire is one connection that speaks newline framing.
type wire struct {
	c       net.Conn
	r       *bufio.Reader
	id      int
	session string
	buf     []byte
}

func openDaemon(dir string) (putter, error) { return openConfigured(dir, "") }

func openConfigured(dir, configuration string) (putter, error) {
	sock, file := filepath.Join(dir, "run", "s"), filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(forgeBinary, "serve", "--config", file, "--socket", sock, "--data-dir", filepath.Join(dir, "data"))
	return start(cmd, dir, sock)
}

// openStubbed is a wire server of this program whose methods do nothing.
func openStubbed(mode string) func(string) (putter, error) {
	return func(dir string) (putter, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		sock := filepath.Join(dir, "s")
		return start(exec.Command(self, "-serve", mode, "-socket", sock), dir, sock)
	}
}

func start(cmd *exec.Cmd, dir, sock string) (putter, error) {
	if err := os.MkdirAll(filepath.Dir(sock), 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &daemon{cmd: cmd, dir: dir, sock: sock, conns: map[int]*wire{}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w, err := dial(sock)
		if err == nil {
			w.c.Close()
			return d, nil
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			said, _ := os.ReadFile(log.Name()) // what it says beside the error that is returned
			return nil, fmt.Errorf("%s does not answer on %s: %w\n%s", cmd.Path, sock, err, said)
		}
	}
}

func dial(sock string) (*wire, error) {
	c, err := net.Dial("unix", sock)
	if err != nil {
		return nil, err
	}
	return &wire{c: c, r: bufio.NewReaderSize(c, 64<<10)}, nil
}

// call sends one request and returns the line of its reply, valid until the next call.
func (w *wire) call(method string, params ...[]byte) ([]byte, error) {
	w.id++
	b := append(w.buf[:0], `{"jsonrpc":"2.0","id":`...)
	b = strconv.AppendInt(b, int64(w.id), 10)
	b = append(append(append(b, `,"method":"`...), method...), `","params":`...)
	for _, p := range params {
		b = append(b, p...)
	}
	w.buf = append(b, '}', '\n')
	if _, err := w.c.Write(w.buf); err != nil {
		return nil, err
	}
	return w.read()
}

func (w *wire) read() ([]byte, error) {
	line, err := w.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		long := bytes.Clone(line)
		line, err = w.r.ReadBytes('\n')
		line = append(long, line...)
	}
	if err != nil {
		return nil, err
	}
	if bytes.Contains(line[:min(len(line), 200)], []byte(`"error":`)) {
		return nil, fmt.Errorf("%.300s", line)
	}
	return line, nil
}

// open makes a session of this connection's own.
func (w *wire) open(name string) error {
	line, err := w.call("session.create", []byte(`{"name":"`+name+`"}`))
	if err != nil {
		return err
	}
	var reply struct{ Result struct{ ID string } }
	if err := json.Unmarshal(line, &reply); err != nil {
		return err
	}
	w.session = reply.Result.ID
	return nil
}

// conn returns a worker's connection, with its session.
func (d *daemon) conn(worker int) (*wire, error) {
	d.mu.Lock()
	w := d.conns[worker]
	d.mu.Unlock()
	if w != nil {
		return w, nil
	}
	w, err := dial(d.sock)
	if err != nil {
		return nil, err
	}
	if err := w.open("bench " + strconv.Itoa(worker)); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.conns[worker] = w
	d.mu.Unlock()
	return w, nil
}

func (w *wire) create(doc []byte) ([]byte, error) {
	return w.call("checkpoint.create", []byte(`{"session_id":"`+w.session+`","message":"m","state":`), doc, []byte("}"))
}

func (d *daemon) put(worker, _ int, doc []byte) error {
	w, err := d.conn(worker)
	if err != nil {
		return err
	}
	_, err = w.create(doc)
	return err
}

func (d *daemon) settle() error {
	w, err := dial(d.sock)
	if err != nil {
		return err
	}
	defer w.c.Close()
	_, err = w.call("daemon.sync", []byte("{}"))
	return err
}

// cpu is the processor time that the server has used, in seconds.
func (d *daemon) cpu() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	user, err := strconv.Atoi(string(f[11]))
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(string(f[12]))
	return float64(user+system) / 100, err // USER_HZ is 100 on Linux
}

func (d *daemon) close() error {
	for _, w := range d.conns {
		w.c.Close()
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- d.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		d.cmd.Process.Kill()
		return fmt.Errorf("%s did not stop in a minute", d.cmd.Path)
	}
}

package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// TestMain lets a test start this binary as an agent: a process that sends its standard
// input to a socket and prints what comes back.
func TestMain(m *testing.M) {
	if socket := os.Getenv("FC_AGENT"); socket != "" {
		if err := relay(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func relay(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.Copy(c, os.Stdin); err != nil {
		return err
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, c)
	return err
}

// testDaemon is one that runs in this process.
type testDaemon struct {
	t    *testing.T
	o    Options
	log  *safeBuffer
	stop context.CancelFunc
	done chan error
	once sync.Once

	service *service
}

// svc reaches behind the socket, for what only time would start.
func (d *testDaemon) svc(*testing.T) *service { return d.service }

func sessionOf(key string, auto checkpoint.AutoConfig) config.Session {
	return config.Session{Key: key, Auto: &auto}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func memoryOptions(t *testing.T) Options {
	cfg := config.Default()
	cfg.Storage.Driver = config.DriverMemory
	return Options{Config: cfg, Paths: config.Paths{Socket: filepath.Join(shortDir(t), "run", "d.sock")}, Version: "test"}
}

func directoryOptions(t *testing.T) Options {
	dir := shortDir(t)
	return Options{
		Config: config.Default(), Version: "test",
		Paths: config.Paths{Socket: filepath.Join(dir, "run", "d.sock"), DataDir: filepath.Join(dir, "data")},
	}
}

// start runs a daemon and waits until it answers. It is stopped with the test at the latest.
func start(t *testing.T, o Options) *testDaemon {
	t.Helper()
	d := &testDaemon{t: t, o: o, log: &safeBuffer{}, done: make(chan error, 1)}
	d.o.Level = new(slog.LevelVar)
	d.o.Level.Set(slog.LevelDebug)
	d.o.Logger = slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: d.o.Level}))
	ready := make(chan struct{})
	d.o.Ready = func(rpc.Info) { close(ready) }
	d.o.started = func(s *service) { d.service = s }
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	go func() { d.done <- Run(ctx, d.o) }()
	select {
	case <-ready:
	case err := <-d.done:
		t.Fatalf("the daemon did not start: %v\n%s", err, d.log)
	}
	t.Cleanup(d.end)
	return d
}

// end stops the daemon and expects a clean end.
func (d *testDaemon) end() {
	d.t.Helper()
	d.once.Do(func() {
		d.stop()
		if err := <-d.done; err != nil {
			d.t.Errorf("the daemon ended with: %v", err)
		}
		if d.t.Failed() {
			d.t.Logf("log:\n%.8000s", d.log)
		}
	})
}

// peer is a client of one connection.
type peer struct {
	t      *testing.T
	c      *net.UnixConn
	r      *bufio.Reader
	nextID int
	notes  []message // notifications and requests that came while waiting for a reply
}

type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *wireError      `json:"error"`
}

type wireError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    struct {
		Kind  string `json:"kind"`
		Field string `json:"field"`
	} `json:"data"`
}

func (e *wireError) Error() string { return e.Data.Kind + ": " + e.Message }

func (d *testDaemon) dial() *peer {
	d.t.Helper()
	c, err := net.Dial("unix", d.o.Paths.Socket)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.peerOn(c)
}

func (d *testDaemon) peerOn(c net.Conn) *peer {
	p := &peer{t: d.t, c: c.(*net.UnixConn), r: bufio.NewReader(c)}
	d.t.Cleanup(func() { p.c.Close() })
	p.hangs()
	return p
}

// hangs lets what follows take its time, but not for ever.
func (p *peer) hangs() {
	if err := p.c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) send(method string, params any) string {
	p.t.Helper()
	p.nextID++
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": p.nextID, "method": method, "params": params})
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(b)
	return fmt.Sprint(p.nextID)
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	p.hangs()
	if _, err := p.c.Write(append(b, '\n')); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) read() message {
	p.t.Helper()
	p.hangs()
	line, err := p.r.ReadBytes('\n')
	if err != nil {
		p.t.Fatalf("reading: %v", err)
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	return m
}

// try calls and returns the error.
func (p *peer) try(method string, params, result any) error {
	p.t.Helper()
	id := p.send(method, params)
	for {
		m := p.read()
		if m.Method != "" {
			p.notes = append(p.notes, m)
			continue
		}
		if string(m.ID) != id {
			p.t.Fatalf("reply to %s, want %s", m.ID, id)
		}
		if m.Error != nil {
			return m.Error
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				p.t.Fatalf("%s answered %s: %v", method, m.Result, err)
			}
		}
		return nil
	}
}

func (p *peer) call(method string, params, result any) {
	p.t.Helper()
	if err := p.try(method, params, result); err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
}

// pipelined sends requests without waiting and returns their results in that order.
func (p *peer) pipelined(method string, params []obj) []json.RawMessage {
	p.t.Helper()
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriter(p.c)
		enc := json.NewEncoder(w)
		var err error
		for i := 0; i < len(params) && err == nil; i++ {
			err = enc.Encode(obj{"jsonrpc": "2.0", "id": i, "method": method, "params": params[i]})
		}
		sent <- errors.Join(err, w.Flush())
	}()
	results := make([]json.RawMessage, len(params))
	for range params {
		m := p.read()
		var i int
		if err := json.Unmarshal(m.ID, &i); err != nil || m.Error != nil {
			p.t.Fatalf("%s: id %s, %v", method, m.ID, m.Error)
		}
		results[i] = m.Result
	}
	if err := <-sent; err != nil {
		p.t.Fatal(err)
	}
	return results
}

// refused expects an error of a kind.
func (p *peer) refused(kind checkpoint.Kind, method string, params any) {
	p.t.Helper()
	err := p.try(method, params, nil)
	var e *wireError
	if !errors.As(err, &e) || e.Data.Kind != string(kind) {
		p.t.Errorf("%s %v: got %v, want %s", method, params, err, kind)
	}
}

// note waits for the next notification or request of the daemon.
func (p *peer) note() message {
	p.t.Helper()
	if len(p.notes) > 0 {
		m := p.notes[0]
		p.notes = p.notes[1:]
		return m
	}
	return p.read()
}

type obj = map[string]any

func (p *peer) session(params obj) checkpoint.Session {
	p.t.Helper()
	var s checkpoint.Session
	if params["name"] == nil {
		params["name"] = "test"
	}
	p.call("session.create", params, &s)
	return s
}

func (p *peer) latest(id checkpoint.ID) *checkpoint.Checkpoint {
	p.t.Helper()
	var c *checkpoint.Checkpoint
	p.call("checkpoint.latest", obj{"session_id": id}, &c)
	return c
}

func sessionRef(id checkpoint.ID) storage.Ref { return storage.Ref{ID: id} }

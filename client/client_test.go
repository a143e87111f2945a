package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// fake is a daemon of the test's own: it answers daemon.info and hands the rest to handle.
type fake struct {
	t      *testing.T
	socket string
	major  int
	ln     net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn
	handle func(c net.Conn, id, method string, params json.RawMessage)
}

func newFake(t *testing.T, handle func(c net.Conn, id, method string, params json.RawMessage)) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, socket: filepath.Join(dir, "s"), major: 1, handle: handle}
	f.listen()
	t.Cleanup(func() { f.stop(); os.RemoveAll(dir) })
	return f
}

func (f *fake) listen() {
	f.t.Helper()
	ln, err := net.Listen("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.ln = ln
	f.mu.Unlock()
	f.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(c) })
		}
	})
}

func (f *fake) stop() {
	f.mu.Lock()
	f.ln.Close()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			f.t.Errorf("the client sent %q: %v", line, err)
			return
		}
		if m.Method == "" { // the answer to a request of the daemon's
			f.handle(c, string(m.ID), "reply", m.Result)
			continue
		}
		if m.Method == "daemon.info" {
			fmt.Fprintf(c, `{"jsonrpc":"2.0","id":%s,"result":{"name":"forge-cpd","version":"v9","api":{"major":%d,"minor":0}}}`+"\n", m.ID, f.major)
			continue
		}
		f.handle(c, string(m.ID), m.Method, m.Params)
	}
}

func answer(c net.Conn, id, result string) {
	fmt.Fprintf(c, `{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", id, result)
}

func newClient(t *testing.T, f *fake) *Client {
	c := &Client{Socket: f.socket}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStateKeepsItsBytes(t *testing.T) {
	const state = `{"b":1.0,"a":1e400,"a":"<&>\u003c\/` + "\u2028" + `","n":123456789012345678901234567890,"s":"\ud800"}`
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		if !strings.Contains(string(params), `"state":`+state) {
			t.Errorf("sent %s", params)
		}
		answer(c, id, `{"checkpoint":{"id":"018f0000-0000-7000-8000-000000000001"},"state":`+state+`}`)
	})
	c := newClient(t, f)
	if _, err := c.PutState(t.Context(), ByKey("k"), json.RawMessage(state)); err != nil {
		t.Fatal(err)
	}
	f.handle = func(c net.Conn, id, method string, params json.RawMessage) {
		answer(c, id, `{"checkpoint":{"id":"018f0000-0000-7000-8000-000000000001"},"state":`+state+`}`)
	}
	r, err := c.Restore(t.Context(), &rpc.RestoreParams{SessionRef: ByKey("k"), CheckpointID: checkpoint.NewID()})
	if err != nil || string(r.State) != state {
		t.Fatalf("got %s, %v", r.State, err)
	}
}

func TestErrorsOfTheWire(t *testing.T) {
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		fmt.Fprintf(c, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32002,"message":"taken","data":{"kind":"conflict","field":"expected_head_id","head_id":"x"}}}`+"\n", id)
	})
	c := newClient(t, f)
	_, err := c.CreateCheckpoint(t.Context(), &rpc.CheckpointCreateParams{})
	var e *checkpoint.Error
	if !errors.Is(err, checkpoint.ErrConflict) || errors.Is(err, checkpoint.ErrNotFound) || !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	if e.Field != "expected_head_id" || e.Data["head_id"] != "x" {
		t.Fatalf("data was lost: %+v", e)
	}
}

func TestVersionNamesTheOlder(t *testing.T) {
	f := newFake(t, nil)
	for major, want := range map[int]string{0: "restart its service, or end it with", 2: "upgrade this program"} {
		f.major = major
		c := &Client{Socket: f.socket}
		_, err := c.Info(t.Context())
		var v *VersionError
		if !errors.As(err, &v) || !strings.Contains(err.Error(), want) {
			t.Errorf("API %d: got %v", major, err)
		}
		c.Close()
	}
}

func TestNobodyListens(t *testing.T) {
	c := &Client{Socket: filepath.Join(t.TempDir(), "none")}
	_, err := c.Info(t.Context())
	if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), c.Socket) {
		t.Fatalf("got %v", err)
	}
}

func TestADaemonThatDoesNotAnswer(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := &Client{Socket: ln.Addr().String(), Handshake: 20 * time.Millisecond}
	defer c.Close()
	if _, err := c.Info(t.Context()); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("got %v", err)
	}
}

func TestPipelined(t *testing.T) {
	order := make(chan string, 1000)
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		order <- string(params)
		answer(c, id, string(params))
	})
	c := newClient(t, f)
	var sent []*Pending
	for i := range 1000 {
		sent = append(sent, c.Send(t.Context(), "session.put_state", map[string]int{"n": i}))
	}
	for i, p := range sent {
		want := fmt.Sprintf(`{"n":%d}`, i)
		if got, err := p.Wait(t.Context()); err != nil || string(got) != want {
			t.Fatalf("answer %d: %s, %v", i, got, err)
		}
		if got := <-order; got != want {
			t.Fatalf("arrived as %d: %s", i, got)
		}
	}
}

func TestManyCallers(t *testing.T) {
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) { answer(c, id, string(params)) })
	c := newClient(t, f)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			want := fmt.Sprintf(`{"n":%d}`, i)
			for range 20 {
				if got, err := c.Call(t.Context(), "x", map[string]int{"n": i}); err != nil || string(got) != want {
					t.Errorf("%s, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCancelledCallLeavesTheConnection(t *testing.T) {
	var hold atomic.Bool
	hold.Store(true)
	arrived := make(chan struct{}, 1)
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		if hold.Load() {
			arrived <- struct{}{}
			return
		}
		answer(c, id, "{}")
	})
	c := newClient(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := c.Call(ctx, "slow", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	before := c.cur
	hold.Store(false)
	if _, err := c.Call(t.Context(), "fast", nil); err != nil || c.cur != before {
		t.Fatalf("%v; same connection: %v", err, c.cur == before)
	}
}

func TestRestartIsADelay(t *testing.T) {
	var calls atomic.Int32
	var ids sync.Map
	f := newFake(t, nil)
	f.handle = func(c net.Conn, id, method string, params json.RawMessage) {
		var p rpc.CheckpointCreateParams
		if err := json.Unmarshal(params, &p); err != nil || p.CheckpointID.IsZero() {
			t.Errorf("%s: %v", params, err)
		}
		ids.Store(p.CheckpointID, true)
		if calls.Add(1) == 1 { // dies with the request carried out and not answered
			c.Close()
			return
		}
		answer(c, id, `{"existing":true}`)
	}
	c := newClient(t, f)
	r, err := c.CreateCheckpoint(t.Context(), &rpc.CheckpointCreateParams{Message: "m"})
	if err != nil || !r.Existing {
		t.Fatalf("%+v, %v", r, err)
	}
	n := 0
	ids.Range(func(any, any) bool { n++; return true })
	if n != 1 || calls.Load() != 2 {
		t.Fatalf("%d ids in %d calls, want one id twice", n, calls.Load())
	}
	f.stop()
	back := time.AfterFunc(50*time.Millisecond, f.listen)
	defer back.Stop()
	if _, err := c.CreateCheckpoint(t.Context(), &rpc.CheckpointCreateParams{Message: "m"}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatMayHaveHappenedIsNotRepeated(t *testing.T) {
	var calls atomic.Int32
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) { calls.Add(1); c.Close() })
	c := newClient(t, f)
	_, err := c.Annotate(t.Context(), &rpc.AnnotateParams{Note: "n"})
	if !errors.Is(err, ErrConnectionLost) || calls.Load() != 1 {
		t.Fatalf("%v after %d calls", err, calls.Load())
	}
}

func TestDrainingIsTriedAgain(t *testing.T) {
	var calls atomic.Int32
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		if calls.Add(1) < 3 {
			fmt.Fprintf(c, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32003,"message":"draining","data":{"kind":"invalid_state","retry":true}}}`+"\n", id)
			return
		}
		answer(c, id, "{}")
	})
	if _, err := newClient(t, f).Call(t.Context(), "checkpoint.annotate", nil); err != nil {
		t.Fatal(err)
	}
	c := &Client{Socket: f.socket, RetryFor: -1}
	defer c.Close()
	calls.Store(0)
	if _, err := c.Call(t.Context(), "checkpoint.annotate", nil); !errors.Is(err, checkpoint.ErrInvalidState) {
		t.Fatalf("with no retries: %v", err)
	}
}

func TestCaptureIsAskedAndAttachedAgain(t *testing.T) {
	id := checkpoint.NewID()
	attaches := make(chan net.Conn, 4)
	replies := make(chan string, 4)
	f := newFake(t, func(c net.Conn, rid, method string, params json.RawMessage) {
		if method == "reply" {
			replies <- rid + string(params)
			return
		}
		if method == "session.attach" {
			attaches <- c
		}
		answer(c, rid, `{"attached":true}`)
	})
	c := newClient(t, f)
	asked := make(chan rpc.CaptureRequest, 1)
	err := c.Attach(t.Context(), ByID(id), func(ctx context.Context, r rpc.CaptureRequest) (json.RawMessage, error) {
		asked <- r
		return json.RawMessage(`{"x":1.0}`), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	nc := <-attaches
	fmt.Fprintf(nc, `{"jsonrpc":"2.0","id":"d1","method":"state.capture","params":{"session_id":%q,"cause":"interval"}}`+"\n", id)
	if r := <-asked; r.SessionID != id || r.Cause != checkpoint.CauseInterval {
		t.Fatalf("asked %+v", r)
	}
	if r := <-replies; r != `"d1"{"state":{"x":1.0}}` {
		t.Fatalf("replied %s", r)
	}
	nc.Close()
	if _, err := c.Call(t.Context(), "session.get", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-attaches:
	default:
		t.Fatal("the new connection was not attached")
	}
}

// An event that comes before the subscription's own answer is given out after it.
func TestAnEventThatOutrunsTheAnswer(t *testing.T) {
	const early = 3
	f := newFake(t, func(c net.Conn, id, _ string, _ json.RawMessage) {
		for i := range early {
			fmt.Fprintf(c, `{"jsonrpc":"2.0","method":"event","params":{"subscription_id":"s","cursor":"c%d","event":{"type":"created"}}}`+"\n", i)
		}
		answer(c, id, `{"subscription_id":"s","cursor":"now","fresh":true}`)
		fmt.Fprintf(c, `{"jsonrpc":"2.0","method":"event","params":{"subscription_id":"s","cursor":"c%d","event":{"type":"created"}}}`+"\n", early)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := newClient(t, f).Subscribe(ctx, rpc.SubscribeParams{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range early + 1 {
		if ev, err := s.Next(ctx); err != nil || ev.Cursor != fmt.Sprint("c", i) {
			t.Fatalf("event %d: %+v, %v", i, ev, err)
		}
	}
}

// A daemon that is stopped after its first answer is met at the next request, not at the
// first question of who it is.
func TestInfoIsTheHandshake(t *testing.T) {
	f := newFake(t, nil)
	answers := 1
	c := &Client{Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		nc, err := d.DialContext(ctx, "unix", f.socket)
		return &mute{Conn: nc, requests: &answers}, err
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if info, err := c.Info(ctx); err != nil || info.Version != "v9" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// mute lets so many requests through and swallows the rest.
type mute struct {
	net.Conn
	requests *int
}

func (m *mute) Write(b []byte) (int, error) {
	if *m.requests--; *m.requests < 0 {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

func TestSubscriptionResumes(t *testing.T) {
	var subs []string
	var mu sync.Mutex
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		var p rpc.SubscribeParams
		if err := json.Unmarshal(params, &p); err != nil {
			t.Error(err)
		}
		since := "now"
		if p.SinceCursor != nil {
			since = *p.SinceCursor
		}
		mu.Lock()
		subs = append(subs, since)
		n := len(subs)
		mu.Unlock()
		answer(c, id, fmt.Sprintf(`{"subscription_id":"s","cursor":%q,"fresh":%v}`, since, n == 4))
		event := func(cursor string) {
			fmt.Fprintf(c, `{"jsonrpc":"2.0","method":"event","params":{"subscription_id":"s","cursor":%q,"event":{"type":"created"}}}`+"\n", cursor)
		}
		switch n {
		case 1:
			event("c1")
			c.Close()
		case 2:
			event("c2")
			io.WriteString(c, `{"jsonrpc":"2.0","method":"overflow","params":{"subscription_id":"s","cursor":"c2"}}`+"\n")
		case 3:
			event("c3")
			c.Close()
		case 4:
			event("c9")
		}
	})
	c := newClient(t, f)
	s, err := c.Subscribe(t.Context(), rpc.SubscribeParams{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []string
	for ev, err := range s.All(t.Context()) {
		switch {
		case errors.Is(err, ErrOverflow):
			got = append(got, "overflow")
		case errors.Is(err, ErrEventsLost):
			got = append(got, "lost")
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, ev.Cursor)
		}
		if len(got) == 6 {
			break
		}
	}
	if g := strings.Join(got, " "); g != "c1 c2 overflow c3 lost c9" {
		t.Fatalf("got %s", g)
	}
	if g := strings.Join(subs, " "); g != "now c1 c2 c3" {
		t.Fatalf("resumed from %s", g)
	}
}

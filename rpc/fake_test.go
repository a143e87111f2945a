package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// fake is a Service that keeps a little in memory. Methods that no test calls panic, which
// the server has to survive.
type fake struct {
	Service
	mu      sync.Mutex
	keys    map[string]checkpoint.ID
	made    map[checkpoint.ID]*StoredCheckpoint
	order   []string // messages in the order of admission
	latest  map[checkpoint.ID]checkpoint.ID
	gone    chan uint64 // ids of connections that ended
	hold    chan struct{}
	started chan string
}

func newFake() *fake {
	return &fake{
		keys: map[string]checkpoint.ID{}, made: map[checkpoint.ID]*StoredCheckpoint{}, latest: map[checkpoint.ID]checkpoint.ID{},
		gone: make(chan uint64, 10000),
	}
}

func (f *fake) Disconnected(p Peer) {
	select {
	case f.gone <- p.ConnID():
	default: // a test that does not look
	}
}

func (f *fake) Info(ctx context.Context, _ NoParams) (*Info, error) {
	return &Info{Name: "forge-cpd", API: APIVersion, PID: PeerFrom(ctx).PID(), Capabilities: []string{}}, nil
}

func (f *fake) SessionCreate(_ context.Context, p *SessionCreateParams) (*SessionCreateResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, known := f.keys[p.Key]
	if p.Key == "" || !known {
		if id = p.SessionID; id.IsZero() {
			id = checkpoint.NewID()
		}
		f.keys[p.Key] = id
	}
	return &SessionCreateResult{Session: checkpoint.Session{ID: id, Key: p.Key, Name: p.Name, Labels: map[string]string{}, Status: checkpoint.Active}, Existing: known}, nil
}

func (f *fake) SessionOfKey(key string) (checkpoint.ID, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.keys[key]
	return id, ok
}

func (f *fake) SessionOfCheckpoint(checkpoint.ID) (checkpoint.ID, bool) {
	return checkpoint.ID{}, false
}

func (f *fake) StateBytes(ref SessionRef, id checkpoint.ID) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id.IsZero() {
		id = f.latest[f.session(ref)]
	}
	if s := f.made[id]; s != nil {
		return int64(len(s.State)), true
	}
	return 0, false
}

func (f *fake) session(ref SessionRef) checkpoint.ID {
	if ref.Key != "" {
		return f.keys[ref.Key]
	}
	return ref.SessionID
}

func (f *fake) CheckpointCreate(ctx context.Context, p *CheckpointCreateParams) (*checkpoint.Receipt, error) {
	if p.Message == "panic" {
		panic("asked for")
	}
	if p.Message == "odd" {
		return nil, fmt.Errorf("a secret of the disk")
	}
	f.mu.Lock()
	id := p.CheckpointID
	if id.IsZero() {
		id = checkpoint.NewID()
	}
	session := f.session(p.SessionRef)
	f.order = append(f.order, p.Message)
	n := uint64(len(f.order))
	state := p.State
	if state == nil {
		state = json.RawMessage("{}")
	}
	raw := fmt.Appendf(nil, `{"id":%q,"session_id":%q,"sequence_number":%d,"timestamp":"2026-11-23T00:00:00Z","message":%s,"tags":[],"trigger":"manual","state":`,
		id, session, n, mustJSON(p.Message))
	at := len(raw)
	raw = append(raw, state...)
	raw = append(raw, `,"context":{"captured_at":"2026-11-23T00:00:00Z","started_at":"2026-11-23T00:00:00Z","env_vars":{},"hostname":"h","state_source":"given","metrics":{}}}`...)
	f.made[id] = &StoredCheckpoint{Raw: raw, State: raw[at : at+len(state)], Checksum: "sha256:" + strings.Repeat("0", 64)}
	f.latest[session] = id
	f.mu.Unlock()
	Admit(ctx)
	if p.Message == "slow" {
		f.started <- p.Message
		<-f.hold
	}
	return &checkpoint.Receipt{CheckpointID: id, SessionID: session, Sequence: n, Checksum: "sha256:" + strings.Repeat("0", 64)}, nil
}

func (f *fake) CheckpointGet(_ context.Context, p *CheckpointParams) (Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.made[p.CheckpointID]
	if s == nil {
		return nil, checkpoint.Errorf(checkpoint.KindNotFound, "no checkpoint %s", p.CheckpointID)
	}
	return s, nil
}

func (f *fake) CheckpointRestore(ctx context.Context, p *RestoreParams) (Stored, error) {
	return f.CheckpointGet(ctx, &CheckpointParams{CheckpointID: p.CheckpointID})
}

func (f *fake) CheckpointLatest(_ context.Context, p *SessionParams) (Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made[f.latest[f.session(p.SessionRef)]], nil
}

func (f *fake) CheckpointList(context.Context, *CheckpointListParams) (*CheckpointListResult, error) {
	return &CheckpointListResult{Checkpoints: []json.RawMessage{json.RawMessage(`{"a":"<&>"}`), json.RawMessage("{}")}, NextCursor: "n"}, nil
}

func (f *fake) SessionPutState(context.Context, *PutStateParams) (*PutStateResult, error) {
	return &PutStateResult{Revision: 1}, nil
}

func (f *fake) AutoTrigger(ctx context.Context, p *AutoTriggerParams) (*AutoTriggerResult, error) {
	var reply CaptureReply
	if err := PeerFrom(ctx).Call(ctx, "state.capture", CaptureRequest{Cause: p.Cause}, &reply); err != nil {
		return &AutoTriggerResult{Skipped: err.Error()}, nil
	}
	return &AutoTriggerResult{Skipped: string(reply.State)}, nil
}

func (f *fake) EventsSubscribe(ctx context.Context, _ *SubscribeParams) (*SubscribeResult, error) {
	p := PeerFrom(ctx)
	AfterReply(ctx, func() { p.Notify("event", EventNotification{SubscriptionID: "s1"}) })
	return &SubscribeResult{SubscriptionID: "s1", Fresh: true}, nil
}

// serve starts a server on a socket of its own.
func serve(t testing.TB, svc Service, change func(*Options)) (*Server, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Limits: DefaultLimits(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&o)
	}
	s := NewServer(svc, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		l.Close()
		os.RemoveAll(dir)
		if held := s.Stats().InFlightBytes; held != 0 {
			t.Errorf("%d bytes are still accounted for", held)
		}
	})
	return s, path
}

// wire is a client that knows nothing.
type wire struct {
	t testing.TB
	*net.UnixConn
	r *bufio.Reader
}

func dial(t testing.TB, path string) *wire {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wire{t, c.(*net.UnixConn), bufio.NewReaderSize(c, 1<<16)}
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := w.Write([]byte(s)); err != nil {
		w.t.Fatalf("sending %.80q: %v", s, err)
	}
}

func (w *wire) line() string {
	w.t.Helper()
	s, err := w.r.ReadString('\n')
	if err != nil {
		w.t.Fatalf("reading a line: %q, %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

func (w *wire) ask(s string) string {
	w.t.Helper()
	w.send(s + "\n")
	return w.line()
}

// lines reads to the end.
func (w *wire) lines() []string {
	w.t.Helper()
	b, err := io.ReadAll(w.r)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// reply is any reply, for looking into.
type reply struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Code    int
		Message string
		Data    struct {
			Kind, Field string
			Retry       *bool
		}
	} `json:"error"`
}

func parseReply(t testing.TB, s string) reply {
	t.Helper()
	var r reply
	if err := json.NewDecoder(bytes.NewReader([]byte(s))).Decode(&r); err != nil {
		t.Fatalf("%.200q is no reply: %v", s, err)
	}
	if r.JSONRPC != "2.0" || r.ID == nil || (r.Result == nil) == (r.Error == nil) {
		t.Fatalf("%.200q is no reply", s)
	}
	return r
}

// brief is a reply as `id result` or `id code field`.
func brief(t testing.TB, s string) string {
	r := parseReply(t, s)
	if r.Error != nil {
		return strings.TrimSpace(fmt.Sprintf("%s %d %s", r.ID, r.Error.Code, r.Error.Data.Field))
	}
	return fmt.Sprintf("%s ok", r.ID)
}

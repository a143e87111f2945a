package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestBatches(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	got := briefs(t, w.ask(`[`+fmt.Sprintf(info, "1")+`, 7 ,`+note("daemon.info")+`,{"jsonrpc":"2.0"},`+fmt.Sprintf(info, `"x"`)+`, [], `+call(2, "no.such", "{}")+`]`))
	want := []string{`"x" ok`, "1 ok", "2 -32601", "null -32600", "null -32600", "null -32600"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// All notifications: nothing, not even an empty array.
	w.send("[" + note("daemon.info") + "," + note("no.such") + "]\n")
	if got := briefs(t, w.ask("[1,2,3]")); len(got) != 3 || got[2] != "null -32600" {
		t.Errorf("got %q", got)
	}
	if got := brief(t, w.ask(`[{"jsonrpc":"2.0","id":1,"method":"daemon.info"},`)); got != "null -32700" {
		t.Errorf("a batch that is bad JSON got %s", got)
	}
}

func TestABatchOf100000(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	got := w.ask("[" + strings.TrimSuffix(strings.Repeat("1,", 100000), ",") + "]")
	if n := strings.Count(got, "-32600"); n != 100000 {
		t.Errorf("%d replies", n)
	}
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, ",%s", fmt.Sprintf(info, strconv.Itoa(i)))
	}
	if got := w.ask("[" + b.String()[1:] + "]"); strings.Count(got, `"result"`) != 20000 {
		t.Errorf("%d results", strings.Count(got, `"result"`))
	}
}

func TestABatchOfLargeReads(t *testing.T) {
	s, path := serve(t, newFake(), func(o *Options) { o.Limits.FrameBytes = 4 << 20 })
	w := dial(t, path)
	id := "44444444-4444-4444-8444-444444444444"
	w.ask(create(1, aSession, "m", `,"checkpoint_id":"`+id+`","state":"`+strings.Repeat("x", 1<<20)+`"`))
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, ",%s", call(i, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, id)))
	}
	for range 3 {
		w.send("[" + b.String()[1:] + "]\n")
	}
	for range 3 {
		line := w.line()
		if good, bad := strings.Count(line, `"result"`), strings.Count(line, "-32005"); good != 3 || bad != 47 || !json.Valid([]byte(line)) {
			t.Errorf("%d results, %d refusals, %d bytes", good, bad, len(line))
		}
	}
	// The last reply is here before the server has counted it as written.
	for deadline := time.Now().Add(20 * time.Second); s.Stats().InFlightBytes > 1<<20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are held", s.Stats().InFlightBytes)
		}
	}
}

// TestABatchCutOff ends a connection while its batch waits for a place; what it held is
// given back, which serve's cleanup looks at.
func TestABatchCutOff(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	s, path := serve(t, f, func(o *Options) { o.Limits.InFlightPerConnection = 2 })
	w := dial(t, path)
	w.send("[7," + create(1, aSession, "slow", "") + strings.Repeat(","+fmt.Sprintf(info, "2"), 5000) + "]\n")
	<-f.started
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	time.AfterFunc(50*time.Millisecond, func() { close(f.hold) })
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNotificationsGetNoReply(t *testing.T) {
	f := newFake()
	_, path := serve(t, f, nil)
	w := dial(t, path)
	w.send(strings.Replace(create(0, aSession, "by note", ""), `"id":0,`, "", 1) + "\n" + note("no.such") + "\n")
	if got := brief(t, w.ask(call(1, "checkpoint.latest", fmt.Sprintf(`{"session_id":%q}`, aSession)))); got != "1 ok" {
		t.Errorf("got %s", got)
	}
	if !slices.Equal(f.snapshot(), []string{"by note"}) {
		t.Errorf("the notification was not served before the read: %q", f.snapshot())
	}
}

func frame(s string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(s), s) }

func (w *wire) frame() string {
	w.t.Helper()
	head := w.line()
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "Content-Length: ")))
	if err != nil || w.line() != "\r" {
		w.t.Fatalf("bad header %q", head)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(w.r, b); err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestLSPFraming(t *testing.T) {
	_, path := serve(t, newFake(), func(o *Options) { o.Limits.FrameBytes = 1 << 20 })
	w := dial(t, path)
	one := fmt.Sprintf(info, "1")
	for _, in := range []string{
		frame(one),
		"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n" + frame(one),
		strings.Replace(frame(one), "Content-Length: ", "content-length:", 1),
		strings.ReplaceAll(frame(one), "\r\n", "\n"),
		frame(" {\n\"jsonrpc\":\"2.0\",\n\"id\":1,\"method\":\"daemon.info\"}\n"),
	} {
		w.send(in)
		if got := brief(t, w.frame()); got != "1 ok" {
			t.Errorf("%q got %s", in, got)
		}
	}
	w.send(frame("[" + one + "," + one + "]"))
	if got := briefs(t, w.frame()); len(got) != 2 {
		t.Errorf("a batch got %q", got)
	}
	for in, want := range map[string]string{"": "null -32700", "{": "null -32700", "7": "null -32600", "[]": "null -32600"} {
		w.send(frame(in))
		if got := brief(t, w.frame()); got != want {
			t.Errorf("%q got %s, want %s", in, got, want)
		}
	}
	big := create(5, aSession, "big", `,"state":"`+strings.Repeat("x", 700<<10)+`"`)
	w.send(frame(big))
	if got := brief(t, w.frame()); got != "5 ok" {
		t.Errorf("got %s", got)
	}
	w.send(frame(strings.Repeat("x", 3<<20)) + frame(one))
	if got := brief(t, w.frame()); got != "null -32005" {
		t.Errorf("an over-long frame got %s", got)
	}
	if got := brief(t, w.frame()); got != "1 ok" {
		t.Errorf("after it: %s", got)
	}
	w.send("Content-Length: minus\r\n\r\n")
	if got := brief(t, w.frame()); got != "null -32700" {
		t.Errorf("a bad header got %s", got)
	}
	if rest := w.lines(); rest != nil {
		t.Errorf("the connection goes on after a bad header: %q", rest)
	}
}

func TestAnOverLongLineIsPassedOverInParts(t *testing.T) {
	s, path := serve(t, newFake(), func(o *Options) { o.Limits.FrameBytes = 256 << 10 })
	w := dial(t, path)
	for range 200 {
		w.send(strings.Repeat("x", 128<<10))
	}
	if got := brief(t, w.line()); got != "null -32005" { // told before the line ends
		t.Errorf("got %s", got)
	}
	if held := s.Stats().InFlightBytes; held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
	w.send("\n")
	if got := brief(t, w.ask(fmt.Sprintf(info, "1"))); got != "1 ok" {
		t.Errorf("got %s", got)
	}
}

func TestHalfClose(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	_, path := serve(t, f, nil)
	w := dial(t, path)
	w.send(create(1, aSession, "slow", "") + "\n" + fmt.Sprintf(info, "2")) // the last line has no end
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-f.started
	if got := brief(t, w.line()); got != "2 ok" {
		t.Errorf("got %s", got)
	}
	close(f.hold)
	got := w.lines()
	if len(got) != 1 || brief(t, got[0]) != "1 ok" {
		t.Errorf("got %q", got)
	}
	<-f.gone
}

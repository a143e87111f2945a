package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestShutdownAnswersWhatWasReceived(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	s, path := serve(t, f, nil)
	w, idle := dial(t, path), dial(t, path)
	idle.ask(fmt.Sprintf(info, "1"))
	w.send(create(1, aSession, "slow", "") + "\n")
	<-f.started
	w.send(create(2, aSession, "sent before", "") + "\n" + `{"half`)
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	if got := idle.lines(); got != nil {
		t.Errorf("the idle connection got %q", got)
	}
	close(f.hold)
	got := w.lines()
	if len(got) != 2 || brief(t, got[0]) != "1 ok" || brief(t, got[1]) != "2 ok" {
		t.Errorf("got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("unix", path); err == nil { // the listener is open, nobody accepts
		c.Close()
	}
}

// What was sent before the end is answered, also when it had to wait for its place until
// after the time in which the server still reads.
func TestShutdownAnswersWhatWaitedInTheSocket(t *testing.T) {
	for _, framing := range []string{"lines", "lsp"} {
		f := newFake()
		f.hold, f.started = make(chan struct{}), make(chan string, 1)
		s, path := serve(t, f, func(o *Options) { o.Limits.InFlightPerConnection = 1 })
		w := dial(t, path)
		frame := func(msg string) string {
			if framing == "lsp" {
				return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(msg), msg)
			}
			return msg + "\n"
		}
		w.send(frame(create(0, aSession, "slow", "")))
		<-f.started
		const n = 40
		pad := strings.Repeat("x", 3<<10) // together more than the reader takes at once
		for i := range n {
			w.send(frame(create(i+1, aSession, "m", `,"state":"`+pad+`"`)))
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(context.Background()) }()
		<-time.After(2 * drainGrace)
		close(f.hold)
		got, err := io.ReadAll(w.r)
		if err != nil {
			t.Errorf("%s: %v", framing, err)
		}
		if made := strings.Count(string(got), `"result"`); made != n+1 {
			t.Errorf("%s: %d of %d were answered", framing, made, n+1)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestShutdownHasABound(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	s, path := serve(t, f, nil)
	w := dial(t, path)
	w.send(create(1, aSession, "slow", "") + "\n")
	<-f.started
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	time.AfterFunc(300*time.Millisecond, func() { close(f.hold) })
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

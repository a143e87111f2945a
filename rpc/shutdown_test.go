package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
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

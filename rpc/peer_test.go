package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// peerFake hands the peer of a request out.
type peerFake struct {
	*fake
	peers chan Peer
}

func (f peerFake) Info(ctx context.Context, p NoParams) (*Info, error) {
	f.peers <- PeerFrom(ctx)
	return f.fake.Info(ctx, p)
}

func TestThePeer(t *testing.T) {
	f := peerFake{newFake(), make(chan Peer, 1)}
	_, path := serve(t, f, func(o *Options) { o.Limits.QueuedNotifications = 4096 })
	w := dial(t, path)
	w.ask(fmt.Sprintf(info, "1"))
	p := <-f.peers
	if p.UID() != uint32(os.Geteuid()) || p.GID() != uint32(os.Getegid()) || p.PID() != os.Getpid() || !p.Alive() {
		t.Errorf("peer %d %d %d alive %v", p.UID(), p.GID(), p.PID(), p.Alive())
	}
	params := map[string]string{"a": strings.Repeat("<&>", 300)}
	for full := 0; full < 20; { // the socket takes some, then the queue is full for good
		if p.Notify("event", params) {
			full = 0
		} else {
			full++
			time.Sleep(time.Millisecond)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.NotifyWait(ctx, "event", params); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("NotifyWait on a full queue: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- p.NotifyWait(t.Context(), "last", params) }()
	for i := 0; ; i++ {
		line := w.line()
		if strings.Contains(line, `"last"`) {
			break
		}
		if !strings.HasPrefix(line, `{"jsonrpc":"2.0","method":"event","params":{"a":"<&><&>`) {
			t.Fatalf("got %s", line)
		}
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	w.Close()
	<-p.Done()
	if p.Notify("event", nil) || p.NotifyWait(t.Context(), "event", nil) == nil || p.Call(t.Context(), "x", nil, nil) == nil {
		t.Error("a connection that has ended takes messages")
	}
	<-f.gone
	for range 1000 { // the descriptor is closed right after
		if !p.Alive() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("a peer that has gone is alive")
}

func TestCallsOfThePeer(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	trigger := call(1, "auto.trigger", fmt.Sprintf(`{"session_id":%q,"cause":"error"}`, aSession))
	for reply, want := range map[string]string{
		`"result":{"state":{"b":1.0, "a":1e400}}`: `{"b":1.0,"a":1e400}`,
		`"result":{}`: ``,
		`"result":7`:  `result: must be an object with a state`,
		`"error":{"code":-32001,"message":"no such thing"}`: `no such thing`,
		`"error":7`:                           `the error in the reply is none`,
		`"result":{"state":"` + "\xff" + `"}`: `the reply is not usable`,
		`"result":{"state":"` + strings.Repeat("x", 17<<20) + `"}`: `the state is 17825794 bytes long, over the limit of 16777216`,
	} {
		w := dial(t, path)
		w.send(trigger + "\n")
		var asked struct {
			ID     json.RawMessage
			Method string
			Params CaptureRequest
		}
		if err := json.Unmarshal([]byte(w.line()), &asked); err != nil || asked.Method != "state.capture" || asked.Params.Cause != checkpoint.CauseError {
			t.Fatalf("asked %+v, %v", asked, err)
		}
		w.send(`{"jsonrpc":"2.0","id":"never asked","result":1}` + "\n")
		r := parseReply(t, w.ask(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,%s}`, asked.ID, reply)))
		var got AutoTriggerResult
		if err := json.Unmarshal(r.Result, &got); err != nil || got.Skipped != want {
			t.Errorf("%.80s: got %.300q, %v, want %q", reply, got.Skipped, err, want)
		}
	}
	w := dial(t, path)
	w.send(trigger + "\n")
	w.line()
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := w.lines(); len(got) != 1 || !strings.Contains(got[0], "closed") {
		t.Errorf("a peer that sends no more: %q", got)
	}
}

func TestTheReplyComesBeforeWhatFollowsIt(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	for range 100 {
		if got := brief(t, w.ask(call(1, "events.subscribe", "{}"))); got != "1 ok" {
			t.Fatalf("first came %s", got)
		}
		if !strings.Contains(w.line(), `"method":"event"`) {
			t.Fatal("then no event")
		}
	}
	w.send("[" + call(1, "events.subscribe", "{}") + "]\n")
	if first, second := w.line(), w.line(); first[0] != '[' || !strings.Contains(second, `"method":"event"`) {
		t.Errorf("got %s and %s", first, second)
	}
}

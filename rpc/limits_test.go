package rpc

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestBackPressure(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	_, path := serve(t, f, func(o *Options) { o.Limits.InFlightPerConnection = 4 })
	w := dial(t, path)
	w.send(create(0, aSession, "slow", "") + "\n")
	<-f.started
	const n = 20000
	sent := make(chan error, 1)
	go func() {
		for i := 1; i <= n; i++ {
			if _, err := io.WriteString(w, create(i, "22222222-2222-4222-8222-222222222222", "m", `,"parent_id":"22222222-2222-4222-8222-222222222222"`)+"\n"); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	time.AfterFunc(50*time.Millisecond, func() { close(f.hold) })
	for range n + 1 {
		if b := brief(t, w.line()); !strings.HasSuffix(b, " ok") {
			t.Fatal(b)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestTooManyConnections(t *testing.T) {
	_, path := serve(t, newFake(), func(o *Options) { o.Limits.Connections = 2 })
	a, b := dial(t, path), dial(t, path)
	a.ask(fmt.Sprintf(info, "1"))
	b.ask(fmt.Sprintf(info, "1"))
	got := dial(t, path).lines()
	if len(got) != 1 || brief(t, got[0]) != "null -32008" {
		t.Errorf("got %q", got)
	}
	a.Close()
	for range 1000 {
		c := dial(t, path)
		if _, err := io.WriteString(c, fmt.Sprintf(info, "1")+"\n"); err == nil {
			if line, err := c.r.ReadString('\n'); err == nil && brief(t, line) == "1 ok" {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the place was not given back")
}

func TestDeadlines(t *testing.T) {
	f := newFake()
	_, path := serve(t, f, func(o *Options) {
		o.Limits.FrameTimeout, o.Limits.IdleTimeout, o.Limits.WriteTimeout = 50*time.Millisecond, 150*time.Millisecond, 100*time.Millisecond
	})
	w := dial(t, path)
	w.send(`{"jsonrpc":`)
	if got := w.lines(); len(got) != 1 || brief(t, got[0]) != "null -32600" {
		t.Errorf("a frame that does not end got %q", got)
	}
	w = dial(t, path)
	w.ask(fmt.Sprintf(info, "1"))
	if got := w.lines(); got != nil {
		t.Errorf("an idle connection got %q", got)
	}
	<-f.gone
	<-f.gone
}

func TestAPeerThatNeverReads(t *testing.T) {
	f := newFake()
	s, path := serve(t, f, func(o *Options) { o.Limits.WriteTimeout = 200 * time.Millisecond })
	w := dial(t, path)
	r := parseReply(t, w.ask(create(1, aSession, "m", `,"state":"`+strings.Repeat("x", 8<<20)+`"`)))
	var receipt checkpoint.Receipt
	if err := json.Unmarshal(r.Result, &receipt); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := io.WriteString(w, call(2, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, receipt.CheckpointID))+"\n"); err != nil {
			break
		}
		if held := s.Stats().InFlightBytes; held > 64<<20 {
			t.Fatalf("%d bytes are held for it", held)
		}
	}
	<-f.gone
}

func TestAccess(t *testing.T) {
	own := uint32(os.Geteuid())
	person := creds{groups: []uint32{7, 8}}
	person.Uid, person.Gid = 4321, 9
	for _, c := range []struct {
		a    Access
		want bool
	}{
		{Access{}, false}, {Access{UIDs: []uint32{4321}}, true}, {Access{UIDs: []uint32{1}}, false},
		{Access{GIDs: []uint32{9}}, true}, {Access{GIDs: []uint32{8}}, true}, {Access{GIDs: []uint32{1}}, false},
	} {
		if c.a.allows(person, own) != c.want {
			t.Errorf("%+v lets %+v in: %v", c.a, person, !c.want)
		}
	}
	nobody := creds{}
	nobody.Uid = overflowUID
	if (Access{UIDs: []uint32{overflowUID}}).allows(nobody, overflowUID) {
		t.Error("the overflow uid was let in")
	}
	if !(Access{}).allows(creds{}, 1000) {
		t.Error("root was not let in")
	}
}

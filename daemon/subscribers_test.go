package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// follower reads events over a socket of its own, as a client would: it resumes after an
// overflow, and connects again when the daemon went away.
type follower struct {
	socket  string
	session any // nil: all
	cursor  string
	up      <-chan struct{} // closed when the second daemon runs
	release <-chan struct{} // it reads nothing before this is closed; nil: reads at once

	got       []uint64
	overflows int
}

// follow returns when it saw a session closed.
func (f *follower) follow() error {
	for again := false; ; again = true {
		if again {
			<-f.up
		}
		done, err := f.connection()
		if done || err != nil && !lost(err) {
			return err
		}
		if again && err != nil {
			return fmt.Errorf("the second daemon hung up: %w", err)
		}
	}
}

// lost says that the daemon went away.
func lost(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

func (f *follower) connection() (done bool, err error) {
	c, err := net.Dial("unix", f.socket)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := f.subscribe(c); err != nil {
		return false, err
	}
	if f.release != nil {
		<-f.release
		f.release = nil
	}
	for r := bufio.NewReader(c); ; {
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			return false, err
		}
		line, err := r.ReadBytes('\n')
		if err != nil {
			return false, err
		}
		var m struct {
			Method string
			Error  *wireError
			Params struct {
				Cursor string
				Event  checkpoint.Event
			}
		}
		if err := json.Unmarshal(line, &m); err != nil || m.Error != nil {
			return false, fmt.Errorf("%s: %v", line, err)
		}
		switch m.Method {
		case "event":
			f.cursor = m.Params.Cursor
			if m.Params.Event.Type == checkpoint.EventSessionClosed {
				return true, nil
			}
			f.got = append(f.got, m.Params.Event.Sequence)
		case "overflow":
			f.cursor = m.Params.Cursor
			f.overflows++
			if err := f.subscribe(c); err != nil {
				return false, err
			}
		}
	}
}

func (f *follower) subscribe(w io.Writer) error {
	params := obj{"types": []string{"created", "session_closed"}, "since_cursor": f.cursor}
	if f.session != nil {
		params["session_id"] = f.session
	}
	return json.NewEncoder(w).Encode(obj{"jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": params})
}

// A hundred subscribers on sockets of their own, over a real store that is stopped and
// started in the middle: a fifth of them does not read for a while, a few until the daemon
// is another one. Each sees each event once, in one order, and no writer waits for them.
func TestAHundredSubscribersOnSockets(t *testing.T) {
	o := directoryOptions(t)
	o.Config.Limits.NotificationBytes = 16 << 10
	d := start(t, o)
	p := d.dial()
	sessions := []checkpoint.Session{p.session(obj{}), p.session(obj{})}
	var now struct{ Cursor string }
	p.call("events.subscribe", obj{"types": []string{"corrupt"}}, &now)
	all := map[any][]uint64{}
	write := func(p *peer, n int) {
		creates := make([]obj, n)
		for i := range creates {
			creates[i] = obj{"session_id": sessions[i%3/2].ID, "message": "m"}
		}
		for _, raw := range p.pipelined("checkpoint.create", creates) {
			var r checkpoint.Receipt
			if err := json.Unmarshal(raw, &r); err != nil {
				t.Fatal(err)
			}
			all[nil] = append(all[nil], r.Sequence)
			all[r.SessionID] = append(all[r.SessionID], r.Sequence)
		}
	}
	write(p, 300)
	up, soon := make(chan struct{}), make(chan struct{})
	followers := make([]*follower, 100)
	ended := make([]error, len(followers))
	var wg sync.WaitGroup
	for i := range followers {
		f := &follower{socket: o.Paths.Socket, cursor: now.Cursor, up: up}
		switch {
		case i%20 == 0:
			f.release = up // its connection ends before it read a line
		case i%5 == 0:
			f.release = soon
		case i%2 == 1:
			f.session = sessions[0].ID
		}
		followers[i] = f
		wg.Go(func() { ended[i] = f.follow() })
	}
	write(p, 1500) // with the stuck ones stuck
	var m struct {
		Overflows int `json:"overflows_total"`
	}
	if p.call("daemon.metrics", obj{}, &m); m.Overflows == 0 {
		t.Error("nobody overflowed: the stuck ones were not stuck")
	}
	close(soon)
	write(p, 300)
	d.end()
	p = start(t, o).dial()
	close(up)
	write(p, 300)
	p.call("session.close", obj{"session_id": sessions[0].ID}, nil) // this ends them all
	wg.Wait()
	for _, want := range all {
		slices.Sort(want)
	}
	resumed := 0
	for i, f := range followers {
		if resumed += f.overflows; ended[i] != nil {
			t.Errorf("follower %d: %v", i, ended[i])
		}
		if want := all[f.session]; !slices.Equal(f.got, want) {
			t.Errorf("follower %d saw %d events, not the %d in their order: %s", i, len(f.got), len(want), firstDifference(f.got, want))
		}
	}
	if resumed == 0 {
		t.Error("nobody resumed after an overflow")
	}
}

func firstDifference(got, want []uint64) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("at %d stands %d for %d", i, got[i], want[i])
		}
	}
	return "one ends early"
}

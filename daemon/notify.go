package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells systemd how the service stands; without NOTIFY_SOCKET it tells nobody.
type notifier struct{ log *slog.Logger }

func (n notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("systemd was not told", "err", err)
	}
}

func (n notifier) ready(status string) { n.send("READY=1\nSTATUS=" + status) }

// reloading goes in one datagram with its time, or systemd waits for the other half.
func (n notifier) reloading() { n.send("RELOADING=1\n" + daemon.SdNotifyMonotonicUsec()) }

func (n notifier) stopping() { n.send("STOPPING=1\nSTATUS=finishing what was asked before") }

func (n notifier) status(text string) { n.send("STATUS=" + text) }

// watchdog answers systemd's watchdog as long as the daemon does its work: a connection
// of its own is accepted and answered, and the store can still be counted.
func (n notifier) watchdog(ctx context.Context, probe func(context.Context) error) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("the watchdog's time cannot be read", "err", err)
	}
	if err != nil || every <= 0 {
		return
	}
	t := time.NewTicker(every / 2)
	defer t.Stop()
	for {
		tctx, cancel := context.WithTimeout(ctx, every/2)
		err := probe(tctx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.log.Error("the watchdog is not answered", "err", err)
		default:
			n.send("WATCHDOG=1")
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// probe asks daemon.info over the socket, as a client would, and the store for its counts.
func (s *service) probe(ctx context.Context) error {
	if _, err := s.store.Stats(ctx); err != nil {
		return fmt.Errorf("asking the store: %w", err)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.info.Socket)
	if err != nil {
		return fmt.Errorf("connecting to itself: %w", err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return fmt.Errorf("connecting to itself: %w", err)
		}
	}
	if _, err := c.Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"daemon.info"}` + "\n")); err != nil {
		return fmt.Errorf("asking itself: %w", err)
	}
	line, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("asking itself: %w", err)
	}
	// At its limit of connections it answers overloaded: that is an answer.
	if !json.Valid(line) {
		return fmt.Errorf("asking itself: the answer is no JSON")
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newStatusCmd(a *app) *cobra.Command {
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "say whether the daemon is up, and how it is",
		Long: `Says whether the daemon is up, where, since when, how much it holds and what is wrong, and what
the sessions with the newest activity hold and cost on disk: their own files, and the chunks of captured files that they
name (shared ones count for each). It never starts one. Exit code 0: up and healthy; 1: up and something is wrong; 3: not running.`,
		Example: "  forge-cpd status\n  forge-cpd status --json | jq .health.healthy\n  forge-cpd status --watch",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it anew until interrupted")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "with --watch: how often")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		_, paths, err := config.ResolveClient(a.flags)
		if err != nil {
			return err
		}
		c := &client.Client{Socket: paths.Socket, Handshake: a.timeout, RetryFor: -1}
		defer c.Close()
		if !watch {
			return a.statusOnce(ctx, c, paths)
		}
		for {
			if terminal(a.stdout) > 0 && !a.json {
				fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
			}
			var told *exitError
			err := a.statusOnce(ctx, c, paths)
			switch {
			case ctx.Err() != nil: // interrupted while it asked: that is how a watch ends
				return nil
			case err == nil || errors.As(err, &told):
			case errors.Is(err, client.ErrNotRunning), errors.Is(err, client.ErrConnectionLost):
				a.say("%v", err)
			default:
				return err
			}
			if pause(ctx, every) != nil {
				return nil
			}
		}
	}
	return cmd
}

// fullStatus is what status --json prints: the wire's three answers under one roof.
type fullStatus struct {
	Running bool            `json:"running"`
	Paths   config.Paths    `json:"paths"`
	Info    json.RawMessage `json:"info,omitempty"`
	Health  json.RawMessage `json:"health,omitempty"`
	Metrics json.RawMessage `json:"metrics,omitempty"`
}

func (a *app) statusOnce(ctx context.Context, c *client.Client, paths config.Paths) error {
	s := fullStatus{Paths: paths}
	for _, part := range []struct {
		method string
		to     *json.RawMessage
	}{{"daemon.info", &s.Info}, {"daemon.health", &s.Health}, {"daemon.metrics", &s.Metrics}} {
		raw, err := c.Call(ctx, part.method, nil)
		if err != nil {
			if a.json && errors.Is(err, client.ErrNotRunning) {
				return errors.Join(err, a.printJSON(s))
			}
			return err
		}
		*part.to = raw
	}
	s.Running = true
	var h rpc.Health
	if err := json.Unmarshal(s.Health, &h); err != nil {
		return err
	}
	var err error
	if a.json {
		err = a.printJSON(s)
	} else {
		err = a.statusText(s, h, time.Now())
	}
	if err == nil && !h.Healthy {
		err = &exitError{code: exitFailed}
	}
	return err
}

func (a *app) statusText(s fullStatus, h rpc.Health, now time.Time) error {
	var info rpc.Info
	var m rpc.Metrics
	if err := errors.Join(json.Unmarshal(s.Info, &info), json.Unmarshal(s.Metrics, &m)); err != nil {
		return err
	}
	st := a.style()
	state := st.good("healthy")
	if !h.Healthy {
		state = st.bad("unhealthy") + ": " + plain(h.Message)
	}
	err := fields(a.stdout, st,
		"daemon", fmt.Sprintf("%s, version %s, pid %d, up %s", state, info.Version, info.PID, age(info.StartedAt, now)),
		"socket", info.Socket, "data", strings.TrimSpace(fmt.Sprintf("%s (%s)", h.DataDir(), info.Driver)), "config", s.Paths.Config,
		"holds", fmt.Sprintf("%s in %s, %s of checkpoints and captured files", plural(m.TotalCheckpoints, "checkpoint"), plural(m.ActiveSessions, "active session"), size(m.StoreBytes)),
		"sequence", humanize.Comma(int64(m.GlobalSequence)),
		"automatic", fmt.Sprintf("%s taken, %s skipped, %s failed", humanize.Comma(int64(m.Automatic.Taken)), humanize.Comma(int64(m.Automatic.Skipped)), humanize.Comma(int64(m.Automatic.Failed))),
		"now", fmt.Sprintf("%s, %s", plural(m.Connections, "connection"), plural(m.Subscribers, "subscriber")))
	if err != nil {
		return err
	}
	for _, check := range h.Checks {
		if !check.OK {
			if _, err := fmt.Fprintf(a.stdout, "%s  %s: %s\n", st.bad("!"), check.Name, plain(check.Message)); err != nil {
				return err
			}
		}
	}
	return a.statusSessions(m.Sessions, st)
}

// statusSessions shows what the sessions with the newest activity hold and cost.
func (a *app) statusSessions(sessions []rpc.SessionUsage, st style) error {
	if len(sessions) == 0 {
		return nil
	}
	t := table{columns: []column{
		{title: "SESSION", flex: true, keep: 3}, {title: "NAME", flex: true, paint: st.bold}, {title: "CHECKPOINTS", right: true, keep: 2},
		{title: "ON DISK", right: true, keep: 4}, {title: "OF IT FILES", right: true, keep: 1},
	}}
	for _, s := range sessions {
		key := plain(s.Key)
		if key == "" {
			key = s.SessionID.String()
		}
		least := ""
		if s.Partial {
			least = "> "
		}
		t.add(key, plain(s.Name), fmt.Sprint(s.Checkpoints), least+size(s.Bytes), least+size(s.BlobBytes))
	}
	if _, err := fmt.Fprintln(a.stdout); err != nil {
		return err
	}
	return t.print(a.stdout, terminal(a.stdout), st)
}

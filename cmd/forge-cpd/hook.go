package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
)

// How long a hook may take, from its start. Agents wait for some of their hooks, and those
// of one short run are to fit into the deadline together: only the first one waits for a
// daemon that gives no answer.
const (
	hookDeadline  = 300 * time.Millisecond // in all
	hookPatience  = 150 * time.Millisecond // until the daemon's first answer; then the event is spooled
	hookReturn    = 30 * time.Millisecond  // until the last answer, once there was a first: with the program's start and end, under 50
	hookShort     = 10 * time.Millisecond  // until the first answer of a daemon that gave none a moment ago
	hookStuckFor  = 10 * time.Second       // how long a moment ago is
	hookReadLimit = 8 << 20                // of an event; the rest is not looked at
)

const hookLong = `hook reads one event of an agent from stdin and tells the daemon. Agents run it: put it
into their settings with "forge-cpd hook install AGENT", which shows the change and asks.

It prints nothing and exits 0 whatever happens, so it cannot disturb the agent. With no
daemon the event is kept in a spool beside the store, and taken in later.

AGENT is claude-code, codex, gemini or cursor.`

func newHookCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "hook AGENT",
		Short:   "take an agent's hook event from stdin",
		Long:    hookLong,
		Example: "  forge-cpd hook install claude-code\n  forge-cpd hook claude-code < event.json",
		Args:    cobra.ArbitraryArgs, // a wrong call must not exit 2, see hookUsage
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return hookUsage(errors.New("hook needs the agent's name: claude-code, codex, gemini or cursor"))
			}
			agent := hookAgents[args[0]]
			if agent == nil {
				return hookUsage(fmt.Errorf("there is no hook for %q: use claude-code, codex, gemini or cursor", args[0]))
			}
			a.hook(agent)
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return hookUsage(err) })
	cmd.AddCommand(newHookInstallCmd(a, true), newHookInstallCmd(a, false), newHookDrainCmd(a))
	return cmd
}

// hookUsage exits 1: agents take 2 as "block what you were about to do".
func hookUsage(err error) error { return &exitError{code: exitFailed, err: err} }

func newHookDrainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drain",
		Short: "hand the events in the spool to the daemon",
		Long:  "drain hands the events that hooks kept while no daemon answered to the daemon, starting one when none runs. Hooks start it by themselves.",
		Args:  cobra.NoArgs,
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, _ []string) error {
			_, paths, err := config.Resolve(a.flags)
			if err != nil {
				return err
			}
			_, err = takeInSpool(ctx, c, paths.Socket, spoolDirs(paths))
			return err
		}),
	}
}

func newEventID() string { return uuid.Must(uuid.NewV7()).String() }

// hook takes one event. It has no error to return: there is nobody to tell it to.
func (a *app) hook(agent *hookAgent) {
	start := time.Now()
	defer func() {
		// A panic would exit 2, which blocks the agent.
		_ = recover()
	}()
	// Agents end their hooks with SIGTERM when they end themselves, and wait for them: then
	// the event goes into the spool at once. (Caught and not ignored: a daemon that is
	// started from here would inherit that.)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	event, ok := parseHookEvent(agent, readEvent(a.stdin, start.Add(hookPatience)))
	if !ok {
		return
	}
	cfg, paths, err := config.Resolve(a.flags)
	if err != nil {
		cfg, paths = config.Default(), config.Paths{}
	}
	report := event.plan(newEventID(), start, paths.Socket, cfg.Auto)
	dirs := spoolDirs(paths)
	if err != nil {
		_ = spool(dirs, &report, true)
		return
	}
	answered, err := tell(ctx, &report, paths.Socket, dirs, start)
	switch {
	case err == nil:
		if slices.ContainsFunc(dirs, func(d string) bool { return len(spooled(d)) > 0 }) {
			a.startDrain()
		}
	case answered: // alive and slow: it will do what it was told, unless it dies first. What it refused, drain puts aside
		_ = spool(dirs, &report, false)
	default:
		_ = spool(dirs, &report, true)
		if errors.Is(err, client.ErrNotRunning) && !a.mayNotStart() {
			a.startDrain()
		}
	}
}

// readEvent reads stdin to its end, or what came until the deadline.
func readEvent(stdin io.Reader, deadline time.Time) []byte {
	var mu sync.Mutex // guards data
	var data []byte
	done := make(chan struct{})
	go func() {
		part := make([]byte, 64<<10)
		for err := error(nil); err == nil && len(data) < hookReadLimit; {
			var n int
			n, err = stdin.Read(part)
			mu.Lock()
			data = append(data, part[:n]...)
			mu.Unlock()
		}
		close(done)
		// An agent that still writes would be sent SIGPIPE when this process ends.
		_, _ = io.Copy(io.Discard, stdin)
	}()
	select {
	case <-done:
	case <-time.After(time.Until(deadline)):
	}
	mu.Lock()
	defer mu.Unlock()
	return data
}

// tell delivers a report within the hook's time. answered says that the daemon gave a
// first answer.
func tell(ctx context.Context, r *hookReport, socket string, dirs []string, start time.Time) (answered bool, err error) {
	patience, marker := hookPatience, ""
	if len(dirs) > 0 {
		marker = filepath.Join(dirs[0], ".no-answer")
		if info, err := os.Stat(marker); err == nil && time.Since(info.ModTime()) < hookStuckFor {
			patience = time.Since(start) + hookShort
		}
	}
	first, cancel := context.WithDeadline(ctx, start.Add(patience))
	defer cancel()
	c := &client.Client{Socket: socket, RetryFor: -1, Handshake: hookDeadline}
	if _, err = c.Info(first); err != nil {
		if marker != "" && !errors.Is(err, client.ErrNotRunning) && ctx.Err() == nil {
			markStuck(marker)
		}
		return false, err
	}
	if marker != "" {
		_ = os.Remove(marker)
	}
	// The daemon lives. Most events are answered in a few milliseconds; the capture of a
	// long transcript is not waited for.
	end := start.Add(hookReturn)
	if soon := time.Now().Add(hookShort); end.Before(soon) {
		end = soon
	}
	rest, stop := context.WithDeadline(ctx, end)
	defer stop()
	return true, r.deliver(rest, c)
}

func markStuck(marker string) {
	if os.MkdirAll(filepath.Dir(marker), 0o700) == nil {
		_ = os.WriteFile(marker, nil, 0o600)
		now := time.Now()
		_ = os.Chtimes(marker, now, now)
	}
}

// startDrain starts `forge-cpd hook drain` in a session of its own: what takes longer than
// the agent may wait happens there, the start of a daemon too.
func (a *app) startDrain() {
	self, err := os.Executable()
	if err != nil || !strings.HasPrefix(filepath.Base(self), "forge-cpd") {
		return // a test binary
	}
	args := []string{"hook", "drain"}
	for flag, value := range map[string]string{"--config": a.flags.Config, "--socket": a.flags.Socket, "--data-dir": a.flags.DataDir} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	if a.noStart {
		args = append(args, "--no-start")
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

const runLong = `run starts a program under a session of its own. FORGE_CPD_SOCKET and FORGE_CPD_SESSION in
its environment tell it where to put its state (session.put_state, checkpoint.create). It has
run's terminal, run passes signals on to it, and ends with its exit status.

When the program fails, or is killed, a checkpoint with cause error keeps the state that it
put last and the end of what it wrote to stderr.`

// Exit codes of a program that could not be started, as a shell has them.
const (
	exitCannotRun = 126
	exitNoProgram = 127
)

// stderrTail is how much of a program's stderr a checkpoint keeps, in bytes. It stays in
// the checkpoint's trigger_detail, which is bounded.
const stderrTail = 16 << 10

type runFlags struct {
	name, key string
	labels    map[string]string
}

func newRunCmd(a *app) *cobra.Command {
	var r runFlags
	cmd := &cobra.Command{
		Use:     "run -- COMMAND [ARG]...",
		Short:   "run a program under a session of its own",
		Long:    runLong,
		Example: "  forge-cpd run -- python agent.py\n  forge-cpd run --key nightly -- make all",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runProgram(cmd.Context(), &r, args) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the program's name is the program's
	f.StringVar(&r.name, "name", "", "the session's `NAME` (default: the program's)")
	f.StringVar(&r.key, "key", "", "the session's `KEY`; one that is known is gone on with")
	f.StringToStringVarP(&r.labels, "label", "l", nil, "a label of the session, as `KEY=VALUE`; may be repeated")
	return cmd
}

func (a *app) runProgram(ctx context.Context, r *runFlags, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNoProgram
		if errors.Is(err, fs.ErrPermission) {
			code = exitCannotRun
		}
		return &exitError{code: code, err: err}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	// Hanging up ends the session's attachment: a state that was put and is in no
	// checkpoint yet is kept by the daemon then.
	defer c.Close()
	session, err := r.open(ctx, c, args)
	if err != nil {
		return err
	}
	end, err := a.supervise(c, session, path, args)
	if err != nil {
		return errors.Join(err, r.finish(ctx, c, session, nil))
	}
	if err := r.finish(ctx, c, session, end); err != nil {
		a.say("forge-cpd: the end of %s is in no checkpoint: %v", args[0], err)
	}
	if end.Exit != 0 {
		return &exitError{code: end.Exit}
	}
	return nil
}

// open makes the session, or goes on with the key's.
func (r *runFlags) open(ctx context.Context, c *client.Client, args []string) (*rpc.SessionCreateResult, error) {
	labels := map[string]string{"command": shortText(strings.Join(args, " "), "")}
	if len(labels["command"]) > 200 {
		labels["command"] = strings.ToValidUTF8(labels["command"][:200], "") + " …"
	}
	if dir, err := os.Getwd(); err == nil {
		labels["cwd"] = dir
	}
	for k, v := range r.labels {
		labels[k] = v
	}
	s, err := c.CreateSession(ctx, &rpc.SessionCreateParams{
		Name: cmp.Or(r.name, filepath.Base(args[0])), Key: r.key, Labels: labels, Auto: json.RawMessage(`{"on_error":true}`),
	})
	if err != nil {
		return nil, err
	}
	ref := client.ByID(s.ID)
	if s.Status == checkpoint.Closed {
		if _, err := c.ReopenSession(ctx, ref); err != nil {
			return nil, err
		}
	}
	if s.Existing && s.Auto == nil {
		if _, err := c.EnableAuto(ctx, ref, json.RawMessage(`{"on_error":true}`)); err != nil {
			return nil, err
		}
	}
	return s, c.Attach(ctx, ref, nil)
}

// runEnd is how a program ended. It becomes context.trigger_detail.
type runEnd struct {
	Command []string `json:"command"`
	Exit    int      `json:"exit_status"`
	Signal  string   `json:"signal,omitempty"`
	Stderr  string   `json:"stderr_tail"`
}

func (e *runEnd) message() string {
	text := fmt.Sprintf("%s ended with exit status %d", filepath.Base(e.Command[0]), e.Exit)
	if e.Signal != "" {
		text = fmt.Sprintf("%s was ended by %s", filepath.Base(e.Command[0]), e.Signal)
	}
	tail := strings.TrimSpace(e.Stderr)
	if line := strings.TrimSpace(tail[strings.LastIndexByte(tail, '\n')+1:]); line != "" {
		text += ": " + line
	}
	return shortText(text, "")
}

// finish takes the last checkpoint of a program that failed, and ends the timers of a
// session that was made for it.
func (r *runFlags) finish(ctx context.Context, c *client.Client, s *rpc.SessionCreateResult, end *runEnd) error {
	var failed error
	if end != nil && end.Exit != 0 {
		detail, err := json.Marshal(end)
		if err != nil {
			return err
		}
		_, failed = c.Trigger(ctx, &rpc.AutoTriggerParams{SessionRef: client.ByID(s.ID), Cause: checkpoint.CauseError, Message: end.message(), Detail: detail})
	}
	if s.Existing {
		return failed
	}
	return errors.Join(failed, c.DisableAuto(ctx, client.ByID(s.ID)))
}

// supervise runs the program to its end.
func (a *app) supervise(c *client.Client, s *rpc.SessionCreateResult, path string, args []string) (*runEnd, error) {
	tail := &tailWriter{to: a.stderr, limit: stderrTail}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout = a.stdin, a.stdout
	cmd.Env = append(os.Environ(), config.EnvSocket+"="+c.Socket, "FORGE_CPD_SESSION="+s.ID.String())
	wait, err := connectStderr(cmd, a.stderr, tail)
	if err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		wait()
		return nil, &exitError{code: exitCannotRun, err: fmt.Errorf("starting %s: %w", args[0], err)}
	}
	done := make(chan struct{})
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		forward(signals, cmd.Process, terminal(a.stdin) > 0, done)
	}()
	err = cmd.Wait()
	close(done)
	<-forwarded
	wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return nil, fmt.Errorf("waiting for %s: %w", args[0], err)
	}
	end := &runEnd{Command: args, Stderr: tail.text()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		end.Signal = signalName(status.Signal())
		end.Exit = 128 + int(status.Signal())
	} else {
		end.Exit = cmd.ProcessState.ExitCode()
	}
	return end, nil
}

// passedOn are the signals that a program may want to know of.
var passedOn = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT}

// forward passes signals on until the program has ended. What a key on the terminal sends
// the program has got itself, being in the same process group.
func forward(signals <-chan os.Signal, p *os.Process, onTerminal bool, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case sig := <-signals:
			if onTerminal && (sig == syscall.SIGINT || sig == syscall.SIGQUIT || sig == syscall.SIGCONT) {
				continue
			}
			_ = p.Signal(sig) // it may have ended just now
		}
	}
}

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
)

// app is what the commands share: the streams, the flags that every command takes, and
// the way to a client. Data goes to stdout, talk to stderr.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	flags   config.Flags
	json    bool
	noStart bool
	timeout time.Duration
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRootCmd(a)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return a.report(root.ExecuteContext(ctx))
}

// interruptible ends a command's context at the first interrupt. Client commands hold
// nothing that must be put right, so a second one need not be told apart.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// clientCmd makes a command's RunE of a function that needs the daemon: it connects,
// starting a daemon when none answers, and hangs up at the end.
func (a *app) clientCmd(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		c, err := a.connect(ctx)
		if err != nil {
			return err
		}
		err = f(ctx, c, args)
		return errors.Join(err, c.Close())
	}
}

// connect gives a client whose daemon answered. Without --no-start it starts one when
// none listens, and replaces an older one of the same major version.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	cfg, paths, err := config.ResolveClient(a.flags)
	if err != nil {
		return nil, err
	}
	c := &client.Client{Socket: paths.Socket, Handshake: a.timeout}
	info, err := c.Info(ctx)
	switch {
	case err == nil && (a.mayNotStart() || !olderThan(info, version)):
		return c, nil
	case err == nil:
		err = a.replace(ctx, c, cfg, paths, info)
	case errors.Is(err, client.ErrNotRunning) && !a.mayNotStart():
		err = a.start(ctx, c, cfg, paths)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (a *app) mayNotStart() bool {
	return a.noStart || os.Getenv("FORGE_CPD_NO_AUTOSTART") == "1"
}

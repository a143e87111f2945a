package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/daemon"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newServeCmd(a *app) *cobra.Command {
	var level, format string
	var welcome bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the daemon in the foreground",
		Long: `Runs the daemon until it is told to stop. INT or TERM lets it finish what it was asked and
stop; a second one ends it at once. HUP re-reads the configuration. A socket that systemd
passes on is taken. Exit code 75: another daemon has the store; 5: the store is damaged.`,
		Example: "  forge-cpd serve\n  forge-cpd serve --data-dir /srv/checkpoints --log-format json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&level, "log-level", "", "debug, info, warn or error; else as configured")
	cmd.Flags().StringVar(&format, "log-format", "", "text or json; else as configured")
	cmd.Flags().BoolVar(&welcome, "welcome", false, "say where things are and what to do next, also when standard error is no terminal")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, paths, err := config.Resolve(a.flags)
		if err != nil {
			return err
		}
		if format == "" {
			format = cfg.Log.Format
		}
		o := daemon.Options{Config: cfg, Paths: paths, Version: version}
		if o.Logger, o.Level, err = a.logger(cfg, level, format); err != nil {
			return err
		}
		if o.Listener, err = inherited(); err != nil {
			return err
		}
		bar := a.progress()
		o.Progress = func(done, total int) { bar.tell("reading the store: %d of %d", done, total) }
		o.Ready = func(info rpc.Info) {
			bar.done()
			if welcome || format == "text" && terminal(a.stderr) > 0 { // else the log's own line will do
				a.greet(info, paths)
			}
		}
		return serve(cmd.Context(), o)
	}
	return cmd
}

// serve runs the daemon under the process's signals.
func serve(ctx context.Context, o daemon.Options) error {
	ctx, stop := untilTold(ctx)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	o.Reload = hup
	var spool sync.WaitGroup
	defer spool.Wait()
	ready := o.Ready
	o.Ready = func(info rpc.Info) {
		ready(info)
		spool.Go(func() { takeInAtStart(ctx, o) })
	}
	return daemon.Run(ctx, o)
}

// untilTold ends with the first INT or TERM. By then a second one has its own, final
// effect, however close it comes.
func untilTold(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan os.Signal, 2)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-told:
			signal.Stop(told)
			if len(told) > 0 {
				os.Exit(128 + int(syscall.SIGTERM))
			}
		case <-ctx.Done():
			signal.Stop(told)
		}
		cancel()
	}()
	return ctx, cancel
}

// logger makes the daemon's log on stderr. A level from the command line stays; one from
// the configuration follows it over reloads.
func (a *app) logger(cfg *config.Config, flag, format string) (*slog.Logger, *slog.LevelVar, error) {
	text := flag
	if text == "" {
		text = cfg.Log.Level
	}
	level, err := daemon.LogLevel(text)
	if err != nil {
		return nil, nil, usagef("--log-level: %w", err)
	}
	var v slog.LevelVar
	v.Set(level)
	opts := &slog.HandlerOptions{Level: &v}
	var h slog.Handler
	switch format {
	case "text":
		h = slog.NewTextHandler(a.stderr, opts)
	case "json":
		opts.ReplaceAttr = func(_ []string, at slog.Attr) slog.Attr {
			if at.Value.Kind() == slog.KindDuration { // with its unit, as in text
				at.Value = slog.StringValue(at.Value.Duration().String())
			}
			return at
		}
		h = slog.NewJSONHandler(a.stderr, opts)
	default:
		return nil, nil, usagef("--log-format %q: say text or json", format)
	}
	if flag != "" {
		return slog.New(h), nil, nil
	}
	return slog.New(h), &v, nil
}

// inherited is the socket that systemd passed on, or nil.
func inherited() (net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("taking the socket from systemd: %w", err)
	}
	switch len(listeners) {
	case 0:
		return nil, nil
	case 1:
		if listeners[0] == nil {
			return nil, errors.New("what systemd passed on is no listening socket: its unit needs ListenStream=")
		}
		return listeners[0], nil
	}
	return nil, fmt.Errorf("systemd passed on %d sockets, and one is served: leave one ListenStream= in the socket unit", len(listeners))
}

// greet tells where things are and what to do next.
func (a *app) greet(info rpc.Info, paths config.Paths) {
	file := paths.Config
	if file == "" {
		file = "none, the defaults"
	}
	flag := ""
	if paths.SocketFrom == config.FromFlag {
		flag = " --socket " + paths.Socket
	}
	a.say(`forge-cpd %s is ready.
  socket  %s
  data    %s
  config  %s
Next, in another terminal:
  forge-cpd%s session create "my first session" --key demo
  echo '{"step": 1}' | forge-cpd%[5]s checkpoint create demo - -m "first step"
  forge-cpd%[5]s log demo
Ctrl-C stops it; nothing acknowledged is lost.`, info.Version, info.Socket, paths.DataDir, file, flag)
}

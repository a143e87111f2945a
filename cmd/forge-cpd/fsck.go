package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

func newFsckCmd(a *app) *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "read the whole store again and name what is damaged",
		Long: `Reads every byte of the store again and names each damaged file: through the daemon when one
runs, else by itself. With --repair, for which no daemon may run, damage is moved to
quarantine/ and the index is rebuilt; nothing is deleted. Exit code 0: all is whole; 5: damage
was found, repaired or not; 75: a daemon holds the store.`,
		Example: "  forge-cpd fsck\n  forge-cpd call daemon.shutdown && forge-cpd fsck --repair",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "put damage into quarantine and rebuild the index")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		cfg, paths, err := config.Resolve(a.flags)
		if err != nil {
			return err
		}
		c := &client.Client{Socket: paths.Socket, Handshake: a.timeout, RetryFor: -1}
		defer c.Close()
		health, err := c.Health(ctx, &rpc.HealthParams{})
		switch {
		case errors.Is(err, client.ErrNotRunning) || err == nil && health.DataDir() != paths.DataDir:
			return a.fsckStore(ctx, cfg, paths, repair)
		case errors.Is(err, client.ErrConnectionLost):
			return &exitError{code: exitBusy, err: fmt.Errorf("the daemon on %s is ending: try again in a moment: %w", paths.Socket, err)}
		case err != nil:
			return endingDaemon(err)
		case repair:
			return &exitError{code: exitBusy, err: fmt.Errorf("a daemon has the store %s: stop it by `forge-cpd call daemon.shutdown`, then repair", paths.DataDir)}
		}
		r, err := a.checkRunning(ctx, c, rpc.SessionRef{})
		if err != nil {
			return endingDaemon(err)
		}
		return a.printReport(r)
	}
	return cmd
}

// endingDaemon makes "try again" of a connection that was lost: nothing was changed by reading.
func endingDaemon(err error) error {
	if errors.Is(err, client.ErrConnectionLost) {
		return &exitError{code: exitBusy, err: fmt.Errorf("the daemon ended while the store was read: try again (%w)", err)}
	}
	return err
}

// readStore reads a store that no daemon holds. Only a repair minds a network file system.
func (a *app) readStore(ctx context.Context, cfg *config.Config, paths config.Paths, repair bool) (storage.Report, error) {
	bar := a.progress()
	defer bar.done()
	return storage.Fsck(ctx, storage.Options{
		Dir: paths.DataDir, AllowNetworkFS: cfg.Storage.AllowNetworkFS || !repair,
		Progress: func(done, total int) { bar.tell("reading the store: %d of %d", done, total) },
	}, repair)
}

// fsckStore checks a store that no daemon holds.
func (a *app) fsckStore(ctx context.Context, cfg *config.Config, paths config.Paths, repair bool) error {
	found, err := a.readStore(ctx, cfg, paths, repair)
	if err != nil {
		return err
	}
	r := &rpc.ValidateAllResult{
		Valid: found.Valid, Invalid: found.Invalid, Skipped: found.Skipped, Total: found.Total,
		AllValid: found.Invalid == 0 && found.Skipped == 0 && len(found.Problems) == 0,
		Problems: []rpc.Problem{}, CheckedAt: time.Now().UTC(),
	}
	for _, p := range found.Problems {
		r.Problems = append(r.Problems, rpc.Problem(p))
	}
	return a.printReport(r)
}

// checkRunning lets the daemon read its whole store again.
func (a *app) checkRunning(ctx context.Context, c *client.Client, ref rpc.SessionRef) (*rpc.ValidateAllResult, error) {
	if terminal(a.stderr) > 0 {
		a.say("the daemon reads its store again …")
	}
	return c.ValidateAll(ctx, ref)
}

// printReport tells what a check of the store found; the exit code says whether it is whole.
func (a *app) printReport(r *rpc.ValidateAllResult) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := a.reportText(r); err != nil {
		return err
	}
	switch {
	case len(r.Problems) > 0: // what is in quarantine since an earlier check is counted and not new
		return &exitError{code: exitDamaged}
	case r.Skipped > 0:
		return &exitError{code: exitFailed, err: fmt.Errorf("%s could not be read: mend the disk or its permissions, then check again", plural(r.Skipped, "file"))}
	}
	return nil
}

func (a *app) reportText(r *rpc.ValidateAllResult) error {
	st := a.style()
	for _, p := range r.Problems {
		what := plain(p.Path)
		if !p.CheckpointID.IsZero() {
			what += "  checkpoint " + p.CheckpointID.String()
		}
		if _, err := fmt.Fprintf(a.stdout, "%s  %s: %s\n", st.bad("damaged"), what, plain(p.Problem)); err != nil {
			return err
		}
	}
	verdict := st.good("sound")
	switch {
	case len(r.Problems) > 0:
		verdict = st.bad("damaged")
	case r.Invalid > 0:
		verdict = st.warn("nothing new, and some in quarantine")
	}
	_, err := fmt.Fprintf(a.stdout, "%s: %d of %s read again are whole, %d damaged, %d unread\n", verdict, r.Valid, plural(r.Total, "checkpoint"), r.Invalid, r.Skipped)
	return err
}

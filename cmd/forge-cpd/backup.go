package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

func newBackupCmd(a *app) *cobra.Command {
	var verify bool
	cmd := &cobra.Command{
		Use:   "backup DIR",
		Short: "copy the store while it is in use",
		Long: `Makes DIR a verified copy of the store: a store of its own, with every checkpoint that was
acknowledged before, its annotations, sessions and captured files. Run it again with the same
DIR, and only what is new is copied; the rest is linked. The new copy grows in DIR.new and takes
the place of the old one in one step, so a backup that fails or is killed leaves the last good one.

To go back to a copy, stop the daemon and put a copy of DIR where the data directory was. DIR
must be on a local disk; for another machine, copy DIR with rsync, or use export --since.
Exit code 5: damage was found in the store; what is whole was copied.`,
		Example: "  forge-cpd backup /mnt/backup/forge-cpd\n  forge-cpd fsck --data-dir /mnt/backup/forge-cpd --socket /nonexistent",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "also read again what the last backup copied")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		info, err := c.Info(ctx)
		if err != nil {
			return err
		}
		if info.Driver != "directory" {
			return fmt.Errorf("the daemon keeps its checkpoints in %s, not in files: use `forge-cpd export`", info.Driver)
		}
		health, err := c.Health(ctx, &rpc.HealthParams{})
		if err != nil {
			return err
		}
		bar := a.progress()
		defer bar.done()
		r, err := storage.Backup(ctx, storage.BackupOptions{
			From: health.DataDir(), To: args[0], Verify: verify,
			Sync:     func(ctx context.Context) error { _, err := c.Sync(ctx); return err },
			Progress: func(done, total int) { bar.tell("copied %d of %s", done, plural(total, "checkpoint")) },
		})
		bar.done()
		if err != nil {
			return err
		}
		return a.backupDone(r, args[0])
	})
	return cmd
}

func (a *app) backupDone(r *storage.BackupReport, dir string) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		a.say("%s holds %s and %s: %s (%s) copied, %d as they were", dir, plural(r.Sessions, "session"),
			plural(r.Checkpoints, "checkpoint"), plural(r.Copied, "file"), size(r.CopiedBytes), r.Linked)
		for _, p := range r.Problems {
			a.say("  damaged in the store, and not in the copy: %s: %s", plain(p.Path), plain(p.Problem))
		}
	}
	if len(r.Problems) > 0 {
		return &exitError{code: exitDamaged}
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func compactCmd(a *app, use string) *cobra.Command {
	p := rpc.CompactParams{}
	var recent, hourly, daily int64
	var maxAge string
	cmd := &cobra.Command{
		Use:     use + " SESSION",
		Aliases: []string{"compact"},
		Short:   "delete the checkpoints that no rule keeps",
		Long: `Deletes a session's checkpoints, except those that one of the given rules keeps. At least
one rule must be given. Try it with --dry-run first: there is no way back.`,
		Example: `  forge-cpd prune my-agent --keep-recent 50 --keep-daily 30 --dry-run
  forge-cpd prune my-agent --keep-manual --max-age 7d`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.Int64Var(&recent, "keep-recent", 0, "keep the newest `N`")
	f.Int64Var(&hourly, "keep-hourly", 0, "keep the newest of each of the last `N` hours that have one")
	f.Int64Var(&daily, "keep-daily", 0, "keep the newest of each of the last `N` days that have one")
	f.BoolVar(&p.KeepManual, "keep-manual", false, "keep those that a client made")
	f.BoolVar(&p.KeepTagged, "keep-tagged", false, "keep those with any tag")
	f.StringArrayVar(&p.PreserveTags, "preserve-tag", nil, "keep those with this `TAG`; may be repeated")
	f.StringVar(&maxAge, "max-age", "", "keep those younger than this `AGE`, as 36h or 7d")
	f.BoolVar(&p.DryRun, "dry-run", false, "say what would go, and delete nothing")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		for name, rule := range map[string]struct {
			to    **int64
			value *int64
		}{"keep-recent": {&p.KeepRecent, &recent}, "keep-hourly": {&p.KeepHourly, &hourly}, "keep-daily": {&p.KeepDaily, &daily}} {
			if f.Changed(name) {
				*rule.to = rule.value
			}
		}
		if maxAge != "" {
			d, ok := span(maxAge)
			if !ok {
				return usagef("--max-age %q: write 36h, 7d or \"2 weeks\"", maxAge)
			}
			seconds := int64(d.Seconds())
			p.MaxAgeSeconds = &seconds
		}
		if p.Retention.IsZero() {
			return usagef("no rule given, so everything would go: give at least one, as --keep-recent 50")
		}
		var err error
		if p.SessionRef, err = sessionRef(ctx, c, args[0]); err != nil {
			return err
		}
		raw, err := c.Call(ctx, "checkpoint.compact", p)
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		var r rpc.CompactResult
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		if p.DryRun {
			for _, id := range r.DeletedIDs {
				if _, err := fmt.Fprintln(a.stdout, id); err != nil {
					return err
				}
			}
			a.say("would delete %s and leave %d", plural(r.Deleted, "checkpoint"), r.Remaining)
			return nil
		}
		a.say("deleted %s, %d left", plural(r.Deleted, "checkpoint"), r.Remaining)
		return nil
	})
	return cmd
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newEventsCmd(a *app) *cobra.Command {
	var session, since string
	var types []string
	var count int
	cmd := &cobra.Command{
		Use:   "events",
		Short: "follow what happens, one line an event",
		Long: `Follows events until interrupted: what was created, restored, deleted, annotated, and what failed.
With --json each line is {"cursor", "event"}; give the last cursor as --since to go on from
there, also after a restart of the daemon.`,
		Example: `  forge-cpd events
  forge-cpd events --session my-agent --type created --json
  forge-cpd events --since "$cursor"`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&session, "session", "", "only those of this `SESSION`")
	f.StringSliceVar(&types, "type", nil, "only these types, as created,deleted")
	f.StringVar(&since, "since", "", "first what came after this `CURSOR`")
	f.IntVar(&count, "count", 0, "end after this many; 0 is never")
	_ = cmd.RegisterFlagCompletionFunc("type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var all []string
		for _, t := range checkpoint.EventTypes {
			all = append(all, string(t))
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	})
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, _ []string) error {
		p := rpc.SubscribeParams{}
		for _, t := range types {
			p.Types = append(p.Types, checkpoint.EventType(t))
		}
		if session != "" {
			var err error
			if p.SessionRef, err = sessionRef(ctx, c, session); err != nil {
				return err
			}
		}
		if since != "" {
			p.SinceCursor = &since
		}
		return a.followEvents(ctx, c, p, count)
	})
	return cmd
}

func (a *app) followEvents(ctx context.Context, c *client.Client, p rpc.SubscribeParams, count int) error {
	sub, err := c.Subscribe(ctx, p)
	if err != nil {
		return err
	}
	defer sub.Close()
	if p.SinceCursor != nil && sub.Fresh() {
		a.say("the events since that cursor are gone: list anew what you follow; going on from now")
	}
	n := 0
	for ev, err := range sub.All(ctx) {
		switch {
		case errors.Is(err, client.ErrOverflow), errors.Is(err, client.ErrEventsLost):
			a.say("%v", err)
			continue
		case err != nil:
			return err
		case a.json:
			err = a.printJSON(struct {
				Cursor string `json:"cursor"`
				Event  any    `json:"event"`
			}{ev.Cursor, ev.Raw})
		default:
			_, err = fmt.Fprintln(a.stdout, eventLine(ev.Event, a.style()))
		}
		if err != nil {
			return err
		}
		if n++; n == count {
			return nil
		}
	}
	return nil
}

func eventLine(e checkpoint.Event, st style) string {
	parts := []string{st.dim(e.Timestamp.Local().Format(time.TimeOnly)), st.bold(fmt.Sprintf("%-16s", e.Type))}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.Sequence > 0 {
		add("#%d", e.Sequence)
	}
	if !e.CheckpointID.IsZero() {
		add("%s", e.CheckpointID)
	}
	if !e.SessionID.IsZero() {
		add("session %s", e.SessionID)
	}
	switch {
	case e.Cause != "":
		add("%s", e.Cause)
	case e.Trigger != "":
		add("%s", e.Trigger)
	}
	if e.Deleted > 0 {
		add("%s deleted", plural(e.Deleted, "checkpoint"))
	}
	if e.Remaining != nil {
		add("%d remain", *e.Remaining)
	}
	if e.Path != "" {
		add("%s", plain(e.Path))
	}
	if e.Problem != "" {
		parts = append(parts, st.bad(plain(e.Problem)))
	}
	return strings.Join(parts, "  ")
}

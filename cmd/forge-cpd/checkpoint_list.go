package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

type listFlags struct {
	rpc.CheckpointListParams
	trigger, cause, since, until, metadata, order string
	from, to                                      uint64
	limit                                         int
	watch                                         bool
}

func listCmd(a *app, use string) *cobra.Command {
	l := &listFlags{}
	cmd := &cobra.Command{
		Use:   use + " [SESSION]",
		Short: "list checkpoints, of one session or of all",
		Example: "  forge-cpd " + listPath(use) + ` my-agent
  forge-cpd ` + listPath(use) + ` --since "2h ago" --trigger automatic
  forge-cpd ` + listPath(use) + ` my-agent --tag release --json | jq -r '.checkpoints[].id'
  forge-cpd ` + listPath(use) + ` my-agent --watch`,
		Args: cobra.MaximumNArgs(1),
	}
	order := "asc"
	if use == "log" {
		order = "desc"
		cmd.Short = "list checkpoints, newest first"
	} else {
		cmd.Aliases = []string{"ls"}
	}
	f := cmd.Flags()
	f.StringArrayVarP(&l.Tags, "tag", "t", nil, "only with this tag; several must all be there")
	f.BoolVar(&l.AnyTag, "any-tag", false, "one of several --tag is enough")
	f.StringVar(&l.trigger, "trigger", "", "only manual, scheduled or automatic ones")
	f.StringVar(&l.cause, "cause", "", "only of this cause (interval, error, tool_call, …)")
	f.StringVar(&l.since, "since", "", "not before this `TIME` (RFC 3339, or \"2h ago\")")
	f.StringVar(&l.until, "until", "", "not after this `TIME`")
	f.Uint64Var(&l.from, "from", 0, "not below this sequence `NUMBER`")
	f.Uint64Var(&l.to, "to", 0, "not above this sequence `NUMBER`")
	f.StringVar(&l.Text, "text", "", "only with this text in message or tags")
	f.StringVar(&l.metadata, "metadata", "", "only with these members, a `JSON` object")
	f.StringVar(&l.order, "order", order, "asc or desc, by sequence number")
	f.IntVarP(&l.limit, "limit", "n", 100, "how many at most; 0 is all")
	f.BoolVarP(&l.watch, "watch", "w", false, "go on with new ones as they are made")
	_ = cmd.RegisterFlagCompletionFunc("trigger", cobra.FixedCompletions([]string{"manual", "scheduled", "automatic"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		if err := l.settle(ctx, c, args, time.Now()); err != nil {
			return err
		}
		if l.watch {
			return a.watchList(ctx, c, l)
		}
		items, next, err := l.fetch(ctx, c)
		if err != nil {
			return err
		}
		if a.json {
			return a.printPage("checkpoints", items, next)
		}
		return a.checkpointTable(items, next, l.SessionID.IsZero(), time.Now())
	})
	return cmd
}

func listPath(use string) string {
	if use == "log" {
		return use
	}
	return "checkpoint " + use
}

// settle turns the flags into the wire's params.
func (l *listFlags) settle(ctx context.Context, c *client.Client, args []string, now time.Time) error {
	if len(args) == 1 {
		ref, err := sessionRef(ctx, c, args[0])
		if err != nil {
			return err
		}
		l.SessionRef = ref
	}
	l.Trigger, l.Cause, l.Order = checkpoint.Trigger(l.trigger), checkpoint.Cause(l.cause), l.order
	for _, b := range []struct {
		text string
		to   **time.Time
	}{{l.since, &l.Since}, {l.until, &l.Until}} {
		if b.text == "" {
			continue
		}
		t, err := parseTime(b.text, now)
		if err != nil {
			return err
		}
		*b.to = &t
	}
	if l.from > 0 {
		l.FromSequence = &l.from
	}
	if l.to > 0 {
		l.ToSequence = &l.to
	}
	if l.metadata != "" {
		if !json.Valid([]byte(l.metadata)) {
			return usagef("--metadata is no JSON: %.80s", l.metadata)
		}
		l.Metadata = json.RawMessage(l.metadata)
	}
	return nil
}

func (l *listFlags) fetch(ctx context.Context, c *client.Client) ([]json.RawMessage, string, error) {
	return pages(ctx, c, l.limit, "checkpoint.list", "checkpoints", func(n int, cursor string) any {
		p := l.CheckpointListParams
		p.Limit, p.Cursor = n, cursor
		return p
	})
}

func (a *app) checkpointTable(items []json.RawMessage, next string, withSession bool, now time.Time) error {
	if len(items) == 0 {
		a.say("no checkpoints")
		return nil
	}
	st := a.style()
	t := table{columns: []column{
		{title: "SEQ", right: true}, {title: "ID", keep: 5, id: true, paint: st.dim}, {title: "AGE", right: true},
		{title: "CAUSE", keep: 6}, {title: "SIZE", right: true, keep: 4}, {title: "MESSAGE", flex: true, paint: st.bold},
		{title: "TAGS", keep: 3, flex: true}, {title: "NOTES", keep: 2, right: true},
	}}
	if withSession {
		t.columns = append(t.columns, column{title: "SESSION", keep: 1, id: true, paint: st.dim})
	}
	for _, raw := range items {
		var s checkpoint.Summary
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		cells := []string{fmt.Sprint(s.Sequence), s.ID.String(), age(s.Timestamp, now), causeText(s.Trigger, s.Cause),
			size(s.StateBytes), messageText(s), plain(strings.Join(s.Tags, " ")), notesText(s.AnnotationCount)}
		if withSession {
			cells = append(cells, s.SessionID.String())
		}
		t.add(cells...)
	}
	if err := t.print(a.stdout, terminal(a.stdout), st); err != nil {
		return err
	}
	if next != "" {
		a.say("there are more: see them with --limit 0")
	}
	return nil
}

func causeText(t checkpoint.Trigger, c checkpoint.Cause) string {
	if c == "" {
		return string(t)
	}
	return string(c)
}

func messageText(s checkpoint.Summary) string {
	if s.Corrupt {
		return "DAMAGED " + plain(s.Message)
	}
	return plain(s.Message)
}

func notesText(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// watchList shows what is there and then each new checkpoint: the subscription is made
// first, so that none falls between the two.
func (a *app) watchList(ctx context.Context, c *client.Client, l *listFlags) error {
	sub, err := c.Subscribe(ctx, rpc.SubscribeParams{SessionRef: l.SessionRef, Types: []checkpoint.EventType{checkpoint.EventCreated}})
	if err != nil {
		return err
	}
	defer sub.Close()
	l.Order = "desc" // the newest of what is there, in the order in which the others will come
	var after uint64
	for {
		items, _, err := l.fetch(ctx, c)
		if err != nil {
			return err
		}
		if l.Order == "desc" {
			slices.Reverse(items)
			l.Order = "asc"
		}
		for _, raw := range items {
			var s checkpoint.Summary
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			after = max(after, s.Sequence)
			if a.json {
				err = a.printRaw(raw)
			} else {
				err = a.watchLine(s, l.SessionID.IsZero())
			}
			if err != nil {
				return err
			}
		}
		from := after + 1
		l.FromSequence, l.limit = &from, 0
		if _, err := sub.Next(ctx); err != nil && !errors.Is(err, client.ErrOverflow) && !errors.Is(err, client.ErrEventsLost) {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (a *app) watchLine(s checkpoint.Summary, withSession bool) error {
	st := a.style()
	line := fmt.Sprintf("%s  #%d  %s  %s  %s", st.dim(s.Timestamp.Local().Format(time.TimeOnly)), s.Sequence,
		causeText(s.Trigger, s.Cause), size(s.StateBytes), st.bold(messageText(s)))
	if withSession {
		line += "  " + st.dim(s.SessionID.String())
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}

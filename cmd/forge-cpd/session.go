package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newSessionCmd(a *app) *cobra.Command {
	return group("session", "make, list, show, close and delete sessions",
		sessionCreateCmd(a), sessionListCmd(a), sessionShowCmd(a),
		sessionStatusCmd(a, "close", "end a session: no more checkpoints, all that is there stays", (*client.Client).CloseSession),
		sessionStatusCmd(a, "reopen", "let a closed session take checkpoints again", (*client.Client).ReopenSession),
		sessionDeleteCmd(a))
}

func sessionCreateCmd(a *app) *cobra.Command {
	p := rpc.SessionCreateParams{}
	var labels []string
	var id string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "make a session, or find the one with that key",
		Long:  "Makes a session and prints its id. With --key, a session that has the key already is found instead and left as it is.",
		Example: `  forge-cpd session create "refactoring the parser"
  forge-cpd session create "my agent" --key my-agent --label project=app`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&p.Key, "key", "", "an identifier of your own, unique in the store")
	f.StringVar(&id, "id", "", "the session's `UUID`; made when left out")
	f.StringArrayVar(&labels, "label", nil, "a `NAME=VALUE` to find it by; may be repeated")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		var err error
		p.Name = args[0]
		if p.Labels, err = parseLabels(labels); err != nil {
			return err
		}
		if id != "" {
			if p.SessionID, err = checkpoint.ParseID(id); err != nil {
				return err
			}
		}
		if p.Key == "" && p.SessionID.IsZero() {
			p.SessionID = checkpoint.NewID()
		}
		raw, err := c.Call(ctx, "session.create", p)
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		var s rpc.SessionCreateResult
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		if s.Existing {
			a.say("session %q was there already, with %s", plain(s.Name), plural(s.CheckpointCount, "checkpoint"))
		}
		_, err = fmt.Fprintln(a.stdout, s.ID)
		return err
	})
	return cmd
}

// rawOr prints a result unless there is an error.
func (a *app) rawOr(raw json.RawMessage, err error) error {
	if err != nil {
		return err
	}
	return a.printRaw(raw)
}

func parseLabels(labels []string) (map[string]string, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, l := range labels {
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return nil, usagef("--label %q: write NAME=VALUE", l)
		}
		m[name] = value
	}
	return m, nil
}

func sessionListCmd(a *app) *cobra.Command {
	var labels []string
	var status string
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "list sessions, newest activity first",
		Example: `  forge-cpd session list
  forge-cpd session list --status active --label project=app --json`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&status, "status", "", "only `active` or closed ones")
	f.StringArrayVar(&labels, "label", nil, "only those with this `NAME=VALUE`; may be repeated")
	f.IntVarP(&limit, "limit", "n", 100, "how many at most; 0 is all")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, _ []string) error {
		wanted, err := parseLabels(labels)
		if err != nil {
			return err
		}
		items, next, err := pages(ctx, c, limit, "session.list", "sessions", func(n int, cursor string) any {
			return rpc.SessionListParams{Status: checkpoint.Status(status), Labels: wanted, Limit: n, Cursor: cursor}
		})
		if err != nil {
			return err
		}
		if a.json {
			return a.printPage("sessions", items, next)
		}
		return a.sessionTable(items, next, time.Now())
	})
	return cmd
}

func (a *app) sessionTable(items []json.RawMessage, next string, now time.Time) error {
	if len(items) == 0 {
		a.say("no sessions; make one with `forge-cpd session create NAME`")
		return nil
	}
	st, width := a.style(), terminal(a.stdout)
	t := table{columns: []column{
		{title: "ID", keep: 3, id: true, paint: st.dim}, {title: "KEY", flex: true}, {title: "NAME", flex: true, paint: st.bold},
		{title: "STATUS", keep: 2}, {title: "CHECKPOINTS", right: true, keep: 4}, {title: "LAST", right: true}, {title: "LABELS", keep: 1, flex: true},
	}}
	for _, raw := range items {
		var s checkpoint.Session
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		last := "-"
		if s.Last != nil {
			last = age(s.Last.Timestamp, now)
		}
		name := plain(s.Key)
		if name == "" && width > 0 {
			name = s.ID.String()[:13] // what commands take for it, where there is no room for ids
		}
		t.add(s.ID.String(), name, plain(s.Name), string(s.Status), fmt.Sprint(s.CheckpointCount), last, labelText(s.Labels))
	}
	if err := t.print(a.stdout, width, st); err != nil {
		return err
	}
	if next != "" {
		a.say("there are more: see them with --limit 0")
	}
	return nil
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, plain(k)+"="+plain(labels[k]))
	}
	return strings.Join(parts, " ")
}

func sessionShowCmd(a *app) *cobra.Command {
	return showSessionCmd(a, "session.get", "show one session", "  forge-cpd session show my-agent\n  forge-cpd session show @last --json", a.sessionDetails)
}

// showSessionCmd makes the command show SESSION, which prints what a method answers.
func showSessionCmd[T any](a *app, method, short, example string, details func(T, time.Time) error) *cobra.Command {
	return &cobra.Command{
		Use:     "show SESSION",
		Short:   short,
		Example: example,
		Args:    cobra.ExactArgs(1),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			ref, err := sessionRef(ctx, c, args[0])
			if err != nil {
				return err
			}
			raw, err := c.Call(ctx, method, rpc.SessionParams{SessionRef: ref})
			if err != nil || a.json {
				return a.rawOr(raw, err)
			}
			var answer T
			if err := json.Unmarshal(raw, &answer); err != nil {
				return err
			}
			return details(answer, time.Now())
		}),
	}
}

func (a *app) sessionDetails(s checkpoint.Session, now time.Time) error {
	last, parent, auto, head := "none yet", "", "off", ""
	if s.Last != nil {
		last = fmt.Sprintf("%s  #%d, %s", s.Last.ID, s.Last.Sequence, moment(s.Last.Timestamp, now))
	}
	if s.Parent != nil {
		parent = fmt.Sprintf("checkpoint %s of session %s", s.Parent.CheckpointID, s.Parent.SessionID)
	}
	if s.Auto != nil {
		auto = "on (see `forge-cpd auto show " + s.ID.String() + "`)"
	}
	if !s.HeadID.IsZero() {
		head = s.HeadID.String()
	}
	return fields(a.stdout, a.style(),
		"id", s.ID.String(), "key", plain(s.Key), "name", plain(s.Name), "status", string(s.Status),
		"labels", labelText(s.Labels), "owner", fmt.Sprintf("uid %d", s.OwnerUID),
		"created", moment(s.CreatedAt, now), "updated", moment(s.UpdatedAt, now),
		"checkpoints", fmt.Sprint(s.CheckpointCount), "last", last, "head", head, "forked from", parent, "automation", auto)
}

// moment is a time in the reader's zone, and how long ago it was.
func moment(t, now time.Time) string {
	if now.Sub(t) < time.Second {
		return t.Local().Format("2006-01-02 15:04:05 MST") + " (now)"
	}
	return fmt.Sprintf("%s (%s ago)", t.Local().Format("2006-01-02 15:04:05 MST"), age(t, now))
}

func sessionStatusCmd(a *app, verb, short string, change func(*client.Client, context.Context, rpc.SessionRef) (*checkpoint.Session, error)) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " SESSION",
		Short:   short,
		Example: "  forge-cpd session " + verb + " my-agent",
		Args:    cobra.ExactArgs(1),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			ref, err := sessionRef(ctx, c, args[0])
			if err != nil {
				return err
			}
			s, err := change(c, ctx, ref)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s)
			}
			a.say("session %q is %s", plain(s.Name), s.Status)
			return nil
		}),
	}
}

func sessionDeleteCmd(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete SESSION",
		Aliases: []string{"rm"},
		Short:   "delete a session and all its checkpoints",
		Long:    "Deletes a session with all its checkpoints. There is no way back, so it asks first; without a terminal it needs --yes.",
		Example: "  forge-cpd session delete my-agent --yes",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		s, err := sessionArg(ctx, c, args[0])
		if err != nil {
			return err
		}
		if !yes {
			if err := a.confirm(fmt.Sprintf("Delete session %q and its %s for good?", plain(s.Name), plural(s.CheckpointCount, "checkpoint"))); err != nil {
				return err
			}
		}
		raw, err := c.Call(ctx, "session.delete", rpc.SessionParams{SessionRef: client.ByID(s.ID)})
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		var r rpc.SessionDeleteResult
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		a.say("deleted session %q and %s", plain(s.Name), plural(r.Deleted, "checkpoint"))
		return nil
	})
	return cmd
}

// confirm asks on the terminal; without one the answer must be on the command line.
func (a *app) confirm(question string) error {
	if terminal(a.stdin) == 0 || terminal(a.stderr) == 0 {
		return usagef("%s There is no terminal to ask on: say --yes", question)
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	var reply string
	if _, err := fmt.Fscanln(a.stdin, &reply); err != nil || !strings.EqualFold(reply, "y") && !strings.EqualFold(reply, "yes") {
		return &exitError{code: exitFailed, err: fmt.Errorf("nothing was changed")}
	}
	return nil
}

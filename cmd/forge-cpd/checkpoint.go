package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newCheckpointCmd(a *app) *cobra.Command {
	g := group("checkpoint", "make, list, show, restore and delete checkpoints",
		createCmd(a), listCmd(a, "list"), showCmd(a), latestCmd(a), atCmd(a), restoreCmd(a), forkCmd(a), diffCmd(a),
		deleteCmd(a), compactCmd(a, "prune"), annotateCmd(a), validateCmd(a))
	g.Aliases = []string{"cp"}
	return g
}

func createCmd(a *app) *cobra.Command {
	p := rpc.CheckpointCreateParams{}
	var metadata, id, parent, head string
	cmd := &cobra.Command{
		Use:   "create SESSION [FILE|-]",
		Short: "keep a state, read from a file or standard input",
		Long: `Keeps a state, which is any JSON value, and prints the new checkpoint's id once it is on
stable storage. Without FILE the state is the session's last put_state, or {}. The state's
bytes are kept as they are; only white space between tokens may go.`,
		Example: `  echo '{"step": 1}' | forge-cpd checkpoint create my-agent - -m "first step"
  forge-cpd checkpoint create my-agent state.json -m "before the merge" --tag release`,
		Args: cobra.RangeArgs(1, 2),
	}
	f := cmd.Flags()
	f.StringVarP(&p.Message, "message", "m", "", "what this checkpoint is")
	f.StringArrayVarP(&p.Tags, "tag", "t", nil, "a tag; may be repeated")
	f.StringVar(&metadata, "metadata", "", "a `JSON` object to keep beside the state")
	f.StringVar(&id, "id", "", "the checkpoint's `UUID`; made when left out")
	f.StringVar(&parent, "parent", "", "the `CHECKPOINT` that it comes after; the session's head when left out")
	f.StringVar(&head, "expect-head", "", "fail unless the session's head is this `CHECKPOINT` (or none)")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		var err error
		if p.SessionRef, err = sessionRef(ctx, c, args[0]); err != nil {
			return err
		}
		if len(args) == 2 {
			if p.State, err = a.readJSON(args[1]); err != nil {
				return err
			}
		}
		if metadata != "" {
			if !json.Valid([]byte(metadata)) {
				return usagef("--metadata is no JSON: %.80s", metadata)
			}
			p.Metadata = json.RawMessage(metadata)
		}
		p.CheckpointID = checkpoint.NewID()
		if id != "" {
			if p.CheckpointID, err = checkpoint.ParseID(id); err != nil {
				return err
			}
		}
		if parent != "" {
			if p.ParentID, err = checkpointArg(ctx, c, parent); err != nil {
				return err
			}
		}
		if head != "" {
			p.ExpectedHeadID = &rpc.NullableID{}
			if head != "none" {
				if p.ExpectedHeadID.ID, err = checkpointArg(ctx, c, head); err != nil {
					return err
				}
			}
		}
		raw, err := c.Call(ctx, "checkpoint.create", p)
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		var r checkpoint.Receipt
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		a.say("kept as #%d", r.Sequence)
		_, err = fmt.Fprintln(a.stdout, r.CheckpointID)
		return err
	})
	return cmd
}

// readJSON reads a file, or standard input for "-", and sees that it is JSON.
func (a *app) readJSON(name string) (json.RawMessage, error) {
	var text []byte
	var err error
	if name == "-" {
		name = "standard input"
		text, err = io.ReadAll(a.stdin)
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, missingFile(err)
	}
	var v json.RawMessage
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, usagef("%s is no JSON value: %w; text must be quoted (jq -Rs . does that)", name, err)
	}
	return text, nil
}

func latestCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "latest SESSION",
		Short:   "show a session's newest checkpoint",
		Example: "  forge-cpd checkpoint latest my-agent --json | jq .state",
		Args:    cobra.ExactArgs(1),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			ref, err := sessionRef(ctx, c, args[0])
			if err != nil {
				return err
			}
			return a.found(ctx, c, "checkpoint.latest", rpc.SessionParams{SessionRef: ref}, "the session has no checkpoint yet")
		}),
	}
}

func forkCmd(a *app) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:     "fork CHECKPOINT NAME",
		Short:   "begin a new session from a checkpoint",
		Long:    "Makes a session whose first checkpoint is a copy of CHECKPOINT, and prints the session's id. The original is not touched.",
		Example: "  forge-cpd checkpoint fork @last \"another attempt\" --key attempt-2",
		Args:    cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&key, "key", "", "an identifier of your own for the new session")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		id, err := checkpointArg(ctx, c, args[0])
		if err != nil {
			return err
		}
		raw, err := c.Call(ctx, "checkpoint.fork", rpc.ForkParams{CheckpointID: id, Name: args[1], Key: key})
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		var s checkpoint.Session
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, s.ID)
		return err
	})
	return cmd
}

func deleteCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete CHECKPOINT...",
		Aliases: []string{"rm"},
		Short:   "delete checkpoints for good",
		Example: "  forge-cpd checkpoint delete 0193f2a4-7c1e",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			for _, arg := range args {
				id, err := checkpointArg(ctx, c, arg)
				if err != nil {
					return err
				}
				raw, err := c.Call(ctx, "checkpoint.delete", rpc.CheckpointParams{CheckpointID: id})
				if err != nil {
					return err
				}
				if a.json {
					if err := a.printRaw(raw); err != nil {
						return err
					}
					continue
				}
				a.say("deleted %s", id)
			}
			return nil
		}),
	}
}

func annotateCmd(a *app) *cobra.Command {
	p := rpc.AnnotateParams{}
	var severity string
	cmd := &cobra.Command{
		Use:     "annotate CHECKPOINT",
		Short:   "add a note to a checkpoint, for good",
		Example: "  forge-cpd checkpoint annotate @last -m \"the tests pass here\"",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&p.Note, "message", "m", "", "the note")
	cmd.Flags().StringVar(&severity, "severity", "info", "info, warning or critical")
	_ = cmd.RegisterFlagCompletionFunc("severity", cobra.FixedCompletions([]string{"info", "warning", "critical"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		if p.Note == "" {
			return usagef("a note needs its text: -m NOTE")
		}
		var err error
		if p.CheckpointID, err = checkpointArg(ctx, c, args[0]); err != nil {
			return err
		}
		p.Severity = checkpoint.Severity(severity)
		raw, err := c.Call(ctx, "checkpoint.annotate", p)
		if err == nil && !a.json {
			a.say("noted on %s", p.CheckpointID)
			return nil
		}
		return a.rawOr(raw, err)
	})
	return cmd
}

func validateCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "validate CHECKPOINT",
		Short:   "read a checkpoint's stored bytes again",
		Long:    "Reads the stored bytes from disk and compares them with their checksum. Exit code 5 means damage; `forge-cpd fsck` checks the whole store.",
		Example: "  forge-cpd checkpoint validate @last",
		Args:    cobra.ExactArgs(1),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := checkpointArg(ctx, c, args[0])
			if err != nil {
				return err
			}
			raw, err := c.Call(ctx, "checkpoint.validate", rpc.CheckpointParams{CheckpointID: id})
			if err != nil {
				return err
			}
			var r rpc.ValidateResult
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			switch {
			case a.json:
				err = a.printRaw(raw)
			case r.Valid:
				_, err = fmt.Fprintf(a.stdout, "%s is sound, %s\n", id, r.Checksum)
			default:
				_, err = fmt.Fprintf(a.stdout, "%s is damaged: %s\n", id, r.Problem)
			}
			if err == nil && !r.Valid {
				err = &exitError{code: exitDamaged}
			}
			return err
		}),
	}
}

func diffCmd(a *app) *cobra.Command {
	p := rpc.DiffParams{}
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "show what changed between two states",
		Long:  "Shows the RFC 6902 operations that lead from the state of FROM to the state of TO.",
		Example: `  forge-cpd diff '#41' @last
  forge-cpd diff '#41' '#42' --path /plan --json | jq .patch`,
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&p.Path, "path", "", "only the part at this JSON `POINTER`")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		var err error
		if p.From, err = checkpointArg(ctx, c, args[0]); err != nil {
			return err
		}
		if p.To, err = checkpointArg(ctx, c, args[1]); err != nil {
			return err
		}
		raw, err := c.Call(ctx, "checkpoint.diff", p)
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		return a.printDiff(raw)
	})
	return cmd
}

func (a *app) printDiff(raw json.RawMessage) error {
	var r rpc.DiffResult
	var ops []struct {
		Op    string          `json:"op"`
		Path  string          `json:"path"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return err
	}
	if err := json.Unmarshal(r.Patch, &ops); err != nil {
		return err
	}
	if r.Identical {
		a.say("the states are identical")
		return nil
	}
	st, width := a.style(), terminal(a.stdout)
	for _, op := range ops {
		mark, paint := "~", st.warn
		switch op.Op {
		case "add":
			mark, paint = "+", st.good
		case "remove":
			mark, paint = "-", st.bad
		}
		if op.Path == "" {
			op.Path = "(the whole state)"
		}
		line := mark + " " + plain(op.Path)
		if op.Op != "remove" {
			line += "  " + plain(string(op.Value))
		}
		if r := []rune(line); width > 0 && len(r) > width {
			line = string(r[:width-1]) + "…"
		}
		if _, err := fmt.Fprintln(a.stdout, paint(line)); err != nil {
			return err
		}
	}
	a.say("%d added, %d removed, %d changed", r.Summary.Added, r.Summary.Removed, r.Summary.Changed)
	return nil
}

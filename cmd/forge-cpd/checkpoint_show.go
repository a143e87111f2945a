package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func showCmd(a *app) *cobra.Command {
	var state bool
	cmd := &cobra.Command{
		Use:   "show CHECKPOINT",
		Short: "show one checkpoint",
		Example: `  forge-cpd show @last
  forge-cpd show '#42' --state | jq .
  forge-cpd show 0193f2a4-7c1e --json`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&state, "state", false, "print the state's bytes and nothing else")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		id, err := checkpointArg(ctx, c, args[0])
		if err != nil {
			return err
		}
		if state {
			cp, err := c.Checkpoint(ctx, id)
			if err != nil {
				return err
			}
			return a.writeState(cp.State)
		}
		return a.found(ctx, c, "checkpoint.get", rpc.CheckpointParams{CheckpointID: id}, "")
	})
	return cmd
}

// writeState writes a state's bytes as they are; a terminal gets a new line after them.
func (a *app) writeState(state []byte) error {
	if terminal(a.stdout) > 0 {
		state = append(state, '\n')
	}
	_, err := a.stdout.Write(state)
	return err
}

func atCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "at SESSION TIME|NUMBER",
		Short: "show the last checkpoint not after a time or a number",
		Example: `  forge-cpd checkpoint at my-agent "2h ago"
  forge-cpd checkpoint at my-agent 2026-01-31T12:00:00Z --json
  forge-cpd checkpoint at my-agent 1000`,
		Args: cobra.ExactArgs(2),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			ref, err := sessionRef(ctx, c, args[0])
			if err != nil {
				return err
			}
			p := rpc.CheckpointAtParams{SessionRef: ref}
			if n, err := strconv.ParseUint(strings.TrimPrefix(args[1], "#"), 10, 64); err == nil {
				p.Sequence = &n
			} else {
				t, err := parseTime(args[1], time.Now())
				if err != nil {
					return err
				}
				p.Time = &t
			}
			return a.found(ctx, c, "checkpoint.at", p, "the session has no checkpoint that old")
		}),
	}
}

// found calls a method whose result is a Checkpoint, or null, and shows it.
func (a *app) found(ctx context.Context, c *client.Client, method string, params any, none string) error {
	raw, err := c.Call(ctx, method, params)
	if err != nil {
		return err
	}
	if string(raw) == "null" {
		if a.json {
			if err := a.printRaw(raw); err != nil {
				return err
			}
			return &exitError{code: exitNotFound}
		}
		return notFoundf("%s", none)
	}
	if a.json {
		return a.printRaw(raw)
	}
	var cp checkpoint.Checkpoint
	if err := json.Unmarshal(raw, &cp); err != nil {
		return err
	}
	return a.checkpointDetails(&cp, time.Now())
}

func (a *app) checkpointDetails(cp *checkpoint.Checkpoint, now time.Time) error {
	st := a.style()
	parent, git, pid := "", "", ""
	if !cp.ParentID.IsZero() {
		parent = cp.ParentID.String()
	}
	if g := cp.Context.Git; g != nil {
		git = fmt.Sprintf("%.12s on %s", g.Head, plain(g.Branch))
		if g.Dirty {
			git += ", changed"
		}
	}
	if cp.Context.PID != 0 {
		pid = fmt.Sprintf("pid %d in %s on %s", cp.Context.PID, plain(cp.Context.WorkingDir), plain(cp.Context.Hostname))
	}
	err := fields(a.stdout, st,
		"checkpoint", fmt.Sprintf("%s  #%d", cp.ID, cp.Sequence), "session", cp.SessionID.String(),
		"time", moment(cp.Timestamp, now), "message", st.bold(plain(cp.Message)), "tags", plain(strings.Join(cp.Tags, " ")),
		"trigger", triggerText(cp), "parent", parent, "metadata", plain(string(cp.Metadata)),
		"agent", pid, "git", git, "detail", plain(string(cp.Context.Detail)),
		"state", fmt.Sprintf("%s, %s", size(int64(len(cp.State))), cp.Context.StateSource), "checksum", cp.Checksum)
	if err != nil {
		return err
	}
	for _, f := range cp.Context.Files {
		if _, err := fmt.Fprintf(a.stdout, "%s  %s  %s  %s\n", st.dim("file"), plain(f.Path), size(f.Bytes), f.Mode); err != nil {
			return err
		}
	}
	for _, n := range cp.Annotations {
		if _, err := fmt.Fprintf(a.stdout, "%s  %s  %s: %s\n", st.dim("note"), n.Timestamp.Local().Format(time.DateTime), n.Severity, plain(n.Note)); err != nil {
			return err
		}
	}
	return a.preview(cp.State)
}

func triggerText(cp *checkpoint.Checkpoint) string {
	if cp.Cause == "" {
		return string(cp.Trigger)
	}
	return fmt.Sprintf("%s (%s)", cp.Trigger, cp.Cause)
}

// preview shows the first lines of a state, indented for reading.
func (a *app) preview(state []byte) error {
	const lines = 20
	var buf bytes.Buffer
	if err := json.Indent(&buf, state, "  ", "  "); err != nil {
		return err
	}
	width := terminal(a.stdout)
	text := strings.Split("  "+buf.String(), "\n")
	for i, line := range text {
		if i == lines {
			_, err := fmt.Fprintf(a.stdout, "  … %s more; --state prints it whole\n", plural(len(text)-lines, "line"))
			return err
		}
		limit := 200
		if width > 0 {
			limit = width
		}
		line = plain(line)
		if r := []rune(line); len(r) > limit {
			line = string(r[:limit-1]) + "…"
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

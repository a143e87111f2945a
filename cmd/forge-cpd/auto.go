package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newAutoCmd(a *app) *cobra.Command {
	return group("auto", "let the daemon take checkpoints by itself", autoEnableCmd(a), autoDisableCmd(a), autoShowCmd(a), autoTriggerCmd(a))
}

func autoEnableCmd(a *app) *cobra.Command {
	var config, cron string
	var interval, minGap time.Duration
	var onError, onTool, skip, git bool
	var watches, follows, files, env []string
	cmd := &cobra.Command{
		Use:   "enable SESSION",
		Short: "switch a session's automation on, or change it",
		Long: `Switches a session's automation on. What no flag says is as the daemon's configuration has
it. --config-json takes the whole AutoConfig of the API; flags are laid over it.`,
		Example: `  forge-cpd auto enable my-agent --interval 5m --on-tool-call
  forge-cpd auto enable my-agent --watch NOTES.md --git
  forge-cpd auto enable my-agent --follow claude-code=$HOME/.claude/projects/app/session.jsonl
  forge-cpd auto enable my-agent --config-json '{"cron": "@hourly"}'`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&config, "config-json", "", "an AutoConfig, as `JSON`")
	f.DurationVar(&interval, "interval", 0, "how often, when something changed; 0 is never")
	f.StringVar(&cron, "cron", "", "a cron `SCHEDULE`, as \"0 * * * *\" or @hourly")
	f.BoolVar(&onError, "on-error", false, "after a failed tool call")
	f.BoolVar(&onTool, "on-tool-call", false, "after each tool call")
	f.DurationVar(&minGap, "min-gap", 0, "the least time between two")
	f.BoolVar(&skip, "skip-unchanged", false, "take none when nothing changed")
	f.StringArrayVar(&watches, "watch", nil, "a file, directory or glob whose changes take one; may be repeated")
	f.StringArrayVar(&follows, "follow", nil, "an agent's transcript as `FORMAT=PATH` (claude-code, codex); may be repeated")
	f.StringArrayVar(&files, "capture-file", nil, "a file to keep with each; may be repeated")
	f.StringArrayVar(&env, "capture-env", nil, "an environment variable to keep with each; may be repeated")
	f.BoolVar(&git, "git", false, "keep head, branch and whether the work tree is changed")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		ref, err := sessionRef(ctx, c, args[0])
		if err != nil {
			return err
		}
		conf := map[string]any{}
		if config != "" {
			if err := json.Unmarshal([]byte(config), &conf); err != nil {
				return usagef("--config-json: %w", err)
			}
		}
		for name, set := range map[string]func(){
			"interval":       func() { conf["interval_seconds"] = int64(interval.Seconds()) },
			"min-gap":        func() { conf["min_gap_seconds"] = int64(minGap.Seconds()) },
			"cron":           func() { conf["cron"] = cron },
			"on-error":       func() { conf["on_error"] = onError },
			"on-tool-call":   func() { conf["on_tool_call"] = onTool },
			"skip-unchanged": func() { conf["skip_unchanged"] = skip },
		} {
			if f.Changed(name) {
				set()
			}
		}
		if w, err := watchList(watches, follows); err != nil {
			return err
		} else if len(w) > 0 {
			conf["watch"] = w
		}
		if capture, err := captureConfig(files, env, git); err != nil {
			return err
		} else if len(capture) > 0 {
			conf["capture"] = capture
		}
		text, err := json.Marshal(conf)
		if err != nil {
			return err
		}
		raw, err := c.Call(ctx, "auto.enable", rpc.AutoEnableParams{SessionRef: ref, Config: text})
		if err == nil && !a.json {
			a.say("automation is on; `forge-cpd auto show %s` tells how it goes", args[0])
			return nil
		}
		return a.rawOr(raw, err)
	})
	return cmd
}

// watchList makes watches of paths, which the daemon wants absolute.
func watchList(watches, follows []string) ([]map[string]any, error) {
	var out []map[string]any
	add := func(path, format string) error {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		w := map[string]any{"path": abs}
		if format != "" {
			w["format"] = format
		}
		out = append(out, w)
		return nil
	}
	for _, path := range watches {
		if err := add(path, ""); err != nil {
			return nil, err
		}
	}
	for _, follow := range follows {
		format, path, ok := strings.Cut(follow, "=")
		if !ok {
			return nil, usagef("--follow %q: write FORMAT=PATH, as claude-code=session.jsonl", follow)
		}
		if err := add(path, format); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func captureConfig(files, env []string, git bool) (map[string]any, error) {
	out := map[string]any{}
	for i, path := range files {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		files[i] = abs
	}
	if len(files) > 0 {
		out["files"] = files
	}
	if len(env) > 0 {
		out["env"] = env
	}
	if git {
		out["git"] = true
	}
	return out, nil
}

func autoDisableCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "disable SESSION",
		Short:   "switch a session's automation off",
		Example: "  forge-cpd auto disable my-agent",
		Args:    cobra.ExactArgs(1),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			ref, err := sessionRef(ctx, c, args[0])
			if err != nil {
				return err
			}
			raw, err := c.Call(ctx, "auto.disable", rpc.SessionParams{SessionRef: ref})
			if err == nil && !a.json {
				a.say("automation is off")
				return nil
			}
			return a.rawOr(raw, err)
		}),
	}
}

func autoShowCmd(a *app) *cobra.Command {
	return showSessionCmd(a, "auto.get", "show a session's automation and how it goes", "  forge-cpd auto show my-agent", a.autoDetails)
}

func (a *app) autoDetails(r rpc.AutoGetResult, now time.Time) error {
	if r.Config == nil {
		return fields(a.stdout, a.style(), "automation", "off; `forge-cpd auto enable SESSION` switches it on",
			"taken", fmt.Sprint(r.Taken), "skipped", fmt.Sprint(r.Skipped))
	}
	conf, interval, next, last := r.Config, "off", "", ""
	if conf.IntervalSeconds > 0 {
		interval = (time.Duration(conf.IntervalSeconds) * time.Second).String()
	}
	if r.NextRun != nil {
		next = fmt.Sprintf("%s (in %s)", r.NextRun.Local().Format(time.DateTime), r.NextRun.Sub(now).Round(time.Second))
	}
	if r.LastRun != nil {
		last = moment(*r.LastRun, now)
	}
	var watches []string
	for _, w := range conf.Watch {
		text := plain(w.Path)
		if w.Format != "" {
			text += " (" + w.Format + ")"
		}
		watches = append(watches, text)
	}
	onOff := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	return fields(a.stdout, a.style(), "automation", "on", "interval", interval, "cron", conf.Cron,
		"on error", onOff(conf.OnError), "on tool call", onOff(conf.OnToolCall), "watches", strings.Join(watches, ", "),
		"next", next, "last", last, "last error", plain(r.LastError), "taken", fmt.Sprint(r.Taken), "skipped", fmt.Sprint(r.Skipped))
}

func autoTriggerCmd(a *app) *cobra.Command {
	p := rpc.AutoTriggerParams{}
	var detail, state string
	cmd := &cobra.Command{
		Use:   "trigger SESSION CAUSE",
		Short: "tell the daemon that something happened",
		Long:  "Tells the daemon that something happened to a session's agent, and prints the id of the checkpoint it took, or why it took none.",
		Example: `  forge-cpd auto trigger my-agent code_modified -m "parser rewritten"
  forge-cpd auto trigger my-agent tool_call --detail '{"tool": "bash"}'`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var all []string
			if len(args) == 1 {
				for _, c := range checkpoint.Causes {
					all = append(all, string(c))
				}
			}
			return all, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := cmd.Flags()
	f.StringVarP(&p.Message, "message", "m", "", "the checkpoint's message")
	f.StringVar(&detail, "detail", "", "what to keep about it, as `JSON`")
	f.StringVar(&state, "state", "", "a `FILE` with the state, or - for standard input; else the daemon asks or takes the last put_state")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		var err error
		if p.SessionRef, err = sessionRef(ctx, c, args[0]); err != nil {
			return err
		}
		p.Cause = checkpoint.Cause(args[1])
		if detail != "" {
			if !json.Valid([]byte(detail)) {
				return usagef("--detail is no JSON: %.80s", detail)
			}
			p.Detail = json.RawMessage(detail)
		}
		if state != "" {
			if p.State, err = a.readJSON(state); err != nil {
				return err
			}
		}
		raw, err := c.Call(ctx, "auto.trigger", p)
		if err != nil || a.json {
			return a.rawOr(raw, err)
		}
		var r rpc.AutoTriggerResult
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		if r.Skipped != "" {
			a.say("no checkpoint: %s", r.Skipped)
			return nil
		}
		_, err = fmt.Fprintln(a.stdout, r.CheckpointID)
		return err
	})
	return cmd
}

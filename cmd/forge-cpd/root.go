package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const rootLong = `forge-cpd keeps the state of AI agents safe: every checkpoint that it acknowledges is on
stable storage, checksummed, and comes back byte for byte.

A SESSION groups the checkpoints of one agent's run. Name it by its id, a unique prefix of
the id, its key, or @last (the one with the newest activity). Name a CHECKPOINT by its id,
a unique prefix, #NUMBER (its sequence number), or @last.

Commands that need the daemon start one when none answers; --no-start or
FORGE_CPD_NO_AUTOSTART=1 forbids it.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 daemon not running, 4 not found,
5 damaged data, 75 busy, try again.`

const rootExample = `  id=$(forge-cpd session create "my agent" --key my-agent)
  echo '{"step": 1}' | forge-cpd checkpoint create my-agent - -m "first step"
  forge-cpd log my-agent
  forge-cpd checkpoint restore @last --out state.json`

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "forge-cpd",
		Short:         "keep checkpoints of AI agents",
		Long:          rootLong,
		Example:       rootExample,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nRun `%s --help` for the flags.", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.flags.Config, "config", "", "configuration `FILE`")
	f.StringVar(&a.flags.Socket, "socket", "", "the daemon's socket, a `PATH`")
	f.StringVar(&a.flags.DataDir, "data-dir", "", "the store's `DIR`")
	f.BoolVar(&a.json, "json", false, "print JSON, in the shapes of the API")
	f.BoolVar(&a.noStart, "no-start", false, "do not start a daemon when none answers")
	f.DurationVar(&a.timeout, "connect-timeout", 5*time.Second, "how long to wait for the daemon's first answer")

	root.AddGroup(
		&cobra.Group{ID: "data", Title: "Sessions and checkpoints:"},
		&cobra.Group{ID: "agents", Title: "Agents:"},
		&cobra.Group{ID: "store", Title: "The store:"},
		&cobra.Group{ID: "daemon", Title: "The daemon:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("data", newSessionCmd(a), newCheckpointCmd(a), listCmd(a, "log"), showCmd(a), diffCmd(a), compactCmd(a, "prune"), newEventsCmd(a))
	add("agents", newAutoCmd(a), newHookCmd(a), newResumeCmd(a), newRunCmd(a))
	add("store", newExportCmd(a), newImportCmd(a), newBackupCmd(a), newFsckCmd(a))
	add("daemon", newServeCmd(a), newStatusCmd(a), newDoctorCmd(a), newConfigCmd(a), newPathsCmd(a), newVersionCmd(a), newCallCmd(a), newCompletionCmd(a))
	root.SetHelpCommandGroupID("daemon")
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Short = "say how a command is used"
		help.Args = func(_ *cobra.Command, args []string) error {
			if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
				return usagef("there is no command %q; `forge-cpd --help` lists them", strings.Join(args, " "))
			}
			return nil
		}
	}
	usageArgs(root)
	return root
}

// usageArgs makes a wrong number of arguments a usage error with the command's own line.
func usageArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			var told *exitError
			switch {
			case err == nil || errors.As(err, &told):
				return err
			case !c.HasParent(): // cobra's own words say the same of a command and of an argument
				return usagef("there is no command %q; `forge-cpd --help` lists them", args[0])
			case strings.HasPrefix(err.Error(), "unknown command"):
				return usagef("`%s` takes no argument, and got %q\nUsage: %s", c.CommandPath(), args[0], c.UseLine())
			}
			return usagef("%w\nUsage: %s", err, c.UseLine())
		}
	}
	for _, c := range cmd.Commands() {
		usageArgs(c)
	}
}

// group is a command that only holds others.
func group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("`%s` has no command %q\nRun `%s --help` for the list.", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	g.AddCommand(cmds...)
	return g
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/daemon/config"
)

func newConfigCmd(a *app) *cobra.Command {
	return group("config", "check, show and describe the configuration", configCheckCmd(a), configShowCmd(a), configSchemaCmd(a))
}

func configCheckCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "say whether a configuration is right",
		Long: `Reads a configuration as the daemon would and names each mistake with its file, line and
what would be right. Exit code 0: right; 1: not.`,
		Example: "  forge-cpd config check\n  forge-cpd config check ./new.yaml && mv new.yaml ~/.config/forge-cpd/config.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			flags := a.flags
			if len(args) == 1 {
				flags.Config = args[0]
			}
			_, p, err := config.Resolve(flags)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"valid": true, "config": p.Config})
			}
			if p.Config == "" {
				a.say("there is no configuration file; the defaults are right")
				return nil
			}
			_, err = fmt.Fprintf(a.stdout, "%s is right\n", p.Config)
			return err
		},
	}
}

func configShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "print the configuration as it stands, defaults included",
		Long:    "Prints every key with the value that a daemon started now would use. A password in storage.url is left out.",
		Example: "  forge-cpd config show > config.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, _, err := config.Resolve(a.flags)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(c)
			}
			_, err = a.stdout.Write(c.YAML())
			return err
		},
	}
}

func configSchemaCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "print the configuration's JSON Schema",
		Example: "  forge-cpd config schema > forge-cpd.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.printRaw(config.Schema)
		},
	}
}

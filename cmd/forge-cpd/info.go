package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newPathsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:       "paths [socket|data|config]",
		Short:     "say where socket, data and configuration are, and why",
		Example:   "  forge-cpd paths\n  nc -U -N \"$(forge-cpd paths socket)\"",
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"socket", "data", "config"},
		RunE: func(_ *cobra.Command, args []string) error {
			_, p, err := config.Resolve(a.flags)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				_, err := fmt.Fprintln(a.stdout, map[string]string{"socket": p.Socket, "data": p.DataDir, "config": p.Config}[args[0]])
				return err
			}
			if a.json {
				return a.printJSON(p)
			}
			file := p.Config
			if file == "" {
				file = "none: the defaults"
			}
			return fields(a.stdout, a.style(),
				"socket", fmt.Sprintf("%s  (%s)", p.Socket, p.SocketFrom),
				"data", fmt.Sprintf("%s  (%s)", p.DataDir, p.DataDirFrom),
				"config", fmt.Sprintf("%s  (%s)", file, p.ConfigFrom))
		},
	}
}

func newVersionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "say which version this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string  `json:"version"`
				API      rpc.API `json:"api"`
				Go       string  `json:"go"`
				Revision string  `json:"revision,omitempty"`
			}{Version: version, API: rpc.APIVersion, Go: runtime.Version()}
			if b, ok := debug.ReadBuildInfo(); ok {
				for _, s := range b.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			if a.json {
				return a.printJSON(v)
			}
			_, err := fmt.Fprintf(a.stdout, "forge-cpd %s (API %d.%d, %s)\n", v.Version, v.API.Major, v.API.Minor, v.Go)
			return err
		},
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func newCallCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "call METHOD [PARAMS]",
		Short: "call any method of the API",
		Long: `Calls a method and prints its result as it came. PARAMS is a JSON object, or - for standard
input. An error of the daemon's is printed to stderr as the JSON object that it sent: code, message
and data; the exit code is as for the other commands. ` + "`forge-cpd call rpc.discover`" + ` lists the methods.`,
		Example: `  forge-cpd call daemon.info
  forge-cpd call checkpoint.list '{"key": "my-agent", "limit": 5}'
  forge-cpd call session.create - < params.json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
			var params any
			if len(args) == 2 {
				text := []byte(args[1])
				if args[1] == "-" {
					var err error
					if text, err = io.ReadAll(a.stdin); err != nil {
						return err
					}
				}
				if !json.Valid(text) {
					return usagef("PARAMS is no JSON: %.80s", text)
				}
				params = json.RawMessage(text)
			}
			raw, err := c.Call(ctx, args[0], params)
			var e *checkpoint.Error
			if errors.As(err, &e) {
				return a.callError(e)
			}
			return a.rawOr(raw, err)
		}),
	}
}

// callError prints the wire's error object.
func (a *app) callError(e *checkpoint.Error) error {
	w := rpc.ToWire(e)
	if code, ok := e.Data["code"].(int64); ok { // one that this version does not know
		w.Code = code
	}
	out := json.NewEncoder(a.stderr)
	out.SetEscapeHTML(false)
	if err := out.Encode(w); err != nil {
		return err
	}
	return &exitError{code: exitCode(e)}
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

func newExportCmd(a *app) *cobra.Command {
	var out string
	var dryRun bool
	var since uint64
	p := rpc.ExportParams{}
	cmd := &cobra.Command{
		Use:   "export [SESSION]",
		Short: "write checkpoints as a stream that import takes",
		Long: `Writes one session, or the whole store, one page of JSON a line: checkpoints with their
annotations, sessions, and captured files. Importing it into an empty store gives the same
ids, numbers, times and bytes. Move it as bytes: checksums are over them.`,
		Example: `  forge-cpd export --out all.jsonl
  forge-cpd export my-agent | zstd > my-agent.jsonl.zst
  forge-cpd export --since 12000 > newer.jsonl`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "write to this `FILE`, whole or not at all")
	f.Uint64Var(&since, "since", 0, "only checkpoints after this sequence `NUMBER`")
	f.BoolVar(&dryRun, "dry-run", false, "say how much it would be, and write nothing")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) == 1 {
			var err error
			if p.SessionRef, err = sessionRef(ctx, c, args[0]); err != nil {
				return err
			}
		}
		if since > 0 {
			p.Cursor = storage.ExportAfter(since)
		}
		if out == "" && !dryRun {
			return a.exportTo(ctx, c, p, a.stdout)
		}
		if dryRun {
			return a.exportTo(ctx, c, p, io.Discard)
		}
		return writeStream(out, func(w io.Writer) error { return a.exportTo(ctx, c, p, w) })
	})
	return cmd
}

func (a *app) exportTo(ctx context.Context, c *client.Client, p rpc.ExportParams, w io.Writer) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	bar := a.progress()
	defer bar.done()
	var count exportCount
	for page, err := range c.Export(ctx, p) {
		if err != nil {
			return err
		}
		if err := count.add(page); err != nil {
			return err
		}
		if _, err := buf.Write(page); err != nil {
			return err
		}
		if err := buf.WriteByte('\n'); err != nil {
			return err
		}
		bar.tell("exported %s, %s", plural(count.checkpoints, "checkpoint"), size(count.bytes))
	}
	bar.done()
	if err := buf.Flush(); err != nil {
		return err
	}
	a.say("exported %s and %s, %s", plural(count.sessions, "session"), plural(count.checkpoints, "checkpoint"), size(count.bytes))
	return nil
}

// exportCount counts what went by, without decoding it.
type exportCount struct {
	checkpoints, sessions int
	bytes                 int64
}

func (n *exportCount) add(page json.RawMessage) error {
	var p struct {
		Checkpoints []json.RawMessage `json:"checkpoints"`
		Sessions    []json.RawMessage `json:"sessions"`
	}
	if err := json.Unmarshal(page, &p); err != nil {
		return fmt.Errorf("a page of the export cannot be read: %w", err)
	}
	n.checkpoints += len(p.Checkpoints)
	n.sessions += len(p.Sessions)
	n.bytes += int64(len(page)) + 1
	return nil
}

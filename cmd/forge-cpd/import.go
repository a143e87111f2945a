package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// splitPages above this many bytes: a request may have 32 MiB.
const splitPages = 16 << 20

func newImportCmd(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE|-",
		Short: "take in what export wrote",
		Long: `Takes in an export of forge-cpd, or one of forge-reasoning 0.1. What is there already is
skipped, so importing twice changes nothing; an entry that does not match its checksum is
named and left out, and the exit code is 5. --dry-run verifies every entry and, when a daemon
runs, says how many are there already; it starts none and changes nothing.`,
		Example: "  forge-cpd import all.jsonl\n  zstd -dc my-agent.jsonl.zst | forge-cpd import -",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "read and count, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in, name := a.stdin, "standard input"
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return missingFile(err)
			}
			defer f.Close()
			in, name = f, args[0]
		}
		if dryRun {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.checkImport(ctx, in, name)
		}
		return a.clientCmd(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.importFrom(ctx, c, in, name)
		})(cmd, args)
	}
	return cmd
}

// eachPage hands over the pages of a file, as the bytes that they are.
func eachPage(in io.Reader, name string, f func(page json.RawMessage) error) error {
	d := json.NewDecoder(in)
	for n := 1; ; n++ {
		var page json.RawMessage
		if err := d.Decode(&page); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s, page %d, is no JSON at byte %d: %w: it takes what `forge-cpd export` wrote", name, n, d.InputOffset(), err)
		}
		if err := f(page); err != nil {
			return fmt.Errorf("%s, page %d: %w", name, n, err)
		}
	}
}

// checkImport is --dry-run: it verifies every entry and, when a daemon answers, says which
// are there already.
func (a *app) checkImport(ctx context.Context, in io.Reader, name string) error {
	there, err := a.whatIsThere(ctx)
	if err != nil {
		return err
	}
	r := importCheck{Rejected: []storage.Rejected{}, Asked: there != nil}
	bar := a.progress()
	defer bar.done()
	err = eachPage(in, name, func(page json.RawMessage) error {
		p, err := storage.CheckPage(page)
		if err != nil {
			return err
		}
		r.Sessions += p.Sessions
		r.Bytes += int64(len(page)) + 1
		r.Rejected = append(r.Rejected, p.Rejected...)
		for _, e := range p.Checkpoints {
			r.Checkpoints++
			if there[e.ID] {
				r.Skipped++
			}
		}
		bar.tell("read %s", plural(r.Checkpoints, "checkpoint"))
		return nil
	})
	bar.done()
	if err == nil && a.json {
		err = a.printJSON(r)
	} else if err == nil {
		err = a.printCheck(r)
	}
	if err == nil && len(r.Rejected) > 0 {
		err = &exitError{code: exitDamaged}
	}
	return err
}

// importCheck is what --dry-run found; Skipped is known when a daemon was asked.
type importCheck struct {
	Sessions    int                `json:"sessions"`
	Checkpoints int                `json:"checkpoints"`
	Bytes       int64              `json:"bytes"`
	Asked       bool               `json:"asked_daemon"`
	Skipped     int                `json:"skipped"`
	Rejected    []storage.Rejected `json:"rejected"`
}

func (a *app) printCheck(r importCheck) error {
	skipped := "; no daemon was asked which of them are there"
	if r.Asked {
		skipped = fmt.Sprintf(", of which %d are there already", r.Skipped)
	}
	if _, err := fmt.Fprintf(a.stdout, "%s and %s, %s%s; %d would be rejected; nothing was changed\n",
		plural(r.Sessions, "session"), plural(r.Checkpoints, "checkpoint"), size(r.Bytes), skipped, len(r.Rejected)); err != nil {
		return err
	}
	for _, x := range r.Rejected {
		if _, err := fmt.Fprintf(a.stdout, "  %s: %s\n", x.CheckpointID, plain(x.Problem)); err != nil {
			return err
		}
	}
	return nil
}

// whatIsThere asks the daemon for its checkpoints; nil when none runs.
func (a *app) whatIsThere(ctx context.Context) (map[checkpoint.ID]bool, error) {
	_, paths, err := config.ResolveClient(a.flags)
	if err != nil {
		return nil, err
	}
	c := &client.Client{Socket: paths.Socket, Handshake: a.timeout}
	defer c.Close()
	there := map[checkpoint.ID]bool{}
	for s, err := range c.AllCheckpoints(ctx, rpc.CheckpointListParams{Limit: 1000}) {
		if errors.Is(err, client.ErrNotRunning) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		there[s.ID] = true
	}
	return there, nil
}

func (a *app) importFrom(ctx context.Context, c *client.Client, in io.Reader, name string) error {
	total := rpc.ImportResult{Rejected: []rpc.Rejected{}}
	bar := a.progress()
	defer bar.done()
	err := eachPage(in, name, func(page json.RawMessage) error {
		return splitPage(page, splitPages, func(part json.RawMessage) error {
			r, err := c.Import(ctx, part)
			if err != nil {
				return err
			}
			total.Imported += r.Imported
			total.Skipped += r.Skipped
			total.Renumbered += r.Renumbered
			total.Rejected = append(total.Rejected, r.Rejected...)
			bar.tell("imported %s", plural(total.Imported, "checkpoint"))
			return nil
		})
	})
	bar.done()
	if a.json {
		err = errors.Join(err, a.printJSON(total))
	} else {
		a.say("imported %s (%d renumbered), skipped %d that were there, rejected %d",
			plural(total.Imported, "checkpoint"), total.Renumbered, total.Skipped, len(total.Rejected))
		for _, r := range total.Rejected {
			a.say("  rejected %s: %s", r.CheckpointID, plain(r.Problem))
		}
	}
	if err == nil && len(total.Rejected) > 0 {
		err = &exitError{code: exitDamaged}
	}
	return err
}

// splitPage cuts a page that is too large for one request between its checkpoints. No
// byte of a checkpoint is changed.
func splitPage(page json.RawMessage, limit int, f func(json.RawMessage) error) error {
	if len(page) <= limit {
		return f(page)
	}
	var rest []byte // the page's other members, without its braces
	var entries [][]byte
	err := rawjson.RawMembers(page, func(key, value []byte) error {
		if string(key) == `"checkpoints"` {
			return rawjson.Elements(value, func(_ int, e []byte) error {
				entries = append(entries, e)
				return nil
			})
		}
		rest = append(append(append(append(rest, ','), key...), ':'), value...)
		return nil
	})
	if err != nil {
		return err
	}
	for first := true; first || len(entries) > 0; first = false {
		part := []byte(`{"checkpoints":[`)
		n := 0
		for n < len(entries) && (n == 0 || len(part)+len(entries[n])+len(rest) < limit) {
			if n > 0 {
				part = append(part, ',')
			}
			part = append(part, entries[n]...)
			n++
		}
		entries = entries[n:]
		part = append(append(append(part, ']'), rest...), '}')
		if err := f(part); err != nil {
			return err
		}
	}
	return nil
}

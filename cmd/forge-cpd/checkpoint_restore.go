package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

type restoreFlags struct {
	out, files    string
	force, noHead bool
}

func restoreCmd(a *app) *cobra.Command {
	r := restoreFlags{}
	cmd := &cobra.Command{
		Use:   "restore CHECKPOINT",
		Short: "give a state back, and go on from it",
		Long: `Verifies a checkpoint, writes its state's bytes to standard output or --out, and makes it
the session's head: what is made next grows from there (--no-move-head only reads).

With --files, the files that the checkpoint captured are written below DIR under their
recorded paths, never outside of it; a file that was changed after it was captured is left
alone unless --force.`,
		Example: `  forge-cpd checkpoint restore @last > state.json
  forge-cpd checkpoint restore '#42' --out state.json
  forge-cpd checkpoint restore '#42' --files restored/`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVarP(&r.out, "out", "o", "", "write the state to this `FILE`, whole or not at all")
	f.StringVar(&r.files, "files", "", "write the captured files below this `DIR`")
	f.BoolVar(&r.force, "force", false, "with --files: overwrite newer files too")
	f.BoolVar(&r.noHead, "no-move-head", false, "leave the session's head where it is")
	cmd.RunE = a.clientCmd(func(ctx context.Context, c *client.Client, args []string) error {
		id, err := checkpointArg(ctx, c, args[0])
		if err != nil {
			return err
		}
		session, err := sessionOf(ctx, c, id)
		if err != nil {
			return err
		}
		move := !r.noHead
		raw, err := c.Call(ctx, "checkpoint.restore", rpc.RestoreParams{SessionRef: client.ByID(session), CheckpointID: id, MoveHead: &move})
		if err != nil {
			return err
		}
		var got client.Restored
		if err := json.Unmarshal(raw, &got); err != nil {
			return err
		}
		if err := a.putState(raw, got.State, r.out); err != nil {
			return err
		}
		if r.out != "" {
			a.say("wrote the state of #%d to %s, %s", got.Checkpoint.Sequence, r.out, size(int64(len(got.State))))
		}
		if r.files == "" {
			return nil
		}
		return a.restoreFiles(ctx, c, &got.Checkpoint, r)
	})
	return cmd
}

// putState writes the state, or with --json the whole answer, to where it was asked for.
func (a *app) putState(raw, state []byte, out string) error {
	switch {
	case out != "":
		if err := writeWhole(out, state); err != nil {
			return err
		}
		if a.json {
			return a.printRaw(raw)
		}
		return nil
	case a.json:
		return a.printRaw(raw)
	}
	return a.writeState(state)
}

// restoreFiles writes the captured files below a directory. os.Root keeps every path
// inside it, symbolic links included.
func (a *app) restoreFiles(ctx context.Context, c *client.Client, cp *checkpoint.Checkpoint, r restoreFlags) error {
	if err := os.MkdirAll(r.files, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.files)
	if err != nil {
		return err
	}
	defer root.Close()
	var kept []string
	written := 0
	for _, f := range cp.Context.Files {
		name := strings.TrimLeft(filepath.Clean(f.Path), "/")
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the captured file %q would be outside of %s: take it alone by `forge-cpd call checkpoint.file`", f.Path, r.files)
		}
		if info, err := root.Stat(name); err == nil && !r.force && info.ModTime().After(f.ModifiedAt) && !sameAs(root, name, f) {
			kept = append(kept, name)
			continue
		}
		if err := restoreFile(ctx, c, root, cp.ID, f, name); err != nil {
			return fmt.Errorf("restoring %s below %s: %w", f.Path, r.files, err)
		}
		written++
	}
	a.say("wrote %s below %s", plural(written, "file"), r.files)
	if len(kept) > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("left %s alone, changed since the checkpoint: %s; --force overwrites", plural(len(kept), "newer file"), strings.Join(kept, ", "))}
	}
	return nil
}

func restoreFile(ctx context.Context, c *client.Client, root *os.Root, id checkpoint.ID, f checkpoint.File, name string) error {
	got, err := c.File(ctx, id, f.Path)
	if err != nil {
		return err
	}
	var content []byte
	switch {
	case got.Content != nil:
		content = []byte(*got.Content)
	case got.ContentBase64 != nil:
		content = *got.ContentBase64
	}
	mode, err := strconv.ParseUint(got.Mode, 8, 9)
	if err != nil {
		mode = 0o600
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	// In two steps, so that a crash leaves the old file or the new one.
	tmp := filepath.Join(filepath.Dir(name), ".forge-cpd-"+base64.RawURLEncoding.EncodeToString(id[10:])+".tmp")
	if err := root.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	err = errors.Join(root.Chmod(tmp, fs.FileMode(mode)), root.Chtimes(tmp, f.ModifiedAt, f.ModifiedAt))
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	return nil
}

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
)

const resumeLong = `resume gives an agent its conversation back. It takes the transcript that the checkpoint
holds, verifies it, cuts it after the last complete tool result, writes it under a new
session id beside the place where it was recorded, and prints the command that goes on
from there. The original, if it is still there, is not touched; resuming again makes
another session.

With --recap it prints a short text of what was done instead, for an agent that cannot
resume.`

func newResumeCmd(a *app) *cobra.Command {
	var r resumer
	var run, recap bool
	cmd := &cobra.Command{
		Use:     "resume CHECKPOINT",
		Short:   "give an agent its conversation back",
		Long:    resumeLong,
		Example: "  forge-cpd resume @last\n  forge-cpd resume @last --exec\n  claude \"$(forge-cpd resume @last --recap)\"",
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.BoolVar(&run, "exec", false, "run the agent instead of printing its command")
	f.BoolVar(&recap, "recap", false, "print what was done, in under 9,000 characters")
	f.BoolVar(&r.tail, "keep-tail", false, "keep the words after the last tool result as well")
	f.StringVar(&r.path, "file", "", "the transcript's `PATH` as recorded, where a checkpoint holds several")
	cmd.MarkFlagsMutuallyExclusive("exec", "recap")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var todo *resumed
		err := a.clientCmd(func(ctx context.Context, c *client.Client, args []string) (err error) {
			r.c = c
			if err := r.load(ctx, args[0]); err != nil {
				return err
			}
			if recap {
				return a.recap(ctx, &r)
			}
			todo, err = r.write(time.Now())
			return err
		})(cmd, args)
		switch {
		case err != nil || todo == nil:
			return err
		case run:
			return todo.exec()
		case a.json:
			return a.printJSON(todo)
		}
		a.say("%s: %s of %s, with %s", todo.Path, size(int64(todo.Bytes)), size(int64(todo.Recorded)), plural(todo.Calls, "finished tool call"))
		if todo.note != "" {
			a.say("%s", todo.note)
		}
		_, err = fmt.Fprintln(a.stdout, todo.Command)
		return err
	}
	return cmd
}

// resumer finds the conversation in a checkpoint.
type resumer struct {
	c    *client.Client
	tail bool
	path string // "": the session's own

	cp      *checkpoint.Checkpoint
	session *checkpoint.Session
	format  string
	file    checkpoint.File
	data    []byte
}

// resumed is what resume made.
type resumed struct {
	Agent     string            `json:"agent"`
	SessionID string            `json:"session_id"`
	Path      string            `json:"path"`
	Bytes     int               `json:"bytes"`
	Recorded  int               `json:"recorded_bytes"`
	Calls     int               `json:"tool_calls"`
	Dir       string            `json:"working_dir,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Argv      []string          `json:"argv"`
	Command   string            `json:"command"`
	note      string
}

// load reads the checkpoint and the transcript that it holds.
func (r *resumer) load(ctx context.Context, arg string) error {
	id, err := checkpointArg(ctx, r.c, arg)
	if err != nil {
		return err
	}
	if r.cp, err = r.c.Checkpoint(ctx, id); err != nil {
		return err
	}
	if r.session, err = r.c.Session(ctx, client.ByID(r.cp.SessionID)); err != nil {
		return err
	}
	return r.find(ctx)
}

// find picks the transcript among the checkpoint's files: the one named, the one of the
// agent's session, or the only one.
func (r *resumer) find(ctx context.Context) error {
	_, agentSession, _ := strings.Cut(r.session.Key, ":")
	var found []checkpoint.File
	for _, f := range r.cp.Context.Files {
		switch {
		case r.path != "":
			if f.Path != r.path {
				continue
			}
		case filepath.Ext(f.Path) != ".jsonl" || filepath.Base(filepath.Dir(f.Path)) == "subagents":
			continue
		}
		data, err := r.content(ctx, f)
		if err != nil {
			return err
		}
		format := transcript.Guess(data)
		if format == "" {
			continue
		}
		own := agentSession != "" && transcript.SessionID(format, f.Path, data) == agentSession
		if found = append(found, f); len(found) == 1 || own {
			r.format, r.file, r.data = format, f, data
		}
		if own {
			return nil
		}
	}
	if len(found) > 1 {
		var paths strings.Builder
		for _, f := range found {
			paths.WriteString("\n  " + f.Path)
		}
		return usagef("checkpoint %s holds %d transcripts, say which one with --file:%s", r.cp.ID, len(found), paths.String())
	}
	return nil
}

// content reads one file and compares it with the sum in the checkpoint.
func (r *resumer) content(ctx context.Context, f checkpoint.File) ([]byte, error) {
	got, err := r.c.File(ctx, r.cp.ID, f.Path)
	if err != nil {
		return nil, fmt.Errorf("reading %s from checkpoint %s: %w", f.Path, r.cp.ID, err)
	}
	var data []byte
	switch {
	case got.Content != nil:
		data = []byte(*got.Content)
	case got.ContentBase64 != nil:
		data = *got.ContentBase64
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, checkpoint.Errorf(checkpoint.KindCorrupt, "%s came back with other content than checkpoint %s recorded: run `forge-cpd checkpoint validate %s`", f.Path, r.cp.ID, r.cp.ID)
	}
	return data, nil
}

func (r *resumer) none() error {
	return notFoundf("checkpoint %s holds no transcript of an agent that resume knows (it holds %s): take another checkpoint of the session (`forge-cpd log %s`), or --recap",
		r.cp.ID, plural(len(r.cp.Context.Files), "file"), r.cp.SessionID)
}

// write makes the copy that the agent can go on from.
func (r *resumer) write(now time.Time) (*resumed, error) {
	if r.data == nil {
		return nil, r.none()
	}
	cut := transcript.Cut(r.format, r.data, r.tail)
	if len(cut) == 0 {
		return nil, notFoundf("the transcript in checkpoint %s ends before anything was finished: take a later one", r.cp.ID)
	}
	old := transcript.SessionID(r.format, r.file.Path, r.data)
	out := &resumed{Agent: r.format, SessionID: transcript.NewSessionID(r.format), Recorded: len(r.data)}
	data, err := transcript.WithSession(r.format, cut, old, out.SessionID)
	if err != nil {
		return nil, err
	}
	name, err := transcript.FileName(r.format, out.SessionID, now)
	if err != nil {
		return nil, err
	}
	done := transcript.Read(r.format, cut)
	out.Path, out.Bytes, out.Calls = filepath.Join(filepath.Dir(r.file.Path), name), len(data), done.Calls
	if err := writeNew(out.Path, data, r.file.Mode); err != nil {
		return nil, fmt.Errorf("writing the conversation beside its old place: %w", err)
	}
	out.Dir = r.workingDir(done)
	out.command(r.format)
	return out, nil
}

func (r *resumer) workingDir(done transcript.Done) string {
	return cmp.Or(r.session.Labels["cwd"], done.CWD, r.cp.Context.WorkingDir)
}

// writeNew writes a file that must not be there yet. An agent's folder that was deleted
// is made anew, readable by its owner alone.
func writeNew(path string, data []byte, mode string) (err error) {
	var perm fs.FileMode = 0o600
	if _, err := fmt.Sscanf(mode, "%o", &perm); err != nil {
		perm = 0o600
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm.Perm()|0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(dir)
}

// command is what goes on from the file. The agent must look for its sessions where this
// one was recorded, so a root other than the present one is named.
func (r *resumed) command(format string) {
	root, variable := "", ""
	switch format {
	case transcript.ClaudeCode:
		r.Argv = []string{"claude", "--resume", r.SessionID}
		root, variable = above(r.Path, "projects", 2), "CLAUDE_CONFIG_DIR"
	case transcript.Codex:
		r.Argv = []string{"codex", "resume", r.SessionID}
		root, variable = above(r.Path, "sessions", 4), "CODEX_HOME"
	default:
		r.Argv = []string{"gemini", "--resume", r.SessionID}
	}
	if variable != "" && root != "" {
		agent := map[string]string{transcript.ClaudeCode: "claude-code", transcript.Codex: "codex"}[format]
		if now, err := settingsOf[agent].file(os.Getenv); err != nil || filepath.Dir(now) != root {
			r.Env = map[string]string{variable: root}
		}
	}
	words := make([]string, 0, len(r.Argv)+1)
	for name, value := range r.Env {
		words = append(words, name+"="+shellQuote(value))
	}
	for _, w := range r.Argv {
		words = append(words, shellQuote(w))
	}
	r.Command = strings.Join(words, " ")
	if r.Dir != "" {
		r.Command = "cd " + shellQuote(r.Dir) + " && " + r.Command
		if info, err := os.Stat(r.Dir); err != nil || !info.IsDir() {
			r.note = "the directory it worked in is gone: make " + r.Dir + " again before you run this"
		}
	}
}

// above gives the directory that holds the one called name, which is n directories above
// a file; "" when the path is not of that shape.
func above(path, name string, n int) string {
	for range n {
		path = filepath.Dir(path)
	}
	if filepath.Base(path) != name {
		return ""
	}
	return filepath.Dir(path)
}

// exec becomes the agent.
func (r *resumed) exec() error {
	if r.Dir != "" {
		if err := os.Chdir(r.Dir); err != nil {
			return fmt.Errorf("going to where the agent worked: %w: the conversation is at %s", err, r.Path)
		}
	}
	path, err := exec.LookPath(r.Argv[0])
	if err != nil {
		return fmt.Errorf("%w: install it, or run: %s", err, r.Command)
	}
	for name, value := range r.Env {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return fmt.Errorf("running %s: %w", path, syscall.Exec(path, r.Argv, os.Environ()))
}

// recap prints what was done, as far as the checkpoint tells.
func (a *app) recap(ctx context.Context, r *resumer) error {
	done := transcript.Read(r.format, r.data)
	agent := cmp.Or(r.session.Labels["agent"], r.format, "agent")
	if r.data == nil {
		var err error
		if done, err = r.fromCheckpoints(ctx); err != nil {
			return err
		}
	}
	done.CWD = r.workingDir(done)
	text := done.Recap(agent, r.cp.Timestamp.UTC().Format(time.RFC3339), r.cp.Context.Git, gitNow(ctx, done.CWD))
	if a.json {
		return a.printJSON(map[string]string{"recap": text})
	}
	_, err := fmt.Fprint(a.stdout, text)
	return err
}

// gitNow looks at a work tree as it is; nil when it is none.
func gitNow(ctx context.Context, dir string) *checkpoint.Git {
	if dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "--no-optional-locks"}, args...)...)
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	head, err := git("rev-parse", "--verify", "HEAD")
	if err != nil {
		return nil
	}
	g := &checkpoint.Git{Head: head}
	if branch, err := git("symbolic-ref", "--short", "-q", "HEAD"); err == nil {
		g.Branch = branch
	}
	status, err := git("status", "--porcelain")
	g.Dirty = err == nil && status != ""
	return g
}

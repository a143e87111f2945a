package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func newHookInstallCmd(a *app, install bool) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:     "install AGENT",
		Short:   "put the hook into an agent's settings",
		Long:    "install adds the hook to the agent's own settings file. Everything else in the file stays as it is. It shows the change and asks; with no terminal it needs --yes.",
		Example: "  forge-cpd hook install claude-code\n  forge-cpd hook install codex --yes",
	}
	if !install {
		cmd.Use, cmd.Short = "uninstall AGENT", "take the hook out of an agent's settings"
		cmd.Long = "uninstall removes what install added, and nothing else. It shows the change and asks; with no terminal it needs --yes."
		cmd.Example = "  forge-cpd hook uninstall claude-code"
	}
	cmd.Args = cobra.ExactArgs(1)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(_ *cobra.Command, args []string) error { return a.editSettings(args[0], install, yes) }
	return cmd
}

func (a *app) editSettings(agent string, install, yes bool) error {
	s, ok := settingsOf[agent]
	if !ok {
		return hookUsage(fmt.Errorf("there is no hook for %q: use claude-code, codex, gemini or cursor", agent))
	}
	path, err := s.file(os.Getenv)
	if err != nil {
		return err
	}
	// Settings are often links into a folder of dotfiles: the file behind is edited.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the settings of %s: %w", agent, err)
	}
	var edited []byte
	if install {
		edited, err = s.installed(old, agent, a.hookCommand(agent))
	} else if edited = old; len(bytes.TrimSpace(old)) > 0 {
		edited, err = s.uninstalled(old, agent)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be edited: %w: mend it, or add the command `%s` to its hooks by hand", path, err, a.hookCommand(agent))
	}
	if bytes.Equal(old, edited) {
		a.say("%s is as it should be: nothing to change", path)
		return nil
	}
	a.say("%s:", path)
	if _, err := fmt.Fprint(a.stdout, lineDiff(string(old), string(edited))); err != nil {
		return err
	}
	if !yes {
		if err := a.confirm("Write this?"); err != nil {
			return err
		}
	}
	err = os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = writeWhole(path, edited)
	}
	if err != nil {
		return fmt.Errorf("writing the settings of %s: %w", agent, err)
	}
	a.say("written")
	if install && s.note != "" {
		a.say("%s", s.note)
	}
	return nil
}

// hookCommand is what the agent is to run: by its name when that is this program, else by
// its path, with the flags that this command was given.
func (a *app) hookCommand(agent string) string {
	words := []string{"forge-cpd"}
	if self, err := os.Executable(); err == nil && !isInPath(self) {
		words[0] = self
	}
	for _, f := range [][2]string{{"--config", a.flags.Config}, {"--socket", a.flags.Socket}, {"--data-dir", a.flags.DataDir}} {
		if f[1] != "" {
			if abs, err := filepath.Abs(f[1]); err == nil {
				f[1] = abs
			}
			words = append(words, f[0], f[1])
		}
	}
	if a.noStart {
		words = append(words, "--no-start")
	}
	for i, w := range words {
		words[i] = shellQuote(w)
	}
	return strings.Join(append(words, "hook", agent), " ")
}

func isInPath(self string) bool {
	found, err := exec.LookPath("forge-cpd")
	if err != nil {
		return false
	}
	a, errA := os.Stat(self)
	b, errB := os.Stat(found)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func shellQuote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:@%,", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lineDiff shows what changes between two texts, with three lines around each change.
func lineDiff(a, b string) string {
	x, y := strings.SplitAfter(a, "\n"), strings.SplitAfter(b, "\n")
	var out []string // each with its mark: ' ', '-' or '+'
	for i, j := 0, 0; i < len(x) || j < len(y); {
		if i < len(x) && j < len(y) && x[i] == y[j] {
			out = append(out, " "+x[i])
			i, j = i+1, j+1
			continue
		}
		di, dj := nextCommon(x[i:], y[j:])
		for range di {
			out = append(out, "-"+x[i])
			i++
		}
		for range dj {
			out = append(out, "+"+y[j])
			j++
		}
	}
	near := func(i int) bool {
		for k := max(0, i-3); k < min(len(out), i+4); k++ {
			if out[k][0] != ' ' {
				return true
			}
		}
		return false
	}
	var text strings.Builder
	gap := false
	for i, line := range out {
		if len(line) == 1 {
			continue // what SplitAfter leaves behind the last line feed
		}
		if !near(i) {
			if !gap {
				text.WriteString("  ...\n")
			}
			gap = true
			continue
		}
		gap = false
		text.WriteString(line)
		if !strings.HasSuffix(line, "\n") {
			text.WriteString("\n")
		}
	}
	return text.String()
}

// nextCommon gives how many lines of each side come before the nearest line that both have.
func nextCommon(x, y []string) (int, int) {
	for d := 1; d < len(x)+len(y); d++ {
		for i := max(0, d-len(y)+1); i <= d && i < len(x); i++ {
			if j := d - i; j < len(y) && x[i] == y[j] && strings.TrimSpace(x[i]) != "" {
				return i, j
			}
		}
	}
	return len(x), len(y)
}

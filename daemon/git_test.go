package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A repository may name programs in its configuration; git runs them for whoever asks it.
func TestGitRunsNothingOfTheRepository(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is missing: install the package git")
	}
	dir, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=n", "-c", "user.email=e@localhost"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q", "-b", "main")
	write("file", "a\n")
	write(".gitattributes", "* filter=odd.name=x\n")
	git("add", ".")
	git("commit", "-q", "-m", "m")
	program := "echo ran >>'" + ran + "'; cat"
	git("config", "filter.odd.name=x.clean", program)
	git("config", "filter.odd.name=x.required", "true")
	git("config", "core.fsmonitor", program)
	// The same content with another time: git has to compare it, through the filter.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "file"), old, old); err != nil {
		t.Fatal(err)
	}
	g, err := readGit(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if g.Branch != "main" || len(g.Head) != 40 || g.Dirty {
		t.Errorf("%+v", g)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program of the repository was run")
	}
	write("file", "b\n")
	if g, err = readGit(t.Context(), dir); err != nil || !g.Dirty {
		t.Errorf("after a change: %+v, %v", g, err)
	}
	git("status") // the proof that there was something to run
	if _, err := os.Stat(ran); err != nil {
		t.Errorf("the repository's program is not run by git either: %v", err)
	}
	if _, err := readGit(t.Context(), t.TempDir()); err == nil {
		t.Error("a directory that is no work tree has a state")
	}
}

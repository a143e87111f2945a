package watch

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// told collects what a target was told.
type told struct {
	mu    sync.Mutex
	fires int
	paths map[string]bool
	at    []time.Time
}

func (c *told) fire(paths []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paths == nil {
		c.paths = map[string]bool{}
	}
	c.fires++
	c.at = append(c.at, time.Now())
	for _, p := range paths {
		c.paths[p] = true
	}
}

func (c *told) has(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paths[path]
}

func (c *told) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fires
}

func run(t *testing.T, o Options) *Watcher {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	if o.VerifyEvery == 0 {
		o.VerifyEvery = time.Hour
	}
	if o.LockWait == 0 {
		o.LockWait = 30 * time.Second
	}
	w := New(o)
	must(t, w.Start())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// TestChanges makes a change and wants certain paths told and others not. That nothing is
// told is seen by a second watch on a file that is written last: news come in order.
func TestChanges(t *testing.T) {
	put := func(t *testing.T, path, content string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	for _, test := range []struct {
		name   string
		spec   Spec // Path is relative to the test's directory
		before func(t *testing.T, d string)
		do     func(t *testing.T, d string)
		want   []string
		not    []string
	}{
		{name: "a file is written", spec: Spec{Path: "a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/a.txt", "1"); put(t, d+"/b.txt", "1") },
			do:     func(t *testing.T, d string) { put(t, d+"/b.txt", "2"); put(t, d+"/a.txt", "2") },
			want:   []string{"a.txt"}, not: []string{"b.txt"}},
		{name: "chmod is no change", spec: Spec{Path: "a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/a.txt", "1") },
			do:     func(t *testing.T, d string) { must(t, os.Chmod(d+"/a.txt", 0o600)) },
			not:    []string{"a.txt"}},
		{name: "atomic saves, twice", spec: Spec{Path: "a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/a.txt", "1") },
			do: func(t *testing.T, d string) {
				for i := range 2 {
					put(t, d+"/a.txt.tmp", fmt.Sprint("new", i))
					must(t, os.Rename(d+"/a.txt.tmp", d+"/a.txt"))
				}
			},
			want: []string{"a.txt"}, not: []string{"a.txt.tmp"}},
		{name: "a file that is not there yet, mkdir -p", spec: Spec{Path: "x/y/z/a.txt"},
			do:   func(t *testing.T, d string) { put(t, d+"/x/y/z/a.txt", "1") },
			want: []string{"x/y/z/a.txt"}},
		{name: "deleted", spec: Spec{Path: "a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/a.txt", "1") },
			do:     func(t *testing.T, d string) { must(t, os.Remove(d+"/a.txt")) },
			want:   []string{"a.txt"}},
		{name: "renamed into place", spec: Spec{Path: "a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/b.txt", "1") },
			do:     func(t *testing.T, d string) { must(t, os.Rename(d+"/b.txt", d+"/a.txt")) },
			want:   []string{"a.txt"}},
		{name: "directory deleted and made again", spec: Spec{Path: "x/y/a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/x/y/b.txt", "1") },
			do: func(t *testing.T, d string) {
				must(t, os.RemoveAll(d+"/x"))
				put(t, d+"/x/y/a.txt", "2")
			},
			want: []string{"x/y/a.txt"}},
		{name: "directory renamed away and made again", spec: Spec{Path: "x/a.txt"},
			before: func(t *testing.T, d string) { put(t, d+"/x/a.txt", "1") },
			do: func(t *testing.T, d string) {
				must(t, os.Rename(d+"/x", d+"/old"))
				put(t, d+"/x/a.txt", "22")
			},
			want: []string{"x/a.txt"}},
		{name: "children of a directory", spec: Spec{Path: "x"},
			before: func(t *testing.T, d string) { put(t, d+"/x/a.txt", "1"); put(t, d+"/x/sub/b.txt", "1") },
			do: func(t *testing.T, d string) {
				put(t, d+"/x/sub/b.txt", "2")
				put(t, d+"/x/new.txt", "1")
			},
			want: []string{"x/new.txt"}, not: []string{"x/sub/b.txt"}},
		{name: "tree with new directories", spec: Spec{Path: "x", Recursive: true},
			before: func(t *testing.T, d string) { put(t, d+"/x/a.txt", "1") },
			do: func(t *testing.T, d string) {
				put(t, d+"/x/p/q/r/deep.txt", "1")
				put(t, d+"/x/a.txt", "2")
			},
			want: []string{"x/p/q/r/deep.txt", "x/a.txt"}},
		{name: "tree: a directory moved within", spec: Spec{Path: "x", Recursive: true},
			before: func(t *testing.T, d string) { put(t, d+"/x/p/q/a.txt", "1") },
			do: func(t *testing.T, d string) {
				must(t, os.Rename(d+"/x/p", d+"/x/r"))
				put(t, d+"/x/r/q/b.txt", "1")
			},
			want: []string{"x/p/q/a.txt", "x/r/q/a.txt", "x/r/q/b.txt"}},
		{name: "tree: a directory moved in", spec: Spec{Path: "x", Recursive: true},
			before: func(t *testing.T, d string) { put(t, d+"/x/a.txt", "1"); put(t, d+"/out/q/b.txt", "1") },
			do:     func(t *testing.T, d string) { must(t, os.Rename(d+"/out", d+"/x/in")) },
			want:   []string{"x/in/q/b.txt"}},
		{name: "tree: ignores", spec: Spec{Path: "x", Recursive: true, Ignore: []string{"*.log", "/build/"}},
			before: func(t *testing.T, d string) {
				put(t, d+"/x/.gitignore", "secret\n*.o\n!keep.o\n")
				put(t, d+"/x/.git/HEAD", "1")
				put(t, d+"/x/node_modules/m/i.js", "1")
			},
			do: func(t *testing.T, d string) {
				put(t, d+"/x/.git/HEAD", "2")
				put(t, d+"/x/node_modules/m/i.js", "2")
				put(t, d+"/x/sub/a.log", "1")
				put(t, d+"/x/build/a.txt", "1")
				put(t, d+"/x/sub/build/a.txt", "1")
				put(t, d+"/x/sub/secret/a.txt", "1")
				put(t, d+"/x/sub/a.o", "1")
				put(t, d+"/x/sub/keep.o", "1")
			},
			want: []string{"x/sub/build/a.txt", "x/sub/keep.o"},
			not:  []string{"x/.git/HEAD", "x/node_modules/m/i.js", "x/sub/a.log", "x/build/a.txt", "x/sub/secret/a.txt", "x/sub/a.o"}},
		{name: "tree: .gitignore changes", spec: Spec{Path: "x", Recursive: true},
			before: func(t *testing.T, d string) {
				put(t, d+"/x/.gitignore", "out/\n")
				put(t, d+"/x/out/a.txt", "1")
			},
			do: func(t *testing.T, d string) {
				put(t, d+"/x/.gitignore", "nothing\n")
			},
			want: []string{"x/.gitignore", "x/out/a.txt"}},
		{name: "glob in directories to come", spec: Spec{Path: "p/*app*/*.jsonl"},
			before: func(t *testing.T, d string) { put(t, d+"/p/none/x.jsonl", "1") },
			do: func(t *testing.T, d string) {
				put(t, d+"/p/none/y.jsonl", "1")
				put(t, d+"/p/my-app-1/x.txt", "1")
				put(t, d+"/p/my-app-1/s/x.jsonl", "1")
				put(t, d+"/p/my-app-1/x.jsonl", "1")
			},
			want: []string{"p/my-app-1/x.jsonl"}, not: []string{"p/none/y.jsonl", "p/my-app-1/x.txt", "p/my-app-1/s/x.jsonl"}},
		{name: "glob with **", spec: Spec{Path: "p/**/*.md"},
			do:   func(t *testing.T, d string) { put(t, d+"/p/a/b/c/x.md", "1"); put(t, d+"/p/y.md", "1") },
			want: []string{"p/a/b/c/x.md", "p/y.md"}},
		{name: "the file becomes a directory", spec: Spec{Path: "n"},
			do:   func(t *testing.T, d string) { put(t, d+"/n/a.txt", "1") },
			want: []string{"n/a.txt"}},
		{name: "through a link to a directory", spec: Spec{Path: "link/a.txt"},
			before: func(t *testing.T, d string) {
				put(t, d+"/real/a.txt", "1")
				must(t, os.Symlink(d+"/real", d+"/link"))
			},
			do:   func(t *testing.T, d string) { put(t, d+"/real/a.txt", "2") },
			want: []string{"link/a.txt"}},
		{name: "fifos and links are nothing", spec: Spec{Path: "x", Recursive: true},
			before: func(t *testing.T, d string) { put(t, d+"/x/a.txt", "1") },
			do: func(t *testing.T, d string) {
				must(t, syscall.Mkfifo(d+"/x/fifo", 0o600))
				must(t, os.Symlink("/etc/passwd", d+"/x/link"))
			},
			not: []string{"x/fifo", "x/link"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := t.TempDir()
			if test.before != nil {
				test.before(t, d)
			}
			w := run(t, Options{})
			var c, last told
			test.spec.Path = filepath.Join(d, test.spec.Path)
			_, err := w.Add(test.spec, Timing{}, c.fire)
			must(t, err)
			_, err = w.Add(Spec{Path: d + "/last"}, Timing{}, last.fire)
			must(t, err)
			test.do(t, d)
			for _, p := range test.want {
				eventually(t, p, func() bool { return c.has(filepath.Join(d, p)) })
			}
			put(t, d+"/last", "1")
			eventually(t, "last", func() bool { return last.has(d + "/last") })
			for _, p := range test.not {
				if c.has(filepath.Join(d, p)) {
					t.Errorf("told of %s", p)
				}
			}
		})
	}
}

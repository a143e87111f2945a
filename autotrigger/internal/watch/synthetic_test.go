package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// fake is a source that a test drives.
type fake struct {
	events chan fsnotify.Event
	errors chan error
	dirs   map[string]bool
	fail   func(dir string) error
	closed bool
}

func newFake() *fake {
	return &fake{events: make(chan fsnotify.Event, 100), errors: make(chan error, 1), dirs: map[string]bool{}}
}

func (f *fake) Add(dir string) error {
	if f.fail != nil {
		if err := f.fail(dir); err != nil {
			return err
		}
	}
	f.dirs[dir] = true // one watch, however often it is asked for, as the kernel has it
	return nil
}
func (f *fake) Remove(dir string) error { delete(f.dirs, dir); return nil }
func (f *fake) Close() error            { f.closed = true; return nil }
func (f *fake) open() (Source, error) {
	return Source{Notifier: f, Events: f.events, Errors: f.errors}, nil
}

// pause lets synthetic time pass, and all that is then due be done.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestDebounceAndLongestWait(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	must(t, os.WriteFile(path, nil, 0o600))
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := run(t, Options{Open: f.open})
		var c told
		_, err := w.Add(Spec{Path: path}, Timing{Debounce: 500 * time.Millisecond, MaxWait: 3 * time.Second}, c.fire)
		must(t, err)
		begin := time.Now()
		change := func() { f.events <- fsnotify.Event{Name: path, Op: fsnotify.Write} }
		change()
		pause(400 * time.Millisecond)
		change()
		pause(5 * time.Second) // told at 0.9 s
		for range 20 {         // busy from 5.4 s: told at 8.4 s, and again after the last
			change()
			pause(250 * time.Millisecond)
		}
		pause(5 * time.Second)
		var got []time.Duration
		for _, at := range c.at {
			got = append(got, at.Sub(begin).Round(50*time.Millisecond))
		}
		if want := "[900ms 8.4s 10.65s]"; fmt.Sprint(got) != want {
			t.Errorf("told at %v, want %s", got, want)
		}
	})
}

func TestHeldBackByGit(t *testing.T) {
	for _, linked := range []bool{false, true} {
		dir := t.TempDir()
		git := filepath.Join(dir, ".git")
		if linked {
			git = t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: "+git+"\n"), 0o600))
		} else {
			must(t, os.Mkdir(git, 0o700))
		}
		path, lock := filepath.Join(dir, "a.txt"), filepath.Join(git, "index.lock")
		must(t, os.WriteFile(path, nil, 0o600))
		for _, test := range []struct{ unlock, want time.Duration }{
			{4 * time.Second, 4 * time.Second}, {time.Hour, 30*time.Second + 500*time.Millisecond},
		} {
			must(t, os.WriteFile(lock, nil, 0o600))
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				w := run(t, Options{Open: f.open})
				var c told
				_, err := w.Add(Spec{Path: path}, Timing{Debounce: 500 * time.Millisecond, MaxWait: 10 * time.Second, HoldGit: true}, c.fire)
				must(t, err)
				begin := time.Now()
				f.events <- fsnotify.Event{Name: path, Op: fsnotify.Write}
				pause(min(test.unlock, 2*time.Minute))
				if test.unlock < time.Minute {
					must(t, os.Remove(lock))
				}
				pause(time.Minute)
				if len(c.at) != 1 || c.at[0].Sub(begin).Round(200*time.Millisecond)-test.want > 200*time.Millisecond || c.at[0].Sub(begin) < test.want {
					t.Errorf("linked %v: told at %v after %v, want %v", linked, c.at, begin, test.want)
				}
			})
		}
	}
}

func TestOverflowIsEverything(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := run(t, Options{Open: f.open})
		var c told
		_, err := w.Add(Spec{Path: dir, Recursive: true}, Timing{Debounce: time.Second}, c.fire)
		must(t, err)
		f.errors <- fsnotify.ErrEventOverflow
		pause(time.Minute)
		if c.count() != 1 || !c.has(filepath.Join(dir, "a")) || !c.has(filepath.Join(dir, "b")) {
			t.Errorf("%d times: %v", c.fires, c.paths)
		}
	})
}

func TestWatchLimit(t *testing.T) {
	dir := t.TempDir()
	var roomy atomic.Bool
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fail = func(string) error {
			if !roomy.Load() {
				return fmt.Errorf("add: %w", syscall.ENOSPC)
			}
			return nil
		}
		w := run(t, Options{Open: f.open, VerifyEvery: 30 * time.Second})
		var c told
		target, err := w.Add(Spec{Path: dir, Recursive: true}, Timing{}, c.fire)
		if err == nil || !strings.Contains(err.Error(), "sysctl fs.inotify.max_user_watches") || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v", err)
		}
		if target.Err() == nil {
			t.Error("the target does not tell")
		}
		roomy.Store(true)
		pause(65 * time.Second)
		if target.Err() != nil || c.count() != 0 {
			t.Errorf("%v, %d", target.Err(), c.fires)
		}
		f.events <- fsnotify.Event{Name: filepath.Join(dir, "gone"), Op: fsnotify.Create}
		pause(time.Second)
		must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
		f.events <- fsnotify.Event{Name: filepath.Join(dir, "new"), Op: fsnotify.Create}
		pause(time.Second)
		if !c.has(filepath.Join(dir, "new")) {
			t.Error("not watched after the limit was raised")
		}
	})
}

// Without any news a renamed ancestor, or a file system that tells nothing, is noticed by
// looking.
func TestVerifyFindsWhatNobodyTold(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x", "y", "a.txt")
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte("1"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := run(t, Options{Open: f.open, VerifyEvery: 30 * time.Second})
		var c told
		_, err := w.Add(Spec{Path: path}, Timing{}, c.fire)
		must(t, err)
		pause(65 * time.Second)
		if c.count() != 0 {
			t.Error("told of nothing")
		}
		must(t, os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "old")))
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte("22"), 0o600))
		pause(65 * time.Second)
		if c.count() != 1 || !c.has(path) {
			t.Errorf("%d: %v", c.fires, c.paths)
		}
	})
}

func TestDirectoriesAreSharedAndLetGo(t *testing.T) {
	dir := t.TempDir()
	f := newFake()
	w := run(t, Options{Open: f.open})
	var targets []*Target
	for i := range 3 {
		target, err := w.Add(Spec{Path: filepath.Join(dir, fmt.Sprint(i))}, Timing{}, func([]string) {})
		must(t, err)
		targets = append(targets, target)
	}
	for _, target := range targets {
		if len(f.dirs) != 1 || !f.dirs[dir] {
			t.Errorf("%v", f.dirs)
		}
		target.Close()
	}
	if len(f.dirs) != 0 {
		t.Errorf("still watched: %v", f.dirs)
	}
}

func TestOneInotifyInstance(t *testing.T) {
	instances := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("/proc is missing: mount it")
		}
		n := 0
		for _, e := range entries {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(to, "inotify") {
				n++
			}
		}
		return n
	}
	before := instances()
	w := run(t, Options{})
	for range 50 {
		_, err := w.Add(Spec{Path: t.TempDir(), Recursive: true}, Timing{}, func([]string) {})
		must(t, err)
	}
	if got := instances() - before; got != 1 {
		t.Errorf("%d inotify instances", got)
	}
}

func TestGitignoreRules(t *testing.T) {
	for _, test := range []struct {
		rules, path string
		dir         bool
		want        int
	}{
		{"*.o", "a/b.o", false, 1},
		{"*.o\n!b.o", "a/b.o", false, -1},
		{"/a.txt", "b/a.txt", false, 0},
		{"/a.txt", "a.txt", false, 1},
		{"doc/*.txt", "doc/a.txt", false, 1},
		{"doc/*.txt", "doc/x/a.txt", false, 0},
		{"**/x/y", "a/b/x/y", false, 1},
		{"a/**", "a", true, 0},
		{"a/**", "a/b/c", false, 1},
		{"a/**/b", "a/b", false, 1},
		{"build/", "build", false, 0},
		{"build/", "x/build", true, 1},
		{"# comment", "# comment", false, 0},
		{`\#x`, "#x", false, 1},
		{`\!x`, "!x", false, 1},
		{"x  ", "x", false, 1},
		{`x\ `, "x ", false, 1},
		{"{a,b}", "a", false, 0},
		{"{a,b}", "{a,b}", false, 1},
		{"[!a].c", "b.c", false, 1},
		{"[!a].c", "a.c", false, 0},
		{"x\r", "x", false, 1},
		{"[", "[", false, 0},
	} {
		if got := decide(parseRules(strings.Split(test.rules, "\n")), test.path, test.dir); got != test.want {
			t.Errorf("%q on %q: %d, want %d", test.rules, test.path, got, test.want)
		}
	}
}

func TestReaches(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "state", "store")
	must(t, os.MkdirAll(store, 0o700))
	must(t, os.Symlink(store, filepath.Join(dir, "link")))
	for _, test := range []struct {
		spec Spec
		want bool
	}{
		{Spec{Path: store}, true},
		{Spec{Path: filepath.Join(store, "a", "b")}, true},
		{Spec{Path: filepath.Join(dir, "link", "a")}, true},
		{Spec{Path: dir, Recursive: true}, true},
		{Spec{Path: dir}, false},
		{Spec{Path: filepath.Join(dir, "**", "*.json")}, true},
		{Spec{Path: filepath.Join(dir, "*", "*.json")}, false},
		{Spec{Path: filepath.Join(dir, "*", "store", "*")}, true},
		{Spec{Path: filepath.Join(dir, "src"), Recursive: true}, false},
		{Spec{Path: store + "2"}, false},
	} {
		if got := Reaches(test.spec, store); got != test.want {
			t.Errorf("%+v: %v", test.spec, got)
		}
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.md", "b.txt", "s/c.md", "node_modules/d.md"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	got, more := List(Spec{Path: dir + "/**/*.md"}, 10)
	if want := []string{dir + "/a.md", dir + "/s/c.md"}; !slices.Equal(got, want) || more {
		t.Errorf("%v %v", got, more)
	}
	if got, more := List(Spec{Path: dir, Recursive: true}, 2); len(got) != 2 || !more {
		t.Errorf("%v %v", got, more)
	}
}

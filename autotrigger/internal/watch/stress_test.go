package watch

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestNothingIsLostAfterAnyHistory makes random changes to a tree while it is watched, then
// writes to every file that is left: each of these writes must be told.
func TestNothingIsLostAfterAnyHistory(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			root := filepath.Join(t.TempDir(), "root")
			w := run(t, Options{})
			var c told
			_, err := w.Add(Spec{Path: root, Recursive: true}, Timing{}, c.fire)
			must(t, err)
			name := func() string {
				p := root
				for range r.IntN(4) {
					p = filepath.Join(p, fmt.Sprint("d", r.IntN(3)))
				}
				return p
			}
			for range 400 {
				p := name()
				// Most of these fail half of the time; that is part of the game.
				switch r.IntN(7) {
				case 0, 1:
					_ = os.MkdirAll(p, 0o700)
				case 2, 3:
					_ = os.WriteFile(filepath.Join(p, fmt.Sprint("f", r.IntN(3))), []byte("x"), 0o600)
				case 4:
					_ = os.RemoveAll(p)
				case 5:
					_ = os.Rename(p, name())
				case 6:
					_ = os.MkdirAll(root, 0o700)
					tmp := filepath.Join(root, ".tmp")
					_ = os.WriteFile(tmp, []byte("y"), 0o600)
					_ = os.Rename(tmp, filepath.Join(p, "f0"))
				}
				if r.IntN(20) == 0 {
					time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond) // lets the watcher get in between
				}
			}
			must(t, os.MkdirAll(root, 0o700))
			must(t, os.WriteFile(filepath.Join(root, "marker"), nil, 0o600))
			eventually(t, "the end of the history", func() bool { return c.has(filepath.Join(root, "marker")) })
			var left []string
			must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					left = append(left, p)
				}
				return err
			}))
			c.mu.Lock()
			clear(c.paths)
			c.mu.Unlock()
			for _, p := range left {
				must(t, os.WriteFile(p, []byte("last"), 0o600))
			}
			for _, p := range left {
				eventually(t, p, func() bool { return c.has(p) })
			}
		})
	}
}

// A directory that was moved into a new one is found there before its old name's end is
// told, and the kernel's watch is the same for both names.
func TestADirectoryMovedIntoANewOneIsWatched(t *testing.T) {
	root := t.TempDir()
	last := filepath.Join(root, "sub")
	must(t, os.Mkdir(last, 0o700))
	w := run(t, Options{})
	var c told
	_, err := w.Add(Spec{Path: root, Recursive: true}, Timing{}, c.fire)
	must(t, err)
	for i := range 20 {
		fresh := filepath.Join(root, fmt.Sprint("new", i))
		w.mu.Lock() // so that both are done before the first is handled
		must(t, os.Mkdir(fresh, 0o700))
		must(t, os.Rename(last, filepath.Join(fresh, "sub")))
		w.mu.Unlock()
		last = filepath.Join(fresh, "sub")
		marker := filepath.Join(root, fmt.Sprint("marker", i))
		must(t, os.WriteFile(marker, nil, 0o600))
		eventually(t, marker, func() bool { return c.has(marker) })
		path := filepath.Join(last, fmt.Sprint("f", i))
		n := 0
		eventually(t, path, func() bool {
			n++
			must(t, os.WriteFile(path, []byte(fmt.Sprint(n)), 0o600))
			return c.has(path)
		})
	}
}

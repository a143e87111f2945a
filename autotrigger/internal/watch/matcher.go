package watch

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Spec says what to watch.
type Spec struct {
	Path      string   // absolute: a file, a directory or a doublestar glob; it need not exist
	Recursive bool     // a directory with all below it
	Ignore    []string // as lines of a .gitignore at the directory, or where the glob begins
}

type kind int

const (
	oneFile kind = iota
	children
	tree
	glob
)

// matcher is a Spec as the file system now makes it: Path may have become a directory.
type matcher struct {
	spec Spec
	kind kind
	// base is the directory below which everything is matched.
	base     string
	patterns []string // of kind glob, relative to base
	ignore   *ignorer
}

func newMatcher(s Spec) *matcher {
	m := &matcher{spec: s}
	path := filepath.Clean(s.Path)
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.IsDir() && s.Recursive, err != nil && s.Recursive && !hasMeta(path):
		m.kind, m.base = tree, path
	case err == nil && info.IsDir():
		m.kind, m.base = children, path
	case err == nil || !hasMeta(path):
		m.kind, m.base = oneFile, filepath.Dir(path)
	default:
		base, pattern := doublestar.SplitPattern(filepath.ToSlash(path))
		m.kind, m.base, m.patterns = glob, filepath.FromSlash(base), []string{pattern}
		if s.Recursive {
			m.patterns = append(m.patterns, pattern+"/**")
		}
	}
	m.ignore = newIgnorer(m.base, s.Ignore, m.kind == tree || m.kind == children)
	return m
}

func hasMeta(path string) bool { return strings.ContainsAny(path, `*?[{\`) }

// file tells whether a file in a directory that descend let in belongs to the target.
func (m *matcher) file(path string) bool {
	switch m.kind {
	case oneFile:
		return path == filepath.Clean(m.spec.Path)
	case children:
		return filepath.Dir(path) == m.base && !m.ignore.ignored(path, false)
	case tree:
		return below(m.base, path) && !m.ignore.ignored(path, false)
	}
	rel, ok := m.rel(path)
	if !ok || m.ignore.ignored(path, false) {
		return false
	}
	for _, p := range m.patterns {
		if doublestar.MatchUnvalidated(p, rel) {
			return true
		}
	}
	return false
}

// descend tells whether something in the directory can belong to the target.
func (m *matcher) descend(dir string) bool {
	if dir == m.base {
		return true
	}
	switch m.kind {
	case tree:
		return below(m.base, dir) && !m.ignore.ignored(dir, true)
	case glob:
		rel, ok := m.rel(dir)
		if !ok || m.ignore.ignored(dir, true) {
			return false
		}
		for _, p := range m.patterns {
			if leads(strings.Split(p, "/"), strings.Split(rel, "/")) {
				return true
			}
		}
	}
	return false
}

// leads tells whether a path that begins with the elements of dir can match the pattern.
func leads(pattern, dir []string) bool {
	for i, name := range dir {
		if i >= len(pattern) {
			return false
		}
		// Alternatives may hold slashes, and ** any number of elements: look no further.
		if pattern[i] == "**" || strings.Contains(pattern[i], "{") {
			return true
		}
		if !doublestar.MatchUnvalidated(pattern[i], name) {
			return false
		}
	}
	return len(dir) < len(pattern)
}

func (m *matcher) rel(path string) (string, bool) {
	if !below(m.base, path) {
		return "", false
	}
	rel, err := filepath.Rel(m.base, path)
	return filepath.ToSlash(rel), err == nil
}

// below tells whether path lies in dir, at any depth.
func below(dir, path string) bool {
	return dir != path && (dir == "/" || strings.HasPrefix(path, dir+string(filepath.Separator)))
}

// walk calls dir for each directory of the target, before it is read, and file for each
// regular file that belongs to it. Links are not followed. It starts at from, which is
// base or a directory below it that descend let in.
func (m *matcher) walk(from string, dir func(string) error, file func(string, os.FileInfo) error) error {
	if err := dir(from); err != nil {
		return err
	}
	if m.kind == oneFile {
		path := filepath.Clean(m.spec.Path)
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			return file(path, info)
		}
		return nil
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		// It went away, or is not ours to read; its parent's events tell of the first.
		return nil //nolint:nilerr // nothing below it belongs to the target now
	}
	for _, e := range entries {
		path := filepath.Join(from, e.Name())
		switch {
		case e.IsDir() && m.descend(path):
			if err := m.walk(path, dir, file); err != nil {
				return err
			}
		case e.Type().IsRegular() && m.file(path):
			info, err := e.Info()
			if err != nil {
				continue // removed meanwhile
			}
			if err := file(path, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// List returns the regular files that a Spec names now, at most limit of them, and
// whether there are more.
func List(s Spec, limit int) (paths []string, more bool) {
	m := newMatcher(s)
	// The only error is the one that ends the walk.
	_ = m.walk(m.base, func(string) error { return nil }, func(path string, _ os.FileInfo) error {
		if len(paths) == limit {
			more = true
			return errEnough
		}
		paths = append(paths, path)
		return nil
	})
	return paths, more
}

// Literal tells whether a Spec names one path, to be reported when it cannot be read.
func Literal(s Spec) bool { return newMatcher(s).kind == oneFile }

// Reaches tells whether a Spec takes in anything at or below dir, or lies in it, with
// links resolved: the store must be neither.
func Reaches(s Spec, dir string) bool {
	m := newMatcher(s)
	base, dir := Resolve(m.base), Resolve(dir)
	if base == dir || below(dir, base) {
		return true
	}
	if m.kind == oneFile {
		path := Resolve(m.spec.Path)
		return path == dir || below(dir, path)
	}
	if !below(base, dir) || m.kind == children {
		return false
	}
	if m.kind == tree {
		return true
	}
	rel, err := filepath.Rel(base, dir)
	if err != nil {
		return false
	}
	for _, p := range m.patterns {
		if leads(strings.Split(p, "/"), strings.Split(filepath.ToSlash(rel), "/")) {
			return true
		}
	}
	return false
}

// Resolve resolves links in the part of path that exists.
func Resolve(path string) string {
	path = filepath.Clean(path)
	var rest string
	for p := path; ; p = filepath.Dir(p) {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(real, rest)
		}
		if p == filepath.Dir(p) {
			return path
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
}

package watch

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// rule is one line of a .gitignore.
type rule struct {
	pattern  string // for doublestar
	negated  bool
	dirOnly  bool
	anchored bool // matches the path below the file's directory, not any base name
}

// parseRules reads lines with the meaning they have in a .gitignore. Lines that are no
// valid pattern are left out, as git does.
func parseRules(lines []string) []rule {
	var out []rule
	for _, line := range lines {
		if r, ok := parseRule(line); ok {
			out = append(out, r)
		}
	}
	return out
}

func parseRule(line string) (rule, bool) {
	var r rule
	line = trimTrailingSpace(strings.TrimSuffix(line, "\r"))
	if line == "" || line[0] == '#' {
		return r, false
	}
	if line[0] == '!' {
		r.negated, line = true, line[1:]
	}
	if strings.HasSuffix(line, "/") {
		r.dirOnly, line = true, strings.TrimSuffix(line, "/")
	}
	r.anchored = strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if line == "" {
		return r, false
	}
	// "dir/**" is what lies in dir, while doublestar takes dir along; braces are no
	// alternatives in a .gitignore.
	if strings.HasSuffix(line, "/**") {
		line += "/*"
	}
	r.pattern = strings.NewReplacer("{", `\{`, "}", `\}`).Replace(line)
	return r, doublestar.ValidatePattern(r.pattern)
}

// trimTrailingSpace leaves a last space that a backslash protects.
func trimTrailingSpace(s string) string {
	for strings.HasSuffix(s, " ") && !strings.HasSuffix(s, `\ `) {
		s = s[:len(s)-1]
	}
	return s
}

// decide returns the last matching rule's word: +1 ignored, -1 kept, 0 nothing said.
// rel is the slash-separated path below the rules' directory.
func decide(rules []rule, rel string, dir bool) int {
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if r.dirOnly && !dir {
			continue
		}
		name := rel
		if !r.anchored {
			name = rel[strings.LastIndexByte(rel, '/')+1:]
		}
		if doublestar.MatchUnvalidated(r.pattern, name) {
			if r.negated {
				return -1
			}
			return 1
		}
	}
	return 0
}

// ignorer decides for one target. It reads each .gitignore once, until forget.
type ignorer struct {
	base string // own rules are relative to it
	own  []rule
	git  bool // ask the .gitignore files too

	top   string            // of the work tree that base lies in; "" for none
	files map[string][]rule // directory: its .gitignore
}

// alwaysIgnored lie in many trees and never hold an agent's work; the ignore list can
// name node_modules with a ! to have it back.
var alwaysIgnored = parseRules([]string{"node_modules/"})

func newIgnorer(base string, own []string, git bool) *ignorer {
	ig := &ignorer{base: base, own: append(alwaysIgnored[:len(alwaysIgnored):len(alwaysIgnored)], parseRules(own)...), git: git}
	ig.forget()
	return ig
}

// forget makes it read the .gitignore files anew.
func (ig *ignorer) forget() {
	ig.files = map[string][]rule{}
	ig.top = ""
	if ig.git {
		ig.top = workTree(ig.base)
	}
}

// ignored decides about one entry whose directory is not ignored.
func (ig *ignorer) ignored(path string, dir bool) bool {
	if filepath.Base(path) == ".git" {
		return true
	}
	if rel, err := filepath.Rel(ig.base, path); err == nil {
		if word := decide(ig.own, filepath.ToSlash(rel), dir); word != 0 {
			return word > 0
		}
	}
	if !ig.git {
		return false
	}
	stop := ig.top
	if stop == "" {
		stop = ig.base
	}
	// The nearest .gitignore has the last word, so it is asked first.
	for d := filepath.Dir(path); ; d = filepath.Dir(d) {
		rel, err := filepath.Rel(d, path)
		if err != nil {
			return false
		}
		if word := decide(ig.rules(d), filepath.ToSlash(rel), dir); word != 0 {
			return word > 0
		}
		if d == stop || d == filepath.Dir(d) {
			return false
		}
	}
}

func (ig *ignorer) rules(dir string) []rule {
	rules, ok := ig.files[dir]
	if !ok {
		// A .gitignore that cannot be read says nothing, as for git.
		if b, err := os.ReadFile(filepath.Join(dir, ".gitignore")); err == nil && len(b) <= 1<<20 {
			rules = parseRules(strings.Split(string(b), "\n"))
		}
		ig.files[dir] = rules
	}
	return rules
}

// workTree returns the nearest directory at or above dir that holds a .git, or "".
func workTree(dir string) string {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// locked tells whether git is at work on the tree that path lies in: its index.lock exists.
func locked(path string) bool {
	top := workTree(filepath.Dir(path))
	if top == "" {
		return false
	}
	git := filepath.Join(top, ".git")
	// In a linked work tree .git is a file that names the directory.
	if b, err := os.ReadFile(git); err == nil && len(b) < 8192 {
		dir := strings.TrimSpace(strings.TrimPrefix(string(b), "gitdir:"))
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(top, dir)
		}
		git = dir
	}
	_, err := os.Lstat(filepath.Join(git, "index.lock"))
	return err == nil
}

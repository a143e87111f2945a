package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
)

// anchor is how a heading is addressed: lower case, spaces to dashes, other signs gone.
func anchor(text string) string {
	text = strings.ToLower(strings.ReplaceAll(text, " ", "-"))
	return regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(text, "")
}

// broken lists the links of a page that lead nowhere in this repository.
func broken(path, text string) []string {
	var bad []string
	for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
			continue
		}
		file, fragment, _ := strings.Cut(m[1], "#")
		target := path
		if file != "" {
			target = filepath.Join(filepath.Dir(path), file)
		}
		data, err := os.ReadFile(target)
		if err != nil {
			if info, err := os.Stat(target); err != nil || !info.IsDir() || fragment != "" {
				bad = append(bad, m[1])
			}
			continue
		}
		found := fragment == ""
		for _, h := range heading.FindAllStringSubmatch(string(data), -1) {
			found = found || anchor(h[1]) == fragment
		}
		if !found {
			bad = append(bad, m[1])
		}
	}
	return bad
}

func TestLinksLeadSomewhere(t *testing.T) {
	pages := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pages++
		for _, l := range broken(path, string(text)) {
			t.Errorf("%s: the link %s leads nowhere", filepath.Clean(path), l)
		}
		return nil
	})
	if err != nil || pages < 8 {
		t.Fatalf("%d pages, %v", pages, err)
	}
}

func TestEveryPageIsInTheIndex(t *testing.T) {
	index, err := os.ReadFile("index.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if page != "index.md" && !strings.Contains(string(index), "]("+page+")") {
			t.Errorf("index.md does not name %s", page)
		}
	}
}

func TestABrokenLinkIsNoticed(t *testing.T) {
	for text, want := range map[string]int{
		"[a](missing.md)": 1, "[a](index.md)": 0, "[a](index.md#nowhere)": 1, "[a](operations.md#back-up)": 0,
		"[a](https://example.org/x)": 0, "```\n[a](missing.md)\n```": 0, "[a](../storage)": 0,
	} {
		if got := broken("page.md", text); len(got) != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

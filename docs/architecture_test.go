// Package docs holds the documents; its tests hold them to the code.
package docs_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/forge-cpd/forge-cpd/"

// arrows says which packages of this module each may import, besides what lies below it
// in its own folder. A package that is not named here fails the test: draw it first.
var arrows = map[string][]string{
	"checkpoint":             {"checkpoint/rawjson"},
	"checkpoint/rawjson":     {},
	"storage":                {"checkpoint", "checkpoint/rawjson"},
	"autotrigger":            {"checkpoint", "checkpoint/rawjson", "autotrigger/transcript"},
	"autotrigger/transcript": {"checkpoint", "checkpoint/rawjson"},
	"rpc":                    {"checkpoint", "checkpoint/rawjson"},
	"daemon/config":          {"checkpoint"},
	"client":                 {"checkpoint", "checkpoint/rawjson", "rpc", "daemon/config"},
	"daemon":                 {"checkpoint", "checkpoint/rawjson", "storage", "autotrigger", "autotrigger/transcript", "rpc", "daemon/config"},
	"cmd/forge-cpd":          {"checkpoint", "checkpoint/rawjson", "storage", "autotrigger", "autotrigger/transcript", "rpc", "daemon", "daemon/config", "client"},
	"docs":                   {},
	"systemd":                {"checkpoint", "rpc", "client"}, // its tests only
}

// usedByTests is what the tests of a package may import besides.
var usedByTests = map[string][]string{"client": {"daemon"}} // its examples run against one

// forTests may be imported by tests only.
var forTests = []string{"storage/storagetest"}

type imports struct {
	pkg   string
	tests bool
	list  []string
}

// owner is the package of the drawing that a package belongs to: itself, or the nearest
// one above it.
func owner(pkg string) (string, bool) {
	for p := pkg; p != ""; {
		if _, ok := arrows[p]; ok {
			return p, true
		}
		p = p[:max(strings.LastIndex(p, "/"), 0)]
	}
	return "", false
}

func violations(all []imports) []string {
	var bad []string
	for _, im := range all {
		from, known := owner(im.pkg)
		if !known {
			bad = append(bad, fmt.Sprintf("%s is in no package of the drawing: add it to docs/architecture.md and here", im.pkg))
			continue
		}
		for _, to := range im.list {
			target, known := owner(to)
			switch {
			case slices.Contains(forTests, to) && (im.tests || slices.Contains(forTests, im.pkg)):
			case slices.Contains(forTests, to):
				bad = append(bad, fmt.Sprintf("%s imports %s, which is for tests", im.pkg, to))
			case known && im.tests && slices.Contains(usedByTests[from], target):
			case !known, target != from && !slices.Contains(arrows[from], target):
				bad = append(bad, fmt.Sprintf("%s imports %s", im.pkg, to))
			}
		}
	}
	return bad
}

func TestImportsFollowTheArrows(t *testing.T) {
	const format = `{{.ImportPath}} code{{range .Imports}} {{.}}{{end}}
{{.ImportPath}} test{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}`
	cmd := exec.Command("go", "list", "-f", format, "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []imports
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		im := imports{pkg: strings.TrimPrefix(words[0], module), tests: words[1] == "test"}
		for _, path := range words[2:] {
			if rest, ours := strings.CutPrefix(path, module); ours {
				im.list = append(im.list, rest)
			}
		}
		all = append(all, im)
	}
	if len(all) < 20 {
		t.Fatalf("go list named only %d", len(all)/2)
	}
	for _, v := range violations(all) {
		t.Error(v)
	}
}

func TestAWrongArrowIsNoticed(t *testing.T) {
	for _, im := range []imports{
		{pkg: "checkpoint", list: []string{"storage"}},
		{pkg: "storage", list: []string{"rpc"}},
		{pkg: "storage/internal/vfs", list: []string{"autotrigger"}},
		{pkg: "rpc", list: []string{"daemon"}},
		{pkg: "client", list: []string{"storage"}},
		{pkg: "client", list: []string{"daemon"}},
		{pkg: "daemon/config", list: []string{"rpc"}},
		{pkg: "daemon", list: []string{"storage/storagetest"}},
		{pkg: "autotrigger/transcript", list: []string{"autotrigger"}},
		{pkg: "util"},
	} {
		if len(violations([]imports{im})) != 1 {
			t.Errorf("%s may import %v", im.pkg, im.list)
		}
	}
	fine := []imports{
		{pkg: "daemon", tests: true, list: []string{"storage/storagetest"}},
		{pkg: "storage", list: []string{"checkpoint", "storage/internal/vfs"}},
	}
	if bad := violations(fine); len(bad) != 0 {
		t.Error(bad)
	}
}

package transcript

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// RecapBytes is more than Recap ever gives: agents refuse added context over 10,000 characters.
const RecapBytes = 9000

// Shares of a recap, in bytes: what is longer is cut in the middle.
const (
	recapPrompts  = 4
	recapFiles    = 30
	recapFailures = 5
	promptBytes   = 800
	failureBytes  = 400
	saidBytes     = 1200
	pathBytes     = 100
)

// Done is what a transcript tells was done.
type Done struct {
	Prompts  []string // the last ones, oldest first
	Files    []string // written or edited, each once, the last touched last
	Failures []string // the last ones: tool and the words of its failure
	Calls    int      // finished tool calls
	Failed   int
	Said     string // the agent's last words
	CWD      string // the last working directory that a line names
	Open     string // a call without result at the end: what was under way
}

// Read sums a transcript up. It keeps a few lines' worth, whatever the length.
func Read(format string, data []byte) Done {
	var d Done
	decode := decoders[format]
	if decode == nil {
		return d
	}
	parser := newAgentParser(decode)
	open := map[string]opened{}
	for n, line := range lines(data) {
		e := decode(line)
		for _, o := range e.opened {
			if len(open) < maxOpen {
				open[o.id] = o
			}
		}
		texts := map[string]string{}
		for _, r := range e.done {
			texts[r.id] = r.text
		}
		for _, c := range parser.Line(n, line) {
			d.add(c, open[c.ID], texts[c.ID], e.failure)
			delete(open, c.ID)
		}
		if e.prompt != "" {
			d.Prompts = last(append(d.Prompts, shorten(e.prompt, promptBytes)), recapPrompts)
			clear(open)
		}
		d.Said = orElse(shorten(e.said, saidBytes), d.Said)
		d.CWD = orElse(e.cwd, d.CWD)
	}
	for _, o := range open {
		d.Open = o.name
		if text := strings.TrimSpace(string(o.input)); text != "" {
			d.Open = shorten(o.name+" "+text, failureBytes)
		}
	}
	return d
}

func (d *Done) add(c Call, o opened, text, failure string) {
	if !c.Plain {
		d.Calls++
	}
	if c.Cause == checkpoint.CauseError {
		d.Failed++
		what := orElse(c.Tool, "the model's API") + ": " + strings.TrimSpace(orElse(text, failure))
		d.Failures = last(append(d.Failures, shorten(what, failureBytes)), recapFailures)
		return
	}
	for _, f := range touched(o) {
		if at := slices.Index(d.Files, f); at >= 0 {
			d.Files = slices.Delete(d.Files, at, at+1)
		}
		d.Files = append(d.Files, f)
	}
	d.Files = last(d.Files, 10*recapFiles)
}

var patched = regexp.MustCompile(`\*\*\* (?:Add|Update|Delete) File: ([^\n\\"]+)`)

// touched names the files that a call writes, by the usual members of such tools and by
// the heads of apply_patch.
func touched(o opened) []string {
	var files []string
	for _, m := range patched.FindAllSubmatch(o.input, -1) {
		files = append(files, string(m[1]))
	}
	switch strings.ToLower(o.name) {
	case "write", "edit", "multiedit", "notebookedit", "write_file", "replace", "create_file", "search_replace":
		var in struct {
			FilePath     string `json:"file_path"`
			NotebookPath string `json:"notebook_path"`
			Path         string `json:"path"`
		}
		decode(o.input, &in)
		if f := orElse(in.FilePath, orElse(in.NotebookPath, in.Path)); f != "" {
			files = append(files, f)
		}
	}
	return files
}

func last[T any](s []T, n int) []T {
	if len(s) > n {
		return slices.Clone(s[len(s)-n:])
	}
	return s
}

// shorten keeps a text's head and tail, in valid UTF-8.
func shorten(s string, limit int) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "�")
	if len(s) <= limit {
		return s
	}
	const gap = " […] "
	head, tail := (limit-len(gap))*2/3, (limit-len(gap))/3
	for !utf8.RuneStart(s[head]) {
		head--
	}
	from := len(s) - tail
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	return s[:head] + gap + s[from:]
}

// Trim brings lists that were filled by other means to the length that Read gives them.
func (d *Done) Trim() {
	d.Prompts, d.Failures = last(d.Prompts, recapPrompts), last(d.Failures, recapFailures)
	for i := range d.Prompts {
		d.Prompts[i] = shorten(d.Prompts[i], promptBytes)
	}
	for i := range d.Failures {
		d.Failures[i] = shorten(d.Failures[i], failureBytes)
	}
}

// Recap tells an agent in a few words what an earlier session did, for one that cannot
// take the conversation itself. It is under RecapBytes long. then and now are git's state
// at the checkpoint and at present, nil where there is none.
func (d Done) Recap(agent string, taken string, then, now *checkpoint.Git) string {
	var b strings.Builder
	fmt.Fprintf(&b, "You continue the work of an earlier %s session, as it stood at %s: %d tool calls done, %d failed.\n",
		agent, taken, d.Calls, d.Failed)
	if d.CWD != "" {
		fmt.Fprintf(&b, "It worked in %s.\n", shorten(d.CWD, pathBytes*2))
	}
	list(&b, "The user's last prompts, oldest first:", d.Prompts)
	files := last(d.Files, recapFiles)
	for i := range files {
		files[i] = shorten(files[i], pathBytes)
	}
	list(&b, "Files it wrote, the latest last:", files)
	list(&b, "The last failures:", d.Failures)
	if d.Said != "" {
		fmt.Fprintf(&b, "\nIts last words:\n%s\n", d.Said)
	}
	if d.Open != "" {
		fmt.Fprintf(&b, "\nUnder way, with no result: %s\n", d.Open)
	}
	body := shorten(b.String(), RecapBytes-1000)
	b.Reset()
	b.WriteString(body + "\n\n")
	for _, g := range []struct {
		when string
		git  *checkpoint.Git
	}{{"then", then}, {"now", now}} {
		fmt.Fprintf(&b, "git %s: %s\n", g.when, gitWords(g.git))
	}
	if then != nil && now != nil && then.Head != now.Head {
		b.WriteString("The work tree has moved on since: look at git log before you build on what is said above.\n")
	}
	return b.String()
}

func list(b *strings.Builder, title string, items []string) {
	if len(items) == 0 {
		return
	}
	b.WriteString("\n" + title + "\n")
	for _, s := range items {
		b.WriteString("- " + strings.ReplaceAll(s, "\n", "\n  ") + "\n")
	}
}

func gitWords(g *checkpoint.Git) string {
	if g == nil {
		return "not known"
	}
	dirty := "clean"
	if g.Dirty {
		dirty = "with uncommitted changes"
	}
	return fmt.Sprintf("%s on %s, %s", orElse(shorten(g.Head, 64), "no commit"), orElse(shorten(g.Branch, pathBytes), "no branch"), dirty)
}

var (
	_ json.Marshaler   = (*agentParser)(nil)
	_ json.Unmarshaler = (*agentParser)(nil)
)

package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/daemon/config"
)

const exampleHead = `# yaml-language-server: $schema=daemon/config/schema.json
#
# Every key of forge-cpd's configuration with its default, and why. Copy what you change to
# ~/.config/forge-cpd/config.yaml; an empty file, or none, is all of these defaults.
# "forge-cpd config check" reads a file as the daemon would. After a change, "systemctl reload
# forge-cpd" or a HUP takes it over whole, or says what is wrong with it and changes nothing;
# keys marked (restart) wait for the next start.
`

// exampleSession is a comment in the example, so that the example is the defaults; a test
// reads it with the comment signs taken away.
const exampleSession = `#- key: my-agent
#  name: the agent in ~/src/app
#  labels: {project: app}
#  auto:
#    interval_seconds: 60
#    on_tool_call: true
#    watch:
#      - path: ~/src/app
#        recursive: true
#        ignore: ["*.log"]
#        debounce_ms: 500
#        max_wait_ms: 10000
#        cause: file_change
#      - path: ~/.claude/projects/*app*/*.jsonl
#        format: claude-code
#        from_start: false
#      - path: ~/logs/agent.jsonl
#        format: jsonl
#        match: {tool_call: {type: tool_result}, error: {type: tool_result, is_error: true}}
#    capture: {env: [EDITOR], files: [~/src/app/TODO.md], git: true}
#    retention: {keep_recent: 50, keep_manual: true, preserve_tags: [release]}
`

func example() []byte {
	var b bytes.Buffer
	b.WriteString(exampleHead)
	for _, e := range config.Default().Entries() {
		name := e.Name[strings.LastIndex(e.Name, ".")+1:]
		indent := strings.Repeat("  ", strings.Count(e.Name, "."))
		if indent == "" {
			b.WriteByte('\n')
		}
		doc := e.Doc
		if e.Restart && !e.Section {
			doc += " (restart)"
		}
		b.WriteString(wrap(doc, indent+"# ", 100))
		switch {
		case e.Section:
			fmt.Fprintf(&b, "%s%s:\n", indent, name)
		case e.Given && e.Value != "null":
			fmt.Fprintf(&b, "%s%s: %s\n", indent, name, e.Value)
		case e.Name == "auto.retention":
			fmt.Fprintf(&b, "%s# %s: {keep_recent: 50}\n", indent, name)
		default:
			fmt.Fprintf(&b, "%s# %s: 0\n", indent, name)
		}
	}
	b.WriteString("# One session looks like this:\n")
	b.WriteString(exampleSession)
	return b.Bytes()
}

func wrap(text, prefix string, width int) string {
	var b strings.Builder
	line := prefix
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) > width && line != prefix {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = prefix
		}
		line += word + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}

const referenceHead = `# Configuration

<!-- Made by "make generate" from daemon/config/keys.go: do not edit. -->

The file is YAML. It is looked for as ` + "`--config`" + `, then ` + "`FORGE_CPD_CONFIG`" + `, then
` + "`$XDG_CONFIG_HOME/forge-cpd/config.yaml`" + ` (` + "`~/.config`" + ` where that is not set), then
` + "`/etc/forge-cpd/config.yaml`" + `. None, or an empty one, is all defaults. The second two are taken
only when they belong to you or to root and nobody else can write them.

It is read strictly: an unknown or repeated key, a wrong type, a value out of range, an alias or a
second document is refused, with file, line, key and what would be right. ` + "`forge-cpd config check`" + `
does the same without a daemon, ` + "`forge-cpd config show`" + ` prints what holds now, and
` + "`forge-cpd config schema`" + ` prints a JSON Schema for editors.

A HUP, ` + "`systemctl reload forge-cpd`" + ` or ` + "`daemon.reload`" + ` reads it again and takes it over whole, or not
at all; connections stay. Keys marked *restart* wait for the next start, and the reply to a reload
names them. [config.example.yaml](../config.example.yaml) is the same as a file.

Durations are written as ` + "`30s`, `5m`, `1h30m`" + `. Paths are absolute or begin with ` + "`~/`" + `.
`

func reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	flat := defaults()
	for _, k := range config.Keys {
		if !strings.ContainsAny(k.Name, ".[") {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | default | takes | what it does |\n|---|---|---|---|\n", k.Name, k.Doc)
			continue
		}
		if strings.HasSuffix(k.Name, "[]") && len(k.OneOf) == 0 && k.Max == 0 || strings.HasSuffix(k.Name, ".{}") {
			continue // said by the list itself
		}
		doc := k.Doc
		if k.Restart {
			doc += " *restart*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, defaultText(k.Name, flat), takes(k), strings.ReplaceAll(doc, "|", `\|`))
	}
	return b.Bytes()
}

func defaultText(key string, flat map[string]string) string {
	text, ok := flat[key]
	switch {
	case !ok:
		return ""
	case key == "auto.causes":
		return "all eight"
	}
	return "`" + strings.ReplaceAll(text, ",", ", ") + "`"
}

func takes(k config.Key) string {
	if len(k.OneOf) > 0 {
		words := make([]string, len(k.OneOf))
		for i, w := range k.OneOf {
			words[i] = "`" + w + "`"
			if w == "" {
				words[i] = "empty"
			}
		}
		return strings.Join(words, ", ")
	}
	if k.Max == 0 {
		return ""
	}
	format := func(i int64) string { return fmt.Sprint(i) }
	if strings.HasSuffix(k.Name, "timeout") || k.Name == "retention.every" {
		format = func(i int64) string { return config.FormatDuration(time.Duration(i)) }
	}
	if k.Max == math.MaxInt64 {
		return strings.TrimSpace(format(k.Min) + " or more " + k.Unit)
	}
	return strings.TrimSpace(format(k.Min) + " to " + format(k.Max) + " " + k.Unit)
}

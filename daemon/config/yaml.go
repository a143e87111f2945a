package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// This is the only file that knows the YAML library: it turns a document into nodes and
// refuses what makes YAML surprising. Types are judged by the decoder, from the text: the
// library would take 1.5 for the integer 1, `yes` for true and 0600 for 384.

type kind int

const (
	kindMap kind = iota
	kindList
	kindString
	kindInt
	kindFloat
	kindBool
	kindNull
	kindOther // timestamps, binary
)

func (k kind) String() string {
	return [...]string{"a map", "a list", "text", "a whole number", "a number", "true or false", "nothing", "a date"}[k]
}

type node struct {
	kind   kind
	text   string // of a scalar, as written
	line   int
	keys   []*node // of a map
	values []*node // of a map or list
}

// describe names a node in an error message.
func (n *node) describe() string {
	switch n.kind {
	case kindMap, kindList, kindNull:
		return n.kind.String()
	case kindString:
		return fmt.Sprintf("the text %.60q", n.text)
	}
	return fmt.Sprintf("%.60s", n.text)
}

// parseYAML returns the one document's node, or nil when there is nothing but comments.
func parseYAML(file string, data []byte) (*node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, syntaxError(file, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, problem(file, second.Line, "", "a second document starts here; one file holds one: remove the line ---")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(file, err)
	}
	if len(doc.Content) != 1 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, nil
	}
	return convert(file, root)
}

var (
	yamlLine = regexp.MustCompile(`line (\d+): `)
	// The library counts the lines of its parser's errors from 0, those of its scanner's from 1.
	parserError = regexp.MustCompile(`^did not find expected (<|node content|key|'-'|',')`)
)

func syntaxError(file string, err error) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = strings.Replace(text, m[0], "", 1)
		line, _ = strconv.Atoi(m[1]) // digits by the pattern; too many mean no line
	}
	if parserError.MatchString(text) {
		line++
	}
	return problem(file, line, "", "not YAML: %s", text)
}

func convert(file string, y *yaml.Node) (*node, error) {
	n := &node{line: y.Line, text: y.Value}
	switch {
	case y.Kind == yaml.AliasNode:
		return nil, problem(file, y.Line, "", "*%s is an alias, which is not taken here: write the value out", y.Value)
	case y.Anchor != "":
		return nil, problem(file, y.Line, "", "&%s is an anchor, which is not taken here: write the value out where it is needed", y.Anchor)
	case y.Style&yaml.TaggedStyle != 0:
		return nil, problem(file, y.Line, "", "%s is a tag, which is not taken here: remove it", y.Tag)
	}
	for i, c := range y.Content {
		child, err := convert(file, c)
		if err != nil {
			return nil, err
		}
		if y.Kind == yaml.MappingNode && i%2 == 0 {
			n.keys = append(n.keys, child)
		} else {
			n.values = append(n.values, child)
		}
	}
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = kindMap
	case yaml.SequenceNode:
		n.kind = kindList
	default:
		n.kind = scalarKind(y.ShortTag())
	}
	return n, nil
}

func scalarKind(tag string) kind {
	switch tag {
	case "!!str":
		return kindString
	case "!!int":
		return kindInt
	case "!!float":
		return kindFloat
	case "!!bool":
		return kindBool
	case "!!null":
		return kindNull
	}
	return kindOther
}

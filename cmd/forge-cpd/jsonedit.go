package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// jsonNode is a value in a JSON text by its place, so that an edit can leave every other
// byte as it is.
type jsonNode struct {
	kind       byte // '{', '[' or 0 for the rest
	start, end int
	keys       []string // of an object, decoded
	keyAt      []int    // where each key begins
	kids       []*jsonNode
}

// parseJSON gives the places of a text's values.
func parseJSON(data []byte) (*jsonNode, error) {
	if !json.Valid(data) {
		return nil, errors.New("it is not plain JSON (comments and trailing commas are not understood)")
	}
	p := jsonPlaces{data: data}
	return p.value(), nil
}

// jsonPlaces walks over a text that is known to be valid.
type jsonPlaces struct {
	data []byte
	at   int
}

func (p *jsonPlaces) space() {
	for p.at < len(p.data) && strings.IndexByte(" \t\r\n", p.data[p.at]) >= 0 {
		p.at++
	}
}

func (p *jsonPlaces) value() *jsonNode {
	p.space()
	n := &jsonNode{start: p.at}
	switch c := p.data[p.at]; c {
	case '{', '[':
		n.kind = c
		p.at++
		p.children(n)
		p.at++
	case '"':
		p.text()
	default:
		for p.at < len(p.data) && strings.IndexByte(",]} \t\r\n", p.data[p.at]) < 0 {
			p.at++
		}
	}
	n.end = p.at
	return n
}

func (p *jsonPlaces) children(n *jsonNode) {
	for p.space(); p.data[p.at] != '}' && p.data[p.at] != ']'; p.space() {
		if p.data[p.at] == ',' {
			p.at++
			p.space()
		}
		at := p.at
		if n.kind == '{' {
			p.text()
			var key string
			_ = json.Unmarshal(p.data[at:p.at], &key) // valid, as the whole text is
			n.keys = append(n.keys, key)
			p.space()
			p.at++ // the colon
		} else {
			n.keys = append(n.keys, "")
		}
		n.keyAt = append(n.keyAt, at)
		n.kids = append(n.kids, p.value())
	}
}

func (p *jsonPlaces) text() {
	for p.at++; p.data[p.at] != '"'; p.at++ {
		if p.data[p.at] == '\\' {
			p.at++
		}
	}
	p.at++
}

// member gives the last member of this name: the one that counts.
func (n *jsonNode) member(key string) *jsonNode {
	for i := len(n.keys) - 1; i >= 0 && n.kind == '{'; i-- {
		if n.keys[i] == key {
			return n.kids[i]
		}
	}
	return nil
}

// indentAt gives the white space before the first word of the line that at is in.
func indentAt(data []byte, at int) string {
	from := bytes.LastIndexByte(data[:at], '\n') + 1
	end := from
	for end < len(data) && (data[end] == ' ' || data[end] == '\t') {
		end++
	}
	return string(data[from:end])
}

// indentUnit is how the text is indented; two spaces where nothing tells.
func indentUnit(data []byte, root *jsonNode) string {
	if len(root.keyAt) > 0 && bytes.IndexByte(data[root.start:root.keyAt[0]], '\n') >= 0 {
		if unit := indentAt(data, root.keyAt[0]); unit != "" {
			return unit
		}
	}
	return "  "
}

// insert puts a value behind the last one of an object or array. key is "" for an array.
func (n *jsonNode) insert(data []byte, root *jsonNode, key string, value any) []byte {
	unit := indentUnit(data, root)
	outer := indentAt(data, n.start)
	inner := outer + unit
	before, after := "\n"+inner, "\n"+outer
	at := n.start + 1
	if len(n.kids) > 0 {
		if at = n.kids[len(n.kids)-1].end; bytes.IndexByte(data[n.start:n.keyAt[0]], '\n') >= 0 {
			inner = indentAt(data, n.keyAt[0])
			before = ",\n" + inner
		} else {
			before = ", " // all on one line: it stays on one
		}
		after = ""
	} else {
		data = slices.Delete(slices.Clone(data), at, n.end-1) // white space in an empty one
	}
	text := renderJSON(value, inner, unit)
	if key != "" {
		text = string(renderJSON(key, "", "")) + ": " + text
	}
	return slices.Concat(data[:at], []byte(before+text+after), data[at:])
}

func renderJSON(value any, prefix, unit string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if unit != "" {
		e.SetIndent(prefix, unit)
	}
	_ = e.Encode(value) // maps, slices, strings and numbers of our own
	return strings.TrimSuffix(b.String(), "\n")
}

// remove takes child i out, with its comma and the white space before it.
func (n *jsonNode) remove(data []byte, i int) []byte {
	from, to := n.start+1, n.kids[i].end
	switch {
	case i > 0:
		from = n.kids[i-1].end
	case len(n.kids) > 1: // the first of several: up to the next
		from, to = n.keyAt[0], n.keyAt[1]
	default:
		to = n.end - 1
	}
	return slices.Delete(slices.Clone(data), from, to)
}

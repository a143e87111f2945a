package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/forge-cpd/forge-cpd/rpc"
)

// document is the part of the OpenRPC document that the page shows.
type document struct {
	Info struct {
		Version, Description string
	}
	Methods       []method
	Components    struct{ Schemas map[string]*jsonschema.Schema }
	Notifications []struct {
		Name, Summary string
		Params        *jsonschema.Schema
	} `json:"x-notifications"`
	ClientMethods []method `json:"x-client-methods"`
}

type method struct {
	Name, Summary string
	Params        []param
	ExactlyOneOf  []string `json:"x-exactly-one-of"`
	AtMostOneOf   []string `json:"x-at-most-one-of"`
	Result        param
	Errors        []struct {
		Code    int
		Message string
	}
}

type param struct {
	Name, Description string
	Required          bool
	Schema            *jsonschema.Schema
}

func page() ([]byte, error) {
	raw, err := rpc.Discover()
	if err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, head, doc.Info.Version)
	l := rpc.DefaultLimits()
	fmt.Fprintf(&b, limits, mib(l.FrameBytes), mib(l.StateBytes), kib(l.MetadataBytes), l.JSONDepth, kib(l.MessageBytes), l.NameBytes, l.KeyBytes,
		l.TagCount, l.TagBytes, l.LabelCount, l.LabelBytes, l.InFlightPerConnection, mib(int(l.InFlightBytes)), l.Connections, l.FrameTimeout, l.WriteTimeout)
	b.WriteString("## Methods\n\n| method | does |\n|---|---|\n")
	for _, m := range doc.Methods {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", m.Name, anchor(m.Name), cell(m.Summary))
	}
	for _, m := range doc.Methods {
		section(&b, m)
	}
	b.WriteString("\n## Asked of an agent\n")
	for _, m := range doc.ClientMethods {
		section(&b, m)
	}
	b.WriteString("\n## Notifications\n")
	for _, n := range doc.Notifications {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\nParams: %s\n", n.Name, n.Summary, shape(n.Params, 0))
	}
	b.WriteString("\n## Objects\n")
	names := []string{}
	for name := range doc.Components.Schemas {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", name, shape(doc.Components.Schemas[name], 0))
	}
	return b.Bytes(), nil
}

const head = "# The API\n\nMade from the code by `go generate ./rpc`; do not edit. Version %s. A running daemon returns the same as an\n" +
	"OpenRPC document with JSON Schemas: `forge-cpd call rpc.discover`.\n\n" + `A Unix stream socket speaks JSON-RPC 2.0. A client whose first byte is ` + "`{` or `[`" + ` sends one value a line and gets
one a line; a client that starts with ` + "`Content-Length`" + ` uses the framing of language servers. Batches work. Ids
come back as they were sent. Params are objects. ` + "`key`" + ` may stand where a method takes ` + "`session_id`" + `.

    printf '{"jsonrpc":"2.0","id":1,"method":"daemon.info"}\n' | nc -U -N "$(forge-cpd paths socket)"

On one connection, changes of one session apply in the order sent, and a read sent after them sees them; different
sessions do not wait for each other. A client that closes its sending half gets every reply. ` + "`params: null`" + ` is
refused like any other value that is no object. A member that is left out is absent; ` + "`null`" + ` is not the same, and
is taken only as a ` + "`state`, in `detail`, and for `expected_head_id`" + `.

An error is ` + "`{code, message, data: {kind, field?, retry?}}`" + `: the message says what is wrong and what to do, ` + "`field`" + ` names
the param. What cannot be read as a request gets -32700 or -32600 with the id null, and the connection lives on; only
a bad ` + "`Content-Length`" + ` header, a frame that does not end in time, or a peer that reads nothing for too long ends it.

`

const limits = "## Limits\n\n| what | default |\n|---|---|\n| a frame | %s |\n| a state | %s |\n| metadata, detail, an auto config | %s |\n| levels of arrays and objects in a param | %d |\n" +
	"| message, note | %s |\n| name of a session | %d B |\n| key | %d B |\n| tags | %d of %d B |\n| labels | %d of %d B |\n" +
	"| requests in flight on a connection; beyond it the daemon stops reading | %d |\n| bytes in flight over all connections; likewise | %s |\n| connections | %d |\n" +
	"| time for a frame to end | %v |\n| time for a peer to take some of what waits for it | %v |\n\n" +
	"The replies of one batch together are bounded by the limit of a frame: a large result that goes over it is answered\nwith `too_large` and can be asked for by itself.\n\n"

func mib(n int) string { return fmt.Sprintf("%d MiB", n>>20) }
func kib(n int) string { return fmt.Sprintf("%d KiB", n>>10) }

func anchor(name string) string { return strings.ReplaceAll(name, ".", "") }

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func section(b *bytes.Buffer, m method) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n", m.Name, m.Summary)
	if len(m.Params) > 0 {
		b.WriteString("\n| param | type | |\n|---|---|---|\n")
		for _, p := range m.Params {
			need := ""
			if p.Required {
				need = "**required**; "
			}
			if p.Schema.Default != nil {
				need = fmt.Sprintf("default `%s`; ", p.Schema.Default)
			}
			fmt.Fprintf(b, "| `%s` | %s | %s%s |\n", p.Name, cell(kind(p.Schema)), need, cell(p.Description))
		}
	}
	if len(m.ExactlyOneOf) > 0 {
		fmt.Fprintf(b, "\nExactly one of `%s`.\n", strings.Join(m.ExactlyOneOf, "`, `"))
	}
	if len(m.AtMostOneOf) > 0 {
		fmt.Fprintf(b, "\nAt most one of `%s`.\n", strings.Join(m.AtMostOneOf, "`, `"))
	}
	fmt.Fprintf(b, "\nResult: %s\n", shape(m.Result.Schema, 0))
	if len(m.Errors) > 0 {
		var errs []string
		for _, e := range m.Errors {
			errs = append(errs, fmt.Sprintf("%d `%s`", e.Code, e.Message))
		}
		fmt.Fprintf(b, "\nErrors: %s.\n", strings.Join(errs, ", "))
	}
}

// kind is a schema in a few words.
func kind(s *jsonschema.Schema) string {
	switch {
	case len(s.Enum) > 0:
		var values []string
		for _, v := range s.Enum {
			values = append(values, fmt.Sprint(v))
		}
		return "`" + strings.Join(values, "` `") + "`"
	case len(s.AnyOf) > 0:
		var kinds []string
		for _, a := range s.AnyOf {
			kinds = append(kinds, kind(a))
		}
		return strings.Join(kinds, " or ")
	case s.Format == "uuid":
		return "id"
	case s.Format == "date-time":
		return "time"
	case s.Type == "array":
		return "array of " + kind(s.Items)
	case s.Type == "integer" && s.Minimum != nil && s.Maximum != nil && *s.Maximum <= 1e6:
		return fmt.Sprintf("integer, %v to %v", *s.Minimum, *s.Maximum)
	case s.ContentEncoding != "":
		return "base64 string"
	case s.Type == "":
		return "any JSON"
	}
	return s.Type
}

// shape writes an object's members, nested as deep as they go.
func shape(s *jsonschema.Schema, depth int) string {
	if len(s.AnyOf) > 0 {
		var kinds []string
		for _, a := range s.AnyOf {
			kinds = append(kinds, shape(a, depth))
		}
		return strings.Join(kinds, " or ")
	}
	if s.Type == "array" && s.Items != nil {
		return "array of " + shape(s.Items, depth)
	}
	if s.Type != "object" || len(s.Properties) == 0 {
		if s.Description != "" {
			return s.Description
		}
		return kind(s)
	}
	names := []string{}
	for name := range s.Properties {
		names = append(names, name)
	}
	place := func(name string) int { // the required ones in their order, then the others
		if n := slices.Index(s.Required, name); n >= 0 {
			return n
		}
		return len(s.Required)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(place(a)-place(b), strings.Compare(a, b)) })
	var members []string
	for _, name := range names {
		optional := "?"
		if slices.Contains(s.Required, name) {
			optional = ""
		}
		inner := s.Properties[name]
		member := fmt.Sprintf("`%s`%s", name, optional)
		if k := shape(inner, depth+1); depth < 3 && k != "string" {
			member += " " + k
		}
		members = append(members, member)
	}
	return "{" + strings.Join(members, ", ") + "}"
}

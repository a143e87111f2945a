package rpc

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

//go:generate go run ./internal/generate

// Discover is the OpenRPC document of the method table: what rpc.discover returns and what
// docs/api.md is made from.
func Discover() (RawResult, error) { return discovered() }

var discovered = sync.OnceValues(func() (RawResult, error) {
	doc, err := describe()
	if err != nil {
		return nil, err
	}
	b, err := marshal(doc)
	return b, err
})

// document and what follows are OpenRPC's own shapes.
type document struct {
	OpenRPC       string            `json:"openrpc"`
	Info          documentInfo      `json:"info"`
	Methods       []methodDoc       `json:"methods"`
	Components    components        `json:"components"`
	Notifications []notificationDoc `json:"x-notifications"`
	ClientMethods []methodDoc       `json:"x-client-methods"`
}

type documentInfo struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description"`
}

type components struct {
	Schemas map[string]*jsonschema.Schema `json:"schemas"`
}

type methodDoc struct {
	Name           string     `json:"name"`
	Summary        string     `json:"summary"`
	ParamStructure string     `json:"paramStructure"`
	Params         []paramDoc `json:"params"`
	// ExactlyOneOf and AtMostOneOf name params that exclude each other.
	ExactlyOneOf []string   `json:"x-exactly-one-of,omitempty"`
	AtMostOneOf  []string   `json:"x-at-most-one-of,omitempty"`
	Result       paramDoc   `json:"result"`
	Errors       []errorDoc `json:"errors,omitempty"`
}

type paramDoc struct {
	Name        string             `json:"name"`
	Description string             `json:"description,omitempty"`
	Required    bool               `json:"required,omitempty"`
	Schema      *jsonschema.Schema `json:"schema"`
}

type errorDoc struct {
	Code    int64             `json:"code"`
	Message string            `json:"message"`
	Data    map[string]string `json:"data"`
}

type notificationDoc struct {
	Name    string             `json:"name"`
	Summary string             `json:"summary"`
	Params  *jsonschema.Schema `json:"params"`
}

func describe() (*document, error) {
	doc := &document{
		OpenRPC: "1.3.2",
		Info: documentInfo{
			Title: "forge-cpd", Version: fmt.Sprintf("%d.%d.0", APIVersion.Major, APIVersion.Minor),
			Description: "Checkpoints of agents' states over a Unix socket. Another major version does not understand this one; a higher minor one only adds.",
		},
		Components: components{Schemas: map[string]*jsonschema.Schema{"Error": errorSchema()}},
	}
	for _, m := range append([]*method{discoverMethod}, methods...) {
		d, err := describeMethod(m)
		if err != nil {
			return nil, fmt.Errorf("describing %s: %w", m.name, err)
		}
		doc.Methods = append(doc.Methods, d)
	}
	for name, t := range map[string]reflect.Type{
		"Checkpoint": reflect.TypeFor[checkpoint.Checkpoint](), "Summary": reflect.TypeFor[checkpoint.Summary](),
		"Session": reflect.TypeFor[checkpoint.Session](), "AutoConfig": reflect.TypeFor[checkpoint.AutoConfig](),
		"Event": reflect.TypeFor[checkpoint.Event](), "Annotation": reflect.TypeFor[checkpoint.Annotation](),
	} {
		s, err := schemaOf(t)
		if err != nil {
			return nil, err
		}
		doc.Components.Schemas[name] = loosen(s)
	}
	for _, n := range []struct {
		name, summary string
		t             reflect.Type
	}{
		{"event", "One durable change, to a subscriber.", reflect.TypeFor[EventNotification]()},
		{"overflow", "The subscriber did not keep up: its subscription ended, and cursor is where to resume.", reflect.TypeFor[OverflowNotification]()},
	} {
		s, err := schemaOf(n.t)
		if err != nil {
			return nil, err
		}
		doc.Notifications = append(doc.Notifications, notificationDoc{n.name, n.summary, loosen(s)})
	}
	capture, err := describeCapture()
	doc.ClientMethods = []methodDoc{capture}
	return doc, err
}

func describeCapture() (methodDoc, error) {
	result, err := schemaOf(reflect.TypeFor[CaptureReply]())
	if err != nil {
		return methodDoc{}, err
	}
	d := methodDoc{
		Name: "state.capture", Summary: "Asked of an agent that attached with provides_state: its state now.", ParamStructure: "by-name",
		Result: paramDoc{Name: "result", Schema: loosen(result)},
	}
	d.Params, err = describeParams(fieldsOf(reflect.TypeFor[CaptureRequest]()))
	return d, err
}

func describeMethod(m *method) (methodDoc, error) {
	d := methodDoc{Name: m.name, Summary: m.summary, ParamStructure: "by-name", Errors: errorsOf(m)}
	var err error
	if d.Params, err = describeParams(m.fields); err != nil {
		return d, err
	}
	if m.fields.session != nil {
		if both := []string{"session_id", "key"}; m.naming == bySession {
			d.ExactlyOneOf = both
		} else {
			d.AtMostOneOf = both
		}
	}
	result, err := resultSchema(m)
	d.Result = paramDoc{Name: "result", Schema: loosen(result)}
	return d, err
}

func describeParams(fs *fields) ([]paramDoc, error) {
	docs := []paramDoc{}
	for _, name := range fs.names {
		f := fs.byName[name]
		s, err := paramSchema(name, f.typ)
		if err != nil {
			return nil, err
		}
		docs = append(docs, paramDoc{Name: name, Description: paramDocs[name], Required: f.required, Schema: s})
	}
	return docs, nil
}

// errorsOf lists what a method may answer, beside what any request may get.
func errorsOf(m *method) []errorDoc {
	kinds := []checkpoint.Kind{checkpoint.KindInvalidParams, checkpoint.KindInternal}
	named := m.fields.session != nil || m.naming == byCheckpoint
	for _, name := range []string{"checkpoint_id", "from", "subscription_id"} {
		named = named || slices.Contains(m.fields.names, name)
	}
	if named {
		kinds = append(kinds, checkpoint.KindNotFound)
	}
	if result := m.result; result == reflect.TypeFor[Stored]() || m.large && result != reflect.TypeFor[*SessionListResult]() && result != reflect.TypeFor[*CheckpointListResult]() {
		kinds = append(kinds, checkpoint.KindCorrupt)
	}
	if m.order == change || m.order == barrier && m.name != "events.subscribe" {
		kinds = append(kinds, checkpoint.KindInvalidState, checkpoint.KindStorage)
	}
	for _, name := range []string{"state", "metadata", "detail", "auto", "config", "data"} {
		if slices.Contains(m.fields.names, name) {
			kinds = append(kinds, checkpoint.KindTooLarge)
			break
		}
	}
	switch m.name {
	case "session.create", "checkpoint.fork", "session.attach":
		kinds = append(kinds, checkpoint.KindConflict)
	case "checkpoint.create":
		kinds = append(kinds, checkpoint.KindConflict)
	case "auto.enable":
		kinds = append(kinds, checkpoint.KindPermissionDenied)
	case "events.subscribe":
		kinds = append(kinds, checkpoint.KindOverloaded)
	case "daemon.reload", "daemon.shutdown":
		kinds = append(kinds, checkpoint.KindPermissionDenied)
	}
	docs := []errorDoc{}
	for _, k := range kinds {
		docs = append(docs, errorDoc{Code: Code(k), Message: string(k), Data: map[string]string{"kind": string(k)}})
	}
	slices.SortFunc(docs, func(a, b errorDoc) int { return int(b.Code - a.Code) })
	return docs
}

func errorSchema() *jsonschema.Schema {
	kinds := []any{}
	for k := range codes {
		kinds = append(kinds, string(k))
	}
	slices.SortFunc(kinds, func(a, b any) int {
		return int(codes[checkpoint.Kind(b.(string))] - codes[checkpoint.Kind(a.(string))])
	})
	return &jsonschema.Schema{
		Type: "object", Required: []string{"code", "message", "data"}, PropertyOrder: []string{"code", "message", "data"},
		Properties: map[string]*jsonschema.Schema{
			"code":    {Type: "integer"},
			"message": {Type: "string", Description: "what is wrong and what to do"},
			"data": {
				Type: "object", Required: []string{"kind"}, PropertyOrder: []string{"kind", "field", "retry"},
				Properties: map[string]*jsonschema.Schema{
					"kind":  {Type: "string", Enum: kinds},
					"field": {Type: "string", Description: "the param at fault: tags[1]"},
					"retry": {Type: "boolean", Description: "the same call can succeed later"},
				},
			},
		},
	}
}

// known are the schemas of types whose JSON is not what their Go shape says.
var known = sync.OnceValue(func() map[reflect.Type]*jsonschema.Schema {
	id := &jsonschema.Schema{Type: "string", Format: "uuid", Pattern: "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
	k := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[checkpoint.ID]():   id,
		reflect.TypeFor[json.RawMessage](): {},
		reflect.TypeFor[NullableID]():      {AnyOf: []*jsonschema.Schema{id, {Type: "null"}}},
		reflect.TypeFor[time.Time]():       {Type: "string", Format: "date-time", Pattern: `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`},
		reflect.TypeFor[[]byte]():          {Type: "string", ContentEncoding: "base64"},
	}
	for t, values := range enums {
		s := &jsonschema.Schema{Type: "string"}
		for _, v := range values {
			s.Enum = append(s.Enum, v)
		}
		k[t] = s
	}
	return k
})

// schemaOf is a type's schema, with no null where Go has pointers and slices: the wire
// leaves out what is not there.
func schemaOf(t reflect.Type) (*jsonschema.Schema, error) {
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: known()})
	if err != nil {
		return nil, err
	}
	walk(s, func(s *jsonschema.Schema) {
		if n := slices.Index(s.Types, "null"); n >= 0 {
			s.Types = slices.Delete(s.Types, n, n+1)
		}
		if len(s.Types) == 1 {
			s.Type, s.Types = s.Types[0], nil
		}
		if len(s.Types) == 0 {
			s.Types = nil
		}
	})
	return s, nil
}

func walk(s *jsonschema.Schema, f func(*jsonschema.Schema)) {
	if s == nil {
		return
	}
	f(s)
	for _, p := range s.Properties {
		walk(p, f)
	}
	for _, p := range s.AnyOf {
		walk(p, f)
	}
	walk(s.Items, f)
	walk(s.AdditionalProperties, f)
}

// loosen lets an object have members that a later minor version adds.
func loosen(s *jsonschema.Schema) *jsonschema.Schema {
	if s == nil {
		return nil
	}
	s = s.CloneSchemas()
	walk(s, func(s *jsonschema.Schema) {
		if a := s.AdditionalProperties; a != nil && a.Not != nil {
			s.AdditionalProperties = nil
		}
	})
	return s
}

func paramSchema(name string, t reflect.Type) (*jsonschema.Schema, error) {
	if name == "auto" || name == "config" {
		t = reflect.TypeFor[checkpoint.AutoConfig]()
	}
	s, err := schemaOf(t)
	if err != nil {
		return nil, err
	}
	switch name {
	case "auto", "config":
		walk(s, func(s *jsonschema.Schema) { s.Required = nil })
		s.Properties["watch"].Items.Required = []string{"path"}
	case "metadata", "data":
		s.Type = "object"
	}
	if r, ok := ranges[name]; ok {
		s.Minimum = jsonschema.Ptr(r[0])
		if r[1] > 0 {
			s.Maximum = jsonschema.Ptr(r[1])
		}
	}
	if d, ok := defaults[name]; ok {
		s.Default = json.RawMessage(d)
	}
	return s, nil
}

// resultSchema is the closed schema of a method's result.
func resultSchema(m *method) (*jsonschema.Schema, error) {
	switch {
	case m.name == "rpc.discover":
		return &jsonschema.Schema{Type: "object", Description: "an OpenRPC document"}, nil
	case m.name == "store.export":
		return schemaOf(reflect.TypeFor[exportPage]())
	case m.result == reflect.TypeFor[Stored]():
		s, err := schemaOf(reflect.TypeFor[checkpoint.Checkpoint]())
		switch {
		case err != nil:
			return nil, err
		case m.name == "checkpoint.restore":
			delete(s.Properties, "state")
			isState := func(name string) bool { return name == "state" }
			s.Required = slices.DeleteFunc(s.Required, isState)
			s.PropertyOrder = slices.DeleteFunc(s.PropertyOrder, isState)
			return &jsonschema.Schema{
				Type: "object", Required: []string{"checkpoint", "state"}, PropertyOrder: []string{"checkpoint", "state"},
				Properties: map[string]*jsonschema.Schema{"checkpoint": s, "state": {}},
			}, nil
		case m.name == "checkpoint.latest" || m.name == "checkpoint.at":
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s, {Type: "null"}}}, nil
		}
		return s, nil
	case m.result == reflect.TypeFor[*CheckpointListResult]():
		s, err := schemaOf(m.result.Elem())
		if err == nil {
			s.Properties["checkpoints"].Items, err = schemaOf(reflect.TypeFor[checkpoint.Summary]())
		}
		return s, err
	}
	return schemaOf(m.result.Elem())
}

// exportPage is the shape of what store.export returns as bytes.
type exportPage struct {
	Format      string                  `json:"format"`
	Version     int                     `json:"version"`
	Checkpoints []checkpoint.Checkpoint `json:"checkpoints"`
	Sessions    []checkpoint.Session    `json:"sessions"`
	Files       []exportFile            `json:"files"`
	Sequence    uint64                  `json:"global_sequence"`
	ExportedAt  string                  `json:"exported_at"`
	NextCursor  string                  `json:"next_cursor,omitempty"`
}

type exportFile struct {
	SHA256  string `json:"sha256"`
	Offset  int64  `json:"offset"`
	Content []byte `json:"content_base64"`
}

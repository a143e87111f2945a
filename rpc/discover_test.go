package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// examples has a valid and an invalid request for each method.
var examples = map[string]struct{ good, bad, field string }{
	"rpc.discover":                {`{}`, `{"x":1}`, "x"},
	"daemon.info":                 {`{}`, `{"x":1}`, "x"},
	"daemon.health":               {`{"validate":true,"recent":3}`, `{"recent":-1}`, "recent"},
	"daemon.metrics":              {`{}`, `{"x":1}`, "x"},
	"daemon.prometheus":           {`{}`, `{"x":1}`, "x"},
	"daemon.sync":                 {`{}`, `{"x":1}`, "x"},
	"daemon.reload":               {`{}`, `{"x":1}`, "x"},
	"daemon.shutdown":             {`{}`, `{"x":1}`, "x"},
	"session.create":              {`{"name":"n","key":"k","labels":{"a":"b"},"auto":{"watch":[{"path":"/x"}]}}`, `{"name":"n","labels":{"a":1}}`, "labels.a"},
	"session.get":                 {`{"key":"k"}`, `{}`, "session_id"},
	"session.list":                {`{"status":"active","labels":{"a":"b"},"limit":1000,"cursor":"c"}`, `{"status":"open"}`, "status"},
	"session.close":               {`{"session_id":"$"}`, `{"session_id":"x"}`, "session_id"},
	"session.reopen":              {`{"session_id":"$"}`, `{"session_id":7}`, "session_id"},
	"session.delete":              {`{"session_id":"$"}`, `{"session_id":"$","key":"k"}`, "key"},
	"session.put_state":           {`{"session_id":"$","state":null}`, `{"session_id":"$"}`, "state"},
	"session.attach":              {`{"session_id":"$","provides_state":true}`, `{"session_id":"$","provides_state":1}`, "provides_state"},
	"session.detach":              {`{"session_id":"$"}`, `{"session_id":null}`, "session_id"},
	"checkpoint.create":           {`{"session_id":"$","message":"m","tags":["a"],"state":1,"metadata":{},"parent_id":"$","expected_head_id":null,"checkpoint_id":"$"}`, `{"session_id":"$","message":"m","tags":["a",1]}`, "tags[1]"},
	"checkpoint.get":              {`{"checkpoint_id":"$"}`, `{}`, "checkpoint_id"},
	"checkpoint.file":             {`{"checkpoint_id":"$","path":"/a"}`, `{"checkpoint_id":"$","path":[]}`, "path"},
	"checkpoint.latest":           {`{"session_id":"$"}`, `{"session_id":"00000000-0000-0000-0000-000000000000"}`, "session_id"},
	"checkpoint.at":               {`{"session_id":"$","time":"2026-11-23T10:00:00.123456789Z"}`, `{"session_id":"$","time":"noon"}`, "time"},
	"checkpoint.list":             {`{"key":"k","tags":["a"],"any_tag":true,"trigger":"manual","cause":"cron","from_sequence":1,"to_sequence":2,"since":"2026-11-23T10:00:00Z","until":"2026-11-23T10:00:00+01:00","text":"t","metadata":{"a":1},"order":"desc","limit":1,"cursor":"c"}`, `{"from_sequence":-1}`, "from_sequence"},
	"checkpoint.restore":          {`{"session_id":"$","checkpoint_id":"$","move_head":false}`, `{"session_id":"$"}`, "checkpoint_id"},
	"checkpoint.fork":             {`{"checkpoint_id":"$","name":"n","key":"k"}`, `{"checkpoint_id":"$","name":"n","key":""}`, "key"},
	"checkpoint.diff":             {`{"from":"$","to":"$","path":"/a"}`, `{"from":"$"}`, "to"},
	"checkpoint.delete":           {`{"checkpoint_id":"$"}`, `{"checkpoint_id":"{$}"}`, "checkpoint_id"},
	"checkpoint.compact":          {`{"session_id":"$","keep_recent":0,"preserve_tags":["a"],"keep_manual":true,"keep_tagged":true,"max_age_seconds":1,"keep_hourly":1,"keep_daily":1,"dry_run":true}`, `{"session_id":"$","keep_daily":-1}`, "keep_daily"},
	"checkpoint.annotate":         {`{"checkpoint_id":"$","note":"n","severity":"critical"}`, `{"checkpoint_id":"$","note":"n","severity":"bad"}`, "severity"},
	"checkpoint.validate":         {`{"checkpoint_id":"$"}`, `{"checkpoint_id":"$","deep":true}`, "deep"},
	"checkpoint.validate_all":     {`{}`, `{"session_id":"$","key":"k"}`, "key"},
	"checkpoint.hypothesis_state": {`{"checkpoint_id":"$"}`, `{"checkpoint_id":true}`, "checkpoint_id"},
	"auto.enable":                 {`{"session_id":"$","config":{"cron":"@daily"}}`, `{"session_id":"$","config":[]}`, "config"},
	"auto.disable":                {`{"session_id":"$"}`, `{}`, "session_id"},
	"auto.get":                    {`{"session_id":"$"}`, `{}`, "session_id"},
	"auto.trigger":                {`{"session_id":"$","cause":"tool_call","message":"m","detail":[1],"state":{}}`, `{"session_id":"$","cause":"x"}`, "cause"},
	"store.export":                {`{"cursor":"c","max_bytes":1}`, `{"max_bytes":0}`, "max_bytes"},
	"store.import":                {`{"data":{}}`, `{"data":"{}"}`, "data"},
	"events.subscribe":            {`{"types":["created"],"since_cursor":"c"}`, `{"types":["created","x"]}`, "types[1]"},
	"events.unsubscribe":          {`{"subscription_id":"s"}`, `{}`, "subscription_id"},
}

func example(s string) string { return strings.ReplaceAll(s, "$", aSession) }

// TestEveryMethodIsDescribed holds the decoder and the published schemas together: what one
// takes the other takes.
func TestEveryMethodIsDescribed(t *testing.T) {
	raw, err := Discover()
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Methods) != len(examples) {
		t.Errorf("%d methods, %d examples", len(doc.Methods), len(examples))
	}
	limits := DefaultLimits()
	for _, d := range doc.Methods {
		e, ok := examples[d.Name]
		if !ok {
			t.Errorf("%s has no examples", d.Name)
			continue
		}
		m := methodByName[d.Name]
		if m == nil {
			m = discoverMethod
		}
		if _, err := limits.decode(m, []byte(example(e.good)), nil); err != nil {
			t.Errorf("%s refuses %s: %v", d.Name, e.good, err)
		}
		_, err := limits.decode(m, []byte(example(e.bad)), nil)
		if w := ToWire(err); err == nil || w.Code != -32602 || !strings.Contains(string(*w.Data), fmt.Sprintf(`"field":%q`, e.field)) {
			t.Errorf("%s with %s: %v, want the field %s", d.Name, e.bad, err, e.field)
		}
		params := paramsSchema(t, d)
		if err := params.Validate(value(t, example(e.good))); err != nil {
			t.Errorf("%s: the schema refuses %s: %v", d.Name, e.good, err)
		}
		if err := params.Validate(value(t, example(e.bad))); err == nil && e.field != "key" && e.field != "session_id" {
			t.Errorf("%s: the schema takes %s", d.Name, e.bad)
		}
		for _, p := range d.Params {
			if p.Description == "" {
				t.Errorf("%s: %s has no description", d.Name, p.Name)
			}
		}
		if _, err := d.Result.Schema.Resolve(nil); err != nil || len(d.Errors) < 2 {
			t.Errorf("%s: result %v, errors %v", d.Name, err, d.Errors)
		}
	}
}

func value(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// paramsSchema is one schema of the list of params.
func paramsSchema(t *testing.T, d methodDoc) *jsonschema.Resolved {
	t.Helper()
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	for _, p := range d.Params {
		s.Properties[p.Name] = p.Schema
		if p.Required {
			s.Required = append(s.Required, p.Name)
		}
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestResultsFitTheirSchemas asks the fake what it can answer.
func TestResultsFitTheirSchemas(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	id := "44444444-4444-4444-8444-444444444444"
	for _, c := range []struct{ method, params string }{
		{"rpc.discover", "{}"}, {"daemon.info", "{}"}, {"session.create", `{"name":"n"}`},
		{"checkpoint.create", example(`{"session_id":"$","message":"m","checkpoint_id":"` + id + `"}`)},
		{"checkpoint.get", `{"checkpoint_id":"` + id + `"}`}, {"checkpoint.latest", example(`{"session_id":"$"}`)},
		{"checkpoint.latest", `{"session_id":"` + id + `"}`},
		{"checkpoint.restore", example(`{"session_id":"$","checkpoint_id":"` + id + `"}`)},
		{"session.put_state", example(`{"session_id":"$","state":1}`)},
	} {
		r := parseReply(t, w.ask(call(1, c.method, c.params)))
		if r.Error != nil {
			t.Fatalf("%s: %+v", c.method, r.Error)
		}
		fits(t, c.method, r.Result)
	}
}

func TestErrorsGoThereAndBack(t *testing.T) {
	for kind, code := range codes {
		in := &checkpoint.Error{Kind: kind, Message: "m", Field: "f", Retry: true, Data: map[string]any{"head_id": "x"}, Err: io.EOF}
		w := ToWire(fmt.Errorf("wrapped: %w", in))
		if w.Code != code || Code(kind) != code || strings.Contains(w.Message, "EOF") {
			t.Errorf("%s became %+v", kind, w)
		}
		var back *checkpoint.Error
		err := FromWire(w)
		if !errors.As(err, &back) || !errors.Is(err, &checkpoint.Error{Kind: kind}) || back.Field != "f" || !back.Retry || back.Data["head_id"] != "x" {
			t.Errorf("%s came back as %+v", kind, err)
		}
	}
	foreign := FromWire(&jsonrpc2.Error{Code: -1, Message: "m"})
	if !errors.Is(foreign, checkpoint.ErrInternal) || !strings.Contains(fmt.Sprintf("%+v", foreign), "m") {
		t.Errorf("got %+v", foreign)
	}
}

// fits holds a result to the closed schema of its method.
func fits(t *testing.T, name string, result json.RawMessage) {
	t.Helper()
	m := methodByName[name]
	if m == nil {
		m = discoverMethod
	}
	s, err := resultSchema(m)
	if err != nil {
		t.Fatal(err)
	}
	checkSchema(t, name, s, result)
}

func checkSchema(t *testing.T, name string, s *jsonschema.Schema, v json.RawMessage) {
	t.Helper()
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resolved.Validate(value(t, string(v))); err != nil {
		t.Errorf("%s: %v\nin %.2000s", name, err, v)
	}
}

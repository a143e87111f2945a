package storage

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// A context is rendered by hand; encoding/json says what it has to be. Every member must be
// in it, also one that is added to the type later.
func TestContextIsWhatJSONWouldBe(t *testing.T) {
	uid := uint32(1000)
	at := time.Date(2026, 11, 28, 10, 0, 0, 123456789, time.UTC)
	whole := checkpoint.Context{
		CapturedAt: at, StartedAt: at.Add(-time.Hour), PID: 7, UID: &uid, WorkingDir: "/a dir", EnvVars: map[string]string{"PWD": "/x", "LANG": "C"},
		Hostname: "host", Git: &checkpoint.Git{Head: "abc", Branch: "main", Dirty: true},
		Files:       []checkpoint.File{{Path: "/f", Mode: "0644", Bytes: 3, SHA256: "00", ModifiedAt: at}},
		StateSource: checkpoint.StateGiven, Metrics: map[string]uint64{"b": 2, "a": 1<<53 + 1},
		Detail: json.RawMessage(`{"tool":"Bash <&>"}`), ImportedSequence: 9,
	}
	for i := range reflect.TypeOf(whole).NumField() {
		if reflect.ValueOf(whole).Field(i).IsZero() {
			t.Errorf("the test leaves %s out", reflect.TypeOf(whole).Field(i).Name)
		}
	}
	empty := checkpoint.Context{}
	fill(&empty)
	for _, c := range []checkpoint.Context{whole, empty} {
		want, err := encode(&c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendContext(nil, &c)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s, %v, not\n%s", got, err, want)
		}
	}
	// What the two write in other ways reads the same.
	odd := whole
	odd.WorkingDir, odd.Hostname, odd.EnvVars = "\x00\b\f\u2028\"\\\xff", "<&>\n", map[string]string{"a\"": "\u2029"}
	want, err := encode(&odd)
	if err != nil {
		t.Fatal(err)
	}
	got, err := appendContext(nil, &odd)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if err := json.Unmarshal(want, &b); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%s is not %s", got, want)
	}
	whole.Detail = json.RawMessage(`{`)
	if _, err := appendContext(nil, &whole); err == nil {
		t.Error("a detail that is no JSON was taken")
	}
}

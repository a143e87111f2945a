package rpc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestEveryMethodOfTheDaemon calls each method that rpc.discover lists, on the real daemon,
// with an invalid and a valid request, and holds the answers to the schemas. The last one
// stops the daemon.
func TestEveryMethodOfTheDaemon(t *testing.T) {
	w := dial(t, daemon(t))
	raw := parseReply(t, w.ask(call(1, "rpc.discover", "{}"))).Result
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	failure, err := doc.Components.Schemas["Error"].Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, d := range doc.Methods {
		left[d.Name] = true
		for _, bad := range []string{example(examples[d.Name].bad), "[]"} {
			line := w.raw(t, call(7, d.Name, bad))
			var r struct{ Error json.RawMessage }
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Error == nil {
				t.Errorf("%s %s: %s, %v", d.Name, bad, line, err)
				continue
			}
			if err := failure.Validate(value(t, string(r.Error))); err != nil {
				t.Errorf("%s %s: %v", d.Name, bad, err)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(file, []byte("one\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	const first, second = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"
	fill := strings.NewReplacer("$S", aSession, "$1", first, "$2", second, "$FILE", file)
	var page, subscription, triggered string
	for _, c := range []struct{ method, params string }{
		{"rpc.discover", `{}`}, {"daemon.info", `{}`}, {"daemon.health", `{}`}, {"daemon.metrics", `{}`}, {"daemon.prometheus", `{}`},
		{"events.subscribe", `{}`},
		{"session.create", `{"name":"n","key":"k","session_id":"$S","labels":{"a":"b"},"auto":{"interval_seconds":0}}`},
		{"session.create", `{"name":"n","key":"k"}`},
		{"checkpoint.latest", `{"session_id":"$S"}`},
		{"checkpoint.create", `{"key":"k","message":"one","tags":["a"],"state":{"hypothesis_state":[1],"x":1},"metadata":{"m":1},"checkpoint_id":"$1","expected_head_id":null}`},
		{"checkpoint.create", `{"key":"k","message":"one","tags":["a"],"state":{"hypothesis_state":[1],"x":1},"metadata":{"m":1},"checkpoint_id":"$1"}`},
		{"session.put_state", `{"key":"k","state":{"x":2}}`},
		{"checkpoint.create", `{"session_id":"$S","message":"two","checkpoint_id":"$2"}`},
		{"checkpoint.annotate", `{"checkpoint_id":"$1","note":"look","severity":"warning"}`},
		{"checkpoint.get", `{"checkpoint_id":"$1"}`}, {"checkpoint.latest", `{"session_id":"$S"}`},
		{"checkpoint.at", `{"session_id":"$S","sequence_number":1}`}, {"checkpoint.at", `{"key":"k","time":"2001-01-01T00:00:00Z"}`},
		{"checkpoint.list", `{"key":"k","tags":["a"],"metadata":{"m":1},"text":"ONE","order":"desc"}`},
		{"checkpoint.list", `{"limit":1}`},
		{"checkpoint.restore", `{"session_id":"$S","checkpoint_id":"$1"}`},
		{"checkpoint.diff", `{"from":"$1","to":"$2"}`},
		{"checkpoint.hypothesis_state", `{"checkpoint_id":"$1"}`}, {"checkpoint.hypothesis_state", `{"checkpoint_id":"$2"}`},
		{"checkpoint.validate", `{"checkpoint_id":"$1"}`}, {"checkpoint.validate_all", `{}`}, {"checkpoint.validate_all", `{"key":"k"}`},
		{"checkpoint.fork", `{"checkpoint_id":"$1","name":"fork","key":"f"}`},
		{"session.attach", `{"key":"f"}`}, {"session.detach", `{"key":"f"}`},
		{"auto.enable", `{"key":"f","config":{"cron":"@daily","watch":[],"capture":{"files":["$FILE"]},"retention":{"keep_recent":5}}}`},
		{"auto.get", `{"key":"f"}`},
		{"auto.trigger", `{"key":"f","cause":"branch_switch","detail":{"a":1},"state":{"y":1}}`},
		{"checkpoint.file", `{"checkpoint_id":"@MADE","path":"$FILE"}`},
		{"auto.trigger", `{"key":"f","cause":"tool_call"}`},
		{"auto.get", `{"key":"f"}`}, {"auto.disable", `{"key":"f"}`}, {"auto.get", `{"key":"f"}`},
		{"daemon.sync", `{}`}, {"daemon.health", `{"validate":true}`},
		{"store.export", `{}`}, {"store.import", `{"data":$PAGE}`},
		{"checkpoint.compact", `{"key":"f","keep_recent":1,"dry_run":true}`}, {"checkpoint.compact", `{"key":"f","keep_recent":1}`},
		{"checkpoint.delete", `{"checkpoint_id":"$1"}`},
		{"session.close", `{"key":"k"}`}, {"session.reopen", `{"key":"k"}`}, {"session.get", `{"key":"k"}`}, {"session.list", `{}`},
		{"session.delete", `{"key":"f"}`}, {"events.unsubscribe", `{"subscription_id":"@SUB"}`},
		{"daemon.reload", `{}`}, {"daemon.shutdown", `{}`},
	} {
		params := strings.NewReplacer("$PAGE", page, "@SUB", subscription, "@MADE", triggered).Replace(fill.Replace(c.params))
		r := w.reply(t, call(7, c.method, params))
		delete(left, c.method)
		if r.Error != nil {
			t.Errorf("%s %.300s: %+v", c.method, params, *r.Error)
			continue
		}
		fits(t, c.method, r.Result)
		switch c.method {
		case "store.export":
			page = string(r.Result)
		case "events.subscribe":
			var s SubscribeResult
			if err := json.Unmarshal(r.Result, &s); err != nil {
				t.Fatal(err)
			}
			subscription = s.SubscriptionID
		case "auto.trigger":
			var made AutoTriggerResult
			if err := json.Unmarshal(r.Result, &made); err != nil {
				t.Fatal(err)
			}
			triggered = made.CheckpointID.String()
		case "checkpoint.file":
			if !strings.Contains(string(r.Result), `"mode":"0640","bytes":4,`) || !strings.Contains(string(r.Result), `"content":"one\n"`) {
				t.Errorf("the file came back as %s", r.Result)
			}
			if r := w.reply(t, call(7, c.method, fill.Replace(`{"checkpoint_id":"$2","path":"/none"}`))); r.Error == nil || r.Error.Code != -32001 {
				t.Errorf("checkpoint.file of none: %+v", r)
			}
		}
	}
	for name := range left {
		t.Errorf("%s was not called", name)
	}
	if rest := w.lines(); len(rest) > 0 {
		t.Errorf("after its end came %q", rest)
	}
}

var eventType = reflect.TypeFor[EventNotification]()

// raw asks and skips the notifications that come in between, each held to its schema.
func (w *wire) raw(t *testing.T, request string) string {
	t.Helper()
	w.send(request + "\n")
	for {
		line := w.line()
		var n struct {
			Method string
			Params json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &n); err != nil {
			t.Fatal(err)
		}
		if n.Method == "" {
			return line
		}
		event, err := schemaOf(eventType)
		if err != nil {
			t.Fatal(err)
		}
		checkSchema(t, "event", event, n.Params)
	}
}

func (w *wire) reply(t *testing.T, request string) reply {
	t.Helper()
	return parseReply(t, w.raw(t, request))
}

package autotrigger

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestDecode(t *testing.T) {
	base := checkpoint.DefaultAuto()
	base.IntervalSeconds = 60
	five := int64(5)
	for _, test := range []struct {
		raw  string
		want func(*checkpoint.AutoConfig)
	}{
		{``, func(*checkpoint.AutoConfig) {}},
		{`{}`, func(*checkpoint.AutoConfig) {}},
		{`{"interval_seconds":0,"on_tool_call":true}`, func(c *checkpoint.AutoConfig) { c.IntervalSeconds, c.OnToolCall = 0, true }},
		{`{"causes":[]}`, func(c *checkpoint.AutoConfig) { c.Causes = []checkpoint.Cause{} }},
		{`{"capture":{"git":true}}`, func(c *checkpoint.AutoConfig) { c.Capture.Git = true }},
		{`{"retention":{"keep_recent":5}}`, func(c *checkpoint.AutoConfig) { c.Retention = &checkpoint.Retention{KeepRecent: &five} }},
		{`{"watch":[{"path":"/a","debounce_ms":1}]}`, func(c *checkpoint.AutoConfig) {
			w := checkpoint.DefaultWatch()
			w.Path, w.DebounceMS = "/a", 1
			c.Watch = []checkpoint.Watch{w}
		}},
		{`{"watch":[{"path":"/a","format":"jsonl","match":{"error":{"a.b":1}}}]}`, func(c *checkpoint.AutoConfig) {
			w := checkpoint.DefaultWatch()
			w.Path, w.Format, w.Match = "/a", "jsonl", &checkpoint.Match{Error: map[string]any{"a.b": 1.0}}
			c.Watch = []checkpoint.Watch{w}
		}},
	} {
		want := base
		test.want(&want)
		got, err := Decode(base, json.RawMessage(test.raw), "config.")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", test.raw, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, test := range []struct{ raw, field string }{
		{`[]`, "config"},
		{`{"intervall":1}`, "config.intervall"},
		{`{"interval_seconds":1,"interval_seconds":2}`, "config.interval_seconds"},
		{`{"interval_seconds":-1}`, "config.interval_seconds"},
		{`{"interval_seconds":1.5}`, "config.interval_seconds"},
		{`{"interval_seconds":"1"}`, "config.interval_seconds"},
		{`{"interval_seconds":1e30}`, "config.interval_seconds"},
		{`{"interval_seconds":null}`, "config.interval_seconds"},
		{`{"on_error":"yes"}`, "config.on_error"},
		{`{"cron":"TZ="}`, "config.cron"},
		{`{"causes":["file_change"]}`, "config.causes[0]"},
		{`{"causes":"all"}`, "config.causes"},
		{`{"min_gap_seconds":-1}`, "config.min_gap_seconds"},
		{`{"watch":{}}`, "config.watch"},
		{`{"watch":[{"path":"/a"},7]}`, "config.watch[1]"},
		{`{"watch":[{}]}`, "config.watch[0].path"},
		{`{"watch":[{"path":"a"}]}`, "config.watch[0].path"},
		{`{"watch":[{"path":"~/a"}]}`, "config.watch[0].path"},
		{`{"watch":[{"path":"/a/[b"}]}`, "config.watch[0].path"},
		{`{"watch":[{"path":"/a\u0000"}]}`, "config.watch[0].path"},
		{`{"watch":[{"path":"/a","paht":1}]}`, "config.watch[0].paht"},
		{`{"watch":[{"path":"/a","ignore":[1]}]}`, "config.watch[0].ignore[0]"},
		{`{"watch":[{"path":"/a","ignore":[" "]}]}`, "config.watch[0].ignore[0]"},
		{`{"watch":[{"path":"/a","debounce_ms":-1}]}`, "config.watch[0].debounce_ms"},
		{`{"watch":[{"path":"/a","max_wait_ms":10}]}`, "config.watch[0].max_wait_ms"},
		{`{"watch":[{"path":"/a","cause":"interval"}]}`, "config.watch[0].cause"},
		{`{"watch":[{"path":"/a","cause":"x"}]}`, "config.watch[0].cause"},
		{`{"watch":[{"path":"/a","format":"xml"}]}`, "config.watch[0].format"},
		{`{"watch":[{"path":"/a","format":"jsonl"}]}`, "config.watch[0].match"},
		{`{"watch":[{"path":"/a","format":"codex","match":{}}]}`, "config.watch[0].match"},
		{`{"watch":[{"path":"/a","from_start":true}]}`, "config.watch[0].from_start"},
		{`{"capture":{"env":["A=B"]}}`, "config.capture.env[0]"},
		{`{"capture":{"files":["a"]}}`, "config.capture.files[0]"},
		{`{"capture":{"x":1}}`, "config.capture.x"},
		{`{"retention":{"keep_recent":-1}}`, "config.retention.keep_recent"},
		{`{"retention":{"keep":1}}`, "config.retention.keep"},
	} {
		_, err := Decode(checkpoint.DefaultAuto(), json.RawMessage(test.raw), "config.")
		var e *checkpoint.Error
		if !errors.As(err, &e) || e.Field != test.field || e.Kind != checkpoint.KindInvalidParams {
			t.Errorf("%s: %v, want an error at %s", test.raw, err, test.field)
		}
	}
}

func TestExpandHome(t *testing.T) {
	c := checkpoint.AutoConfig{Watch: []checkpoint.Watch{{Path: "~/a/*"}, {Path: "/~/b"}}, Capture: checkpoint.Capture{Files: []string{"~", "~x"}}}
	shared := c.Watch
	ExpandHome(&c, "/home/u")
	if c.Watch[0].Path != filepath.Join("/home/u", "a", "*") || c.Watch[1].Path != "/~/b" || c.Capture.Files[0] != "/home/u" || c.Capture.Files[1] != "~x" || shared[0].Path != "~/a/*" {
		t.Errorf("%+v %+v", c, shared)
	}
}

func TestParseCron(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct{ spec, next, refused string }{
		{spec: "*/15 * * * *", next: "2026-01-01T12:15:00Z"},
		{spec: " 0 3 * * MON ", next: "2026-01-05T03:00:00Z"},
		{spec: "@hourly", next: "2026-01-01T13:00:00Z"},
		{spec: "@every 90m", next: "2026-01-01T13:30:00Z"},
		{spec: "CRON_TZ=Asia/Tokyo 0 0 * * *", next: "2026-01-01T15:00:00Z"},
		{spec: "0 0 29 2 *", next: "2028-02-29T00:00:00Z"},
		{spec: "0 0 30 2 *", refused: "never fires"},
		{spec: "0 0 31 4,6 *", refused: "never fires"},
		{spec: "TZ=UTC", refused: "CRON_TZ"},
		{spec: "TZ=", refused: "CRON_TZ"},
		{spec: "TZ=UTC * * * * *", refused: "CRON_TZ"},
		{spec: "CRON_TZ=", refused: "space"},
		{spec: "CRON_TZ=UTC", refused: "space"},
		{spec: "CRON_TZ= * * * * *", refused: "space"},
		{spec: "CRON_TZ=Mars/Base * * * * *", refused: "time zone"},
		{spec: "@every 100ms", refused: "too short"},
		{spec: "@every 0s", refused: "too short"},
		{spec: "@every -5m", refused: "too short"},
		{spec: "@every 1500ms", refused: "whole seconds"},
		{spec: "@every 1d", refused: "duration"},
		{spec: "@every", refused: "no cron spec"},
		{spec: "@reboot", refused: "no cron spec"},
		{spec: "0 * * * * *", refused: "five"},
		{spec: "* * * *", refused: "five"},
		{spec: "60 * * * *", refused: "no cron spec"},
		{spec: "*/0 * * * *", refused: "no cron spec"},
		{spec: "", refused: "five"},
		{spec: strings.Repeat("1,", 200) + "1 * * * *", refused: "256"},
	} {
		s, err := ParseCron(test.spec, now)
		if test.refused != "" {
			if err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%q: %v, want %q", test.spec, err, test.refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.spec, err)
			continue
		}
		if got := s.Next(now).UTC().Format(time.RFC3339); got != test.next {
			t.Errorf("%q: next %s, want %s", test.spec, got, test.next)
		}
	}
}

func FuzzParseCron(f *testing.F) {
	for _, s := range []string{"* * * * *", "TZ=", "CRON_TZ=UTC @every 1m", "@every 1h30m", "1-2/3 ? L * *"} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := ParseCron(spec, now)
		if err == nil && !s.Next(now).After(now) {
			t.Errorf("%q does not go on", spec)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"watch":[{"path":"/a","ignore":["x"]}],"retention":null}`)
	f.Fuzz(func(t *testing.T, raw string) {
		cfg, err := Decode(checkpoint.DefaultAuto(), json.RawMessage(raw), "")
		if err != nil {
			return
		}
		b, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(checkpoint.DefaultAuto(), b, "")
		if err != nil || !reflect.DeepEqual(again, cfg) {
			t.Errorf("%s: %+v is not %+v (%v)", raw, again, cfg, err)
		}
	})
}

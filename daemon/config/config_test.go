package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// testSystem has a home of its own and nothing in its environment.
func testSystem(t *testing.T, uid int, env map[string]string) System {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"etc/forge-cpd", "run", "tmp", "home/me"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return System{UID: uid, Home: filepath.Join(root, "home/me"), Root: root, Getenv: func(k string) string { return env[k] }}
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("config.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNothingIsTheDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n", "{}\n", "\ufeff# a byte order mark\n"} {
		c := mustParse(t, text)
		c.file, c.lines = "", nil
		if !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q: not the defaults: %+v", text, c)
		}
	}
}

func TestValuesArriveWhereTheyBelong(t *testing.T) {
	c := mustParse(t, `
socket: {path: /run/x.sock, mode: "0660", allowed_uids: [1000, 0], allowed_gids: [4294967294]}
storage: {driver: postgres, url: "postgres://me@db/forge"}
limits: {frame_timeout: 1m30s, idle_timeout: 0s, connections: 7}
auto: {interval_seconds: 60, watch: [{path: /srv/a}], retention: {keep_recent: 0}}
retention: {keep_daily: 7, every: 2h, max_store_bytes: 1000000}
sessions:
  - key: one
    labels: {project: app}
    auto:
      on_tool_call: true
      watch:
        - {path: ~/notes.md, debounce_ms: 0}
        - {path: /log.jsonl, format: jsonl, match: {tool_call: {type: result, n: 1.5, ok: true}}}
  - {key: two, auto: {}}
  - {key: three}
`)
	if c.Socket.FileMode() != 0o660 || !reflect.DeepEqual(c.Socket.AllowedUIDs, []uint32{1000, 0}) || c.Socket.AllowedGIDs[0] != 4294967294 {
		t.Errorf("socket: %+v", c.Socket)
	}
	if c.Limits.FrameTimeout != 90*time.Second || c.Limits.IdleTimeout != 0 || c.Limits.Connections != 7 || c.Limits.JSONDepth != 1000 {
		t.Errorf("limits: %+v", c.Limits)
	}
	r := c.Retention
	if r.KeepRecent != nil || r.KeepManual || *r.KeepDaily != 7 || r.Every != 2*time.Hour || r.MaxStoreBytes != 1000000 {
		t.Errorf("a given retention replaces the default whole: %+v", r)
	}
	if len(c.Sessions) != 3 || c.Sessions[2].Auto != nil || c.Sessions[1].Auto == nil {
		t.Fatalf("sessions: %+v", c.Sessions)
	}
	one, two := c.Sessions[0].Auto, c.Sessions[1].Auto
	if one.IntervalSeconds != 60 || !one.OnToolCall || !one.OnError || *one.Retention.KeepRecent != 0 {
		t.Errorf("a session's auto starts from the file's: %+v", one)
	}
	w := one.Watch[0]
	if len(one.Watch) != 2 || w.Path != filepath.Join(Host().Home, "notes.md") || w.DebounceMS != 0 || w.MaxWaitMS != 10000 || w.Cause != "file_change" {
		t.Errorf("a watch starts from its defaults, ~ made absolute: %+v", w)
	}
	want := map[string]any{"type": "result", "n": 1.5, "ok": true}
	if !reflect.DeepEqual(one.Watch[1].Match.ToolCall, want) {
		t.Errorf("match: %#v", one.Watch[1].Match.ToolCall)
	}
	if len(two.Watch) != 1 || two.Watch[0].Path != "/srv/a" {
		t.Errorf("auto: {} is the file's auto: %+v", two)
	}
	two.Watch[0].Path = "changed"
	*two.Retention.KeepRecent = 9
	if c.Auto.Watch[0].Path != "/srv/a" {
		t.Error("sessions share their watches with auto")
	}
	keepAll := mustParse(t, "retention: {}")
	if !keepAll.Retention.Retention.IsZero() || keepAll.Retention.Every != time.Hour {
		t.Errorf("retention: {} keeps all: %+v", keepAll.Retention)
	}
}

// Each file in testdata/bad holds one mistake, and what is said about it in its first
// comment lines.
func TestEachMistakeHasItsMessage(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				text, comment := strings.CutPrefix(line, "#! ")
				if !comment {
					break
				}
				want = append(want, strings.TrimRight(text, "\n"))
			}
			_, err = Parse(filepath.Base(path), data)
			if err == nil {
				t.Fatal("was accepted")
			}
			if err.Error() != strings.Join(want, "\n") {
				t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
			}
		})
	}
}

func TestErrorfNamesTheNearestLine(t *testing.T) {
	c := mustParse(t, "auto:\n  cron: nonsense\nsessions:\n  - key: a\n    auto: {}\n")
	for key, want := range map[string]string{
		"auto.cron":             "config.yaml:2: auto.cron: is bad",
		"sessions[0].auto.cron": "config.yaml:5: sessions[0].auto.cron: is bad",
		"scrub.cron":            "config.yaml: scrub.cron: is bad",
	} {
		if got := c.Errorf(key, "is %s", "bad").Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v and %v", c, err)
		}
	})
}

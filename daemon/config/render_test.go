package config

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// structKeys lists every key that the structs have, list elements as [] and names as {}.
func structKeys(t reflect.Type, key string, keys *[]string) {
	switch {
	case t == durationType:
	case t.Kind() == reflect.Pointer:
		structKeys(t.Elem(), key, keys)
	case t.Kind() == reflect.Slice:
		*keys = append(*keys, key+"[]")
		structKeys(t.Elem(), key+"[]", keys)
	case t.Kind() == reflect.Map:
		*keys = append(*keys, key+".{}")
		structKeys(t.Elem(), key+".{}", keys)
	case t.Kind() == reflect.Struct:
		for _, f := range fieldsOf(reflect.New(t).Elem()) {
			*keys = append(*keys, joinKey(key, f.name))
			structKeys(f.value.Type(), joinKey(key, f.name), keys)
		}
	}
}

func TestEveryKeyHasItsRowAndEveryRowItsKey(t *testing.T) {
	var have, want []string
	structKeys(reflect.TypeFor[Config](), "", &have)
	for i, k := range have {
		have[i] = generic(k)
	}
	for _, k := range Keys {
		want = append(want, k.Name)
		if strings.TrimSpace(k.Doc) == "" {
			t.Errorf("%s: no word on what it does", k.Name)
		}
	}
	slices.Sort(have)
	have = slices.Compact(have)
	// sessions[].auto and auto.retention share the rows of auto and retention.
	have = append(have, "sessions[].auto")
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		for _, k := range have {
			if !slices.Contains(want, k) {
				t.Errorf("%s has no row in Keys: add one", k)
			}
		}
		for _, k := range want {
			if !slices.Contains(have, k) {
				t.Errorf("the row %s has no field: remove it", k)
			}
		}
	}
}

func TestDefaultsKeepTheirOwnRules(t *testing.T) {
	back, err := Parse("defaults", Default().YAML())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, back), asJSON(t, Default()); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func asJSON(t *testing.T, c *Config) string {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestShownConfigurationLoadsAsItself(t *testing.T) {
	c := mustParse(t, `
storage: {driver: postgres, url: "postgres://me@h/db"}
retention: {keep_recent: 0, preserve_tags: ["1.0", "yes", 'a "b" #c']}
limits: {idle_timeout: 36h5s}
sessions: [{key: "0600", labels: {"on": "~", b: "é"}, auto: {watch: [{path: /a, format: jsonl, match: {error: {a.b: false, n: 1}}}]}}]
`)
	back, err := Parse("shown", c.YAML())
	if err != nil {
		t.Fatalf("%v in\n%s", err, c.YAML())
	}
	if got, want := asJSON(t, back), asJSON(t, c); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	var shape struct {
		Limits   map[string]any
		Sessions []struct{ Labels map[string]string }
	}
	if err := json.Unmarshal([]byte(asJSON(t, c)), &shape); err != nil || shape.Limits["idle_timeout"] != "36h0m5s" || shape.Sessions[0].Labels["on"] != "~" {
		t.Errorf("%v: %s", err, asJSON(t, c))
	}
}

func TestShownConfigurationHoldsNoPassword(t *testing.T) {
	c := mustParse(t, `storage: {driver: postgres, url: "postgres://me:hunter2@h/db"}`)
	if all := string(c.YAML()) + asJSON(t, c); strings.Contains(all, "hunter2") || !strings.Contains(all, "me@h") {
		t.Error(all)
	}
	if c.Storage.URL != "postgres://me:hunter2@h/db" {
		t.Error("the configuration itself lost it")
	}
}

func TestChangedTellsWhatWaitsForARestart(t *testing.T) {
	from, to := Default(), Default()
	to.Log.Level, to.Socket.Path, to.Limits.Connections = "debug", "/x", 3
	to.Sessions = []Session{{Key: "a"}}
	changed, restart := Changed(from, to)
	if !slices.Equal(changed, []string{"socket.path", "limits.connections", "log.level", "sessions"}) || !slices.Equal(restart, []string{"socket.path"}) {
		t.Errorf("changed %v, restart %v", changed, restart)
	}
}

func TestExampleIsTheDefaultsAndItsCommentsLoad(t *testing.T) {
	data, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("config.example.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, c), asJSON(t, Default()); got != want {
		t.Errorf("the example is not the defaults: %s\nwant %s", got, want)
	}
	// With the commented keys and the sample session in force.
	text := regexp.MustCompile(`(?m)^( *)# ([a-z_]+: (0|\{.*\}))$`).ReplaceAllString(string(data), "$1$2")
	text = strings.Replace(text, "sessions: []", "sessions:", 1)
	text = regexp.MustCompile(`(?m)^#([- ] .*(:|- ).*)$`).ReplaceAllStringFunc(text, func(line string) string {
		if strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "#  ") {
			return line
		}
		return line[1:]
	})
	if c, err = Parse("uncommented", []byte(text)); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if len(c.Sessions) != 1 || len(c.Sessions[0].Auto.Watch) != 3 || c.Retention.MaxAgeSeconds == nil || c.Auto.Retention == nil {
		t.Errorf("the comments do not show every key: %+v", c)
	}
	for _, k := range Keys {
		name := k.Name[strings.LastIndex(k.Name, ".")+1:]
		if !strings.HasSuffix(name, "[]") && name != "{}" && !strings.Contains(text, name+":") {
			t.Errorf("the example does not show %s", k.Name)
		}
	}
}

func TestDurationsAreWrittenAsPeopleDo(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Hour: "1h", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", 100 * time.Millisecond: "100ms", 36*time.Hour + 5*time.Second: "36h0m5s"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"gopkg.in/yaml.v3"
)

const configDir = "../.."

func TestGeneratedFilesAreFresh(t *testing.T) {
	files, err := outputs()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join(configDir, path))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is stale: run make generate", filepath.Clean(filepath.Join("daemon/config", path)))
		}
	}
}

func TestSchemaTakesTheExampleAndRefusesMistakes(t *testing.T) {
	data, err := schemaJSON()
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	validate := func(text []byte) error {
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		return resolved.Validate(value)
	}
	if err := validate(example()); err != nil {
		t.Errorf("the example: %v", err)
	}
	session := "sessions:\n" + strings.ReplaceAll("\n"+exampleSession, "\n#", "\n")
	if err := validate([]byte(session)); err != nil {
		t.Errorf("the sample session: %v", err)
	}
	for _, bad := range []string{
		"unknown_key", "unknown_in_watch", "fraction", "number_too_small", "number_too_large", "negative", "quoted_number",
		"quoted_true", "bad_mode", "null_value", "list_for_map", "map_for_list", "text_for_list", "number_for_text",
		"number_for_duration", "bad_duration", "bad_driver", "bad_cause", "watch_format", "watch_without_path",
		"session_without_key", "overflow_uid",
	} {
		text, err := os.ReadFile(filepath.Join(configDir, "testdata/bad", bad+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if validate(text) == nil {
			t.Errorf("the schema takes %s.yaml", bad)
		}
	}
}

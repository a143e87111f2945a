package main

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/forge-cpd/forge-cpd/daemon/config"
)

const durationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

func schemaJSON() ([]byte, error) {
	root := schemaOf(reflect.TypeFor[config.Config](), "")
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.Title = "forge-cpd configuration"
	root.Description = "config.yaml of forge-cpd, the checkpoint daemon"
	data, err := json.MarshalIndent(root, "", "  ")
	return append(data, '\n'), err
}

func schemaOf(t reflect.Type, key string) *jsonschema.Schema {
	row, _ := config.Lookup(key)
	s := &jsonschema.Schema{Description: row.Doc}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		s.Type, s.Pattern = "string", durationPattern
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), key)
	case t.Kind() == reflect.Struct:
		s.Type, s.Properties, s.AdditionalProperties = "object", map[string]*jsonschema.Schema{}, &jsonschema.Schema{Not: &jsonschema.Schema{}}
		addProperties(s, t, key)
		if key == "sessions[]" {
			s.Required = []string{"key"}
		}
		if strings.HasSuffix(key, ".watch[]") {
			s.Required = []string{"path"}
		}
	case t.Kind() == reflect.Slice:
		s.Type, s.Items = "array", schemaOf(t.Elem(), key+"[]")
	case t.Kind() == reflect.Map:
		s.Type, s.AdditionalProperties = "object", schemaOf(t.Elem(), key+".{}")
	case t.Kind() == reflect.Interface:
		s.Types = []string{"string", "number", "boolean"}
	case t.Kind() == reflect.Bool:
		s.Type = "boolean"
	case t.Kind() == reflect.String:
		s.Type = "string"
		for _, one := range row.OneOf {
			s.Enum = append(s.Enum, one)
		}
		if key == "socket.mode" {
			s.Pattern = `^0[67][0-7]{2}$`
		}
	default:
		s.Type = "integer"
		s.Minimum = bound(row.Min)
		s.Maximum = bound(row.Max)
	}
	if text, ok := defaults()[key]; ok {
		s.Default = json.RawMessage(text)
	}
	return s
}

func addProperties(s *jsonschema.Schema, t reflect.Type, key string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			addProperties(s, f.Type, key)
		case name != "":
			path := name
			if key != "" {
				path = key + "." + name
			}
			s.Properties[name] = schemaOf(f.Type, path)
			s.PropertyOrder = append(s.PropertyOrder, name)
		}
	}
}

// bound leaves out what a float64, JSON's number, cannot hold exactly.
func bound(i int64) *float64 {
	if i == math.MaxInt64 || i == math.MinInt64 {
		return nil
	}
	f := float64(i)
	return &f
}

// defaults maps each key outside lists to its default as JSON.
func defaults() map[string]string {
	data, err := json.Marshal(config.Default())
	if err != nil {
		panic(fmt.Sprintf("the defaults are always JSON: %v", err))
	}
	flat := map[string]string{}
	flatten(data, "", flat)
	return flat
}

func flatten(data json.RawMessage, key string, flat map[string]string) {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil {
		flat[key] = string(data)
		return
	}
	for name, value := range members {
		path := name
		if key != "" {
			path = key + "." + name
		}
		flatten(value, path, flat)
	}
}

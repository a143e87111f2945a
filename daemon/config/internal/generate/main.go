// Command generate writes what is made from the table of keys: the JSON Schema, the
// example and the reference. `make generate` runs it; a test fails when one is stale.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// run writes all outputs; dir is the directory of package config.
func run(dir string) error {
	files, err := outputs()
	if err != nil {
		return err
	}
	for path, data := range files {
		if err := os.WriteFile(filepath.Join(dir, path), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// outputs maps a path, from the directory of package config, to its content.
func outputs() (map[string][]byte, error) {
	schema, err := schemaJSON()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"schema.json":                 schema,
		"../../config.example.yaml":   example(),
		"../../docs/configuration.md": reference(),
	}, nil
}

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// maxFileBytes bounds what is read: the full example has a few kilobytes.
const maxFileBytes = 1 << 20

// Load reads a file onto the defaults. It refuses what it does not understand, with every
// mistake's file, line, key and remedy (Errors); an empty file is all defaults. Paths that
// begin with ~/ come back absolute.
func Load(path string) (*Config, error) { return Host().Load(path) }

// Parse is Load for text that is at hand; name stands for the file in errors.
func Parse(name string, data []byte) (*Config, error) { return Host().parse(name, data) }

// Load is the package's Load with this system's home directory.
func (s System) Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading the configuration: %s is not a regular file", path)
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("reading the configuration: %s has %d bytes; %d are taken at most", path, info.Size(), maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return s.parse(path, data)
}

func (s System) parse(file string, data []byte) (*Config, error) {
	c := Default()
	c.file, c.lines = file, map[string]int{}
	root, err := parseYAML(file, data)
	if err != nil {
		return nil, err
	}
	d := decoder{cfg: c}
	if root != nil {
		if root.kind == kindMap {
			for _, k := range root.keys {
				if k.text == "retention" {
					c.Retention.Retention = checkpoint.Retention{}
				}
			}
		}
		d.value(root, reflect.ValueOf(c).Elem(), "")
	}
	if len(d.errors) == 0 {
		d.errors = c.check()
	}
	if err := d.errors.orNil(); err != nil {
		return nil, err
	}
	if err := s.expandAll(c); err != nil {
		return nil, err
	}
	return c, nil
}

// expandAll makes every path absolute, so that nobody else needs to know about ~.
func (s System) expandAll(c *Config) error {
	targets := map[string]*string{"socket.path": &c.Socket.Path, "storage.dir": &c.Storage.Dir}
	add := func(key string, watch int, p *string) { targets[fmt.Sprintf("%s[%d]", key, watch)] = p }
	for i := range c.Auto.Watch {
		add("auto.watch", i, &c.Auto.Watch[i].Path)
	}
	for i := range c.Auto.Capture.Files {
		add("auto.capture.files", i, &c.Auto.Capture.Files[i])
	}
	for i := range c.Sessions {
		auto := c.Sessions[i].Auto
		if auto == nil {
			continue
		}
		for j := range auto.Watch {
			add(fmt.Sprintf("sessions[%d].auto.watch", i), j, &auto.Watch[j].Path)
		}
		for j := range auto.Capture.Files {
			add(fmt.Sprintf("sessions[%d].auto.capture.files", i), j, &auto.Capture.Files[j])
		}
	}
	for key, p := range targets {
		rest, tilde := strings.CutPrefix(*p, "~/")
		if !tilde {
			continue
		}
		if s.Home == "" {
			return c.Errorf(key, "begins with ~/, but uid %d has no home directory: write the path out", s.UID)
		}
		*p = filepath.Join(s.Home, rest)
	}
	return nil
}

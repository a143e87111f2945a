// Package config holds what a user may set: the configuration file, read strictly, and
// the one resolver of paths that daemon and clients share, so that both mean the same
// socket. Start with Resolve. It imports package checkpoint and nothing else of forge-cpd,
// and starts nothing.
//
// Every key has a row in the table Keys: what it is for, its default's reason and its
// range. The decoder checks by it, and the example, the JSON Schema and the reference in
// docs/configuration.md are made from it.
package config

//go:generate go run ./internal/generate

import (
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Config is the whole configuration. A zero value is not the default: Default() is.
type Config struct {
	Socket    Socket                `yaml:"socket"`
	Storage   Storage               `yaml:"storage"`
	Limits    Limits                `yaml:"limits"`
	Auto      checkpoint.AutoConfig `yaml:"auto"`
	Retention Retention             `yaml:"retention"`
	Scrub     Scrub                 `yaml:"scrub"`
	Capture   Capture               `yaml:"capture"`
	Events    Events                `yaml:"events"`
	Log       Log                   `yaml:"log"`
	Metrics   Metrics               `yaml:"metrics"`
	Sessions  []Session             `yaml:"sessions"`

	file  string
	lines map[string]int
}

// Socket is where clients connect, and who may.
type Socket struct {
	Path        string   `yaml:"path"`
	Mode        string   `yaml:"mode"` // four octal digits: FileMode parses them
	AllowedUIDs []uint32 `yaml:"allowed_uids"`
	AllowedGIDs []uint32 `yaml:"allowed_gids"`
}

// Storage says what keeps the checkpoints.
type Storage struct {
	Driver         string `yaml:"driver"`
	Dir            string `yaml:"dir"`
	AllowNetworkFS bool   `yaml:"allow_network_fs"`
	URL            string `yaml:"url"`
}

// The drivers.
const (
	DriverDirectory = "directory"
	DriverMemory    = "memory"
	DriverPostgres  = "postgres"
)

// Limits bound what clients can make the daemon hold.
type Limits struct {
	FrameBytes                 int64         `yaml:"frame_bytes"`
	StateBytes                 int64         `yaml:"state_bytes"`
	MetadataBytes              int64         `yaml:"metadata_bytes"`
	InFlightBytes              int64         `yaml:"in_flight_bytes"`
	Connections                int           `yaml:"connections"`
	FrameTimeout               time.Duration `yaml:"frame_timeout"`
	InFlightPerConnection      int           `yaml:"in_flight_per_connection"`
	SubscriptionsPerConnection int           `yaml:"subscriptions_per_connection"`
	JSONDepth                  int           `yaml:"json_depth"`
	IdleTimeout                time.Duration `yaml:"idle_timeout"`
	WriteTimeout               time.Duration `yaml:"write_timeout"`
	DrainTimeout               time.Duration `yaml:"drain_timeout"`
	MessageBytes               int           `yaml:"message_bytes"`
	NameBytes                  int           `yaml:"name_bytes"`
	KeyBytes                   int           `yaml:"key_bytes"`
	Tags                       int           `yaml:"tags"`
	TagBytes                   int           `yaml:"tag_bytes"`
	Labels                     int           `yaml:"labels"`
	LabelBytes                 int           `yaml:"label_bytes"`
	NotificationBytes          int           `yaml:"notification_bytes"`
	ImportBytes                int64         `yaml:"import_bytes"`
}

// Retention is what is kept where a session has no rules of its own. No rule keeps all.
type Retention struct {
	checkpoint.Retention `yaml:",inline"`

	Every         time.Duration `yaml:"every"`
	MaxStoreBytes int64         `yaml:"max_store_bytes"` // 0: no bound
}

// Scrub reads the whole store again, slowly, to find damage early.
type Scrub struct {
	Cron           string `yaml:"cron"` // "": off
	BytesPerSecond int64  `yaml:"bytes_per_second"`
}

// Capture bounds what the daemon reads of an agent for a checkpoint's context.
type Capture struct {
	Env        []string      `yaml:"env"`
	Redact     bool          `yaml:"redact"`
	Timeout    time.Duration `yaml:"timeout"`
	FileBytes  int64         `yaml:"file_bytes"`
	TotalBytes int64         `yaml:"total_bytes"`
}

// Events says how many are kept for clients that come back.
type Events struct {
	Retain int `yaml:"retain"`
}

// Log is the daemon's own log, on stderr.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Metrics serves /metrics over HTTP on a loopback address; "" is off.
type Metrics struct {
	Listen string `yaml:"listen"`
}

// Session is one that the daemon opens by itself. Auto is nil when the file gives none;
// what the file leaves out of it comes from the file's own `auto:`.
type Session struct {
	Key    string                 `yaml:"key"`
	Name   string                 `yaml:"name"` // "": the key
	Labels map[string]string      `yaml:"labels"`
	Auto   *checkpoint.AutoConfig `yaml:"auto"`
}

// Default is the configuration of an empty file.
func Default() *Config {
	recent, hourly, daily := int64(200), int64(72), int64(90)
	return &Config{
		Socket:  Socket{Mode: "0600", AllowedUIDs: []uint32{}, AllowedGIDs: []uint32{}},
		Storage: Storage{Driver: DriverDirectory},
		Limits: Limits{
			FrameBytes: 32 << 20, StateBytes: 16 << 20, MetadataBytes: 64 << 10, InFlightBytes: 128 << 20,
			Connections: 1024, FrameTimeout: 30 * time.Second, InFlightPerConnection: 256,
			SubscriptionsPerConnection: 64, JSONDepth: 1000, WriteTimeout: 10 * time.Second,
			DrainTimeout: 20 * time.Second,
			MessageBytes: 16 << 10, NameBytes: 1 << 10, KeyBytes: 512, Tags: 64, TagBytes: 256,
			Labels: 64, LabelBytes: 1 << 10, NotificationBytes: 1 << 20, ImportBytes: 256 << 20,
		},
		Auto: checkpoint.DefaultAuto(),
		Retention: Retention{
			Retention: checkpoint.Retention{
				KeepRecent: &recent, KeepHourly: &hourly, KeepDaily: &daily, KeepManual: true, KeepTagged: true,
				PreserveTags: []string{},
			},
			Every: time.Hour,
		},
		Scrub: Scrub{Cron: "@daily", BytesPerSecond: 8 << 20},
		Capture: Capture{
			Env: []string{"PATH", "PWD", "LANG"}, Redact: true, Timeout: 5 * time.Second,
			FileBytes: 16 << 20, TotalBytes: 64 << 20,
		},
		Events:   Events{Retain: 100_000},
		Log:      Log{Level: "info", Format: "text"},
		Sessions: []Session{},
	}
}

// File is the path that Load read, or "" for the defaults.
func (c *Config) File() string { return c.file }

// Errorf says what is wrong with the value of a key ("sessions[0].auto.cron"), with the
// file and the line that gave it. It is for checks that need more than this package knows.
func (c *Config) Errorf(key, format string, args ...any) error {
	return problem(c.file, c.lineOf(key), key, format, args...)
}

// lineOf finds the nearest enclosing key that the file holds: a default has no line.
func (c *Config) lineOf(key string) int {
	for key != "" {
		if line, ok := c.lines[key]; ok {
			return line
		}
		key = parentKey(key)
	}
	return 0
}

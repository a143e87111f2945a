package autotrigger

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// The formats of a followed transcript.
const (
	FormatClaudeCode = transcript.ClaudeCode
	FormatCodex      = transcript.Codex
	FormatGemini     = transcript.Gemini
	FormatJSONL      = transcript.JSONL
)

// What one session may ask for. They keep one configuration from taking the daemon down.
const (
	maxSeconds    = 366 * 24 * 3600 // a year: beyond it a duration is a mistake
	maxDebounceMS = 60_000
	maxWaitMS     = 3_600_000
	maxWatches    = 64
	maxPatterns   = 1_000
)

// Validate checks a whole AutoConfig as Decode does: for one that was read by other means.
func Validate(cfg checkpoint.AutoConfig, prefix string) error {
	if err := within(prefix+"interval_seconds", cfg.IntervalSeconds, 0, maxSeconds); err != nil {
		return err
	}
	if err := within(prefix+"min_gap_seconds", cfg.MinGapSeconds, 0, maxSeconds); err != nil {
		return err
	}
	if cfg.Cron != "" {
		if _, err := ParseCron(cfg.Cron, time.Now()); err != nil {
			return checkpoint.Invalid(prefix+"cron", "%w", err)
		}
	}
	for i, c := range cfg.Causes {
		if !slices.Contains(checkpoint.SeedCauses, c) {
			return checkpoint.Invalid(fmt.Sprintf("%scauses[%d]", prefix, i), "%q cannot be chosen; give some of %s", c, joined(checkpoint.SeedCauses))
		}
	}
	if len(cfg.Watch) > maxWatches {
		return checkpoint.Invalid(prefix+"watch", "%d watches; give at most %d, or a glob", len(cfg.Watch), maxWatches)
	}
	for i, w := range cfg.Watch {
		if err := validateWatch(w, fmt.Sprintf("%swatch[%d].", prefix, i)); err != nil {
			return err
		}
	}
	if err := validateCapture(cfg.Capture, prefix+"capture."); err != nil {
		return err
	}
	if cfg.Retention != nil {
		return validateRetention(*cfg.Retention, prefix+"retention.")
	}
	return nil
}

func validateWatch(w checkpoint.Watch, prefix string) error {
	if err := validatePath(prefix+"path", w.Path); err != nil {
		return err
	}
	if len(w.Ignore) > maxPatterns {
		return checkpoint.Invalid(prefix+"ignore", "%d patterns; give at most %d", len(w.Ignore), maxPatterns)
	}
	for i, p := range w.Ignore {
		if strings.TrimSpace(p) == "" || strings.ContainsAny(p, "\x00\n") {
			return checkpoint.Invalid(fmt.Sprintf("%signore[%d]", prefix, i), "give a pattern as in .gitignore")
		}
	}
	if err := within(prefix+"debounce_ms", w.DebounceMS, 0, maxDebounceMS); err != nil {
		return err
	}
	if err := within(prefix+"max_wait_ms", w.MaxWaitMS, max(1, w.DebounceMS), maxWaitMS); err != nil {
		return err
	}
	if !slices.Contains(checkpoint.Causes, w.Cause) || w.Cause.Trigger() != checkpoint.Automatic {
		return checkpoint.Invalid(prefix+"cause", "%q is no cause of a watch; file_change is the usual one", w.Cause)
	}
	switch w.Format {
	case "", FormatClaudeCode, FormatCodex, FormatGemini:
		if w.Match != nil {
			return checkpoint.Invalid(prefix+"match", "only format jsonl takes a match")
		}
	case FormatJSONL:
		if w.Match == nil || len(w.Match.ToolCall)+len(w.Match.Error) == 0 {
			return checkpoint.Invalid(prefix+"match", "format jsonl needs match.tool_call or match.error: members and the values they must have")
		}
	default:
		return checkpoint.Invalid(prefix+"format", "unknown format %q; give claude-code, codex, gemini or jsonl", w.Format)
	}
	if w.FromStart && w.Format == "" {
		return checkpoint.Invalid(prefix+"from_start", "only a watch with a format is read from its start")
	}
	return nil
}

func validateCapture(c checkpoint.Capture, prefix string) error {
	if len(c.Files) > maxPatterns || len(c.Env) > maxPatterns {
		return checkpoint.Invalid(strings.TrimSuffix(prefix, "."), "give at most %d names in each list", maxPatterns)
	}
	for i, name := range c.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return checkpoint.Invalid(fmt.Sprintf("%senv[%d]", prefix, i), "%q is no name of an environment variable", name)
		}
	}
	for i, p := range c.Files {
		if err := validatePath(fmt.Sprintf("%sfiles[%d]", prefix, i), p); err != nil {
			return err
		}
	}
	return nil
}

func validateRetention(r checkpoint.Retention, prefix string) error {
	for _, rule := range []struct {
		name  string
		value *int64
	}{{"keep_recent", r.KeepRecent}, {"max_age_seconds", r.MaxAgeSeconds}, {"keep_hourly", r.KeepHourly}, {"keep_daily", r.KeepDaily}} {
		if rule.value != nil && *rule.value < 0 {
			return checkpoint.Invalid(prefix+rule.name, "%d is negative; give 0 or more, or leave the rule out", *rule.value)
		}
	}
	return nil
}

// validatePath wants an absolute path: the daemon's working directory is nobody's.
func validatePath(field, path string) error {
	switch {
	case path == "":
		return checkpoint.Invalid(field, "give an absolute path")
	case strings.HasPrefix(path, "~"):
		return checkpoint.Invalid(field, "%.200q: ~ is only expanded in the configuration file; give an absolute path", path)
	case !filepath.IsAbs(path):
		return checkpoint.Invalid(field, "%.200q is relative; give an absolute path", path)
	case strings.ContainsRune(path, 0):
		return checkpoint.Invalid(field, "a path cannot hold a NUL")
	case len(path) > 4096:
		return checkpoint.Invalid(field, "the path is longer than the 4096 bytes that the kernel takes")
	case !doublestar.ValidatePattern(path):
		return checkpoint.Invalid(field, "%.200q is no valid glob; close its brackets, or write a literal [ as \\[", path)
	}
	return nil
}

// ExpandHome replaces a leading ~/ in the paths of a configuration file's AutoConfig. It
// is not for what clients send: a client's home is not the daemon's.
func ExpandHome(cfg *checkpoint.AutoConfig, home string) {
	expand := func(p string) string {
		if p == "~" || strings.HasPrefix(p, "~/") {
			return filepath.Join(home, p[1:])
		}
		return p
	}
	cfg.Watch = slices.Clone(cfg.Watch)
	for i := range cfg.Watch {
		cfg.Watch[i].Path = expand(cfg.Watch[i].Path)
	}
	cfg.Capture.Files = slices.Clone(cfg.Capture.Files)
	for i := range cfg.Capture.Files {
		cfg.Capture.Files[i] = expand(cfg.Capture.Files[i])
	}
}

func within(field string, v, low, high int64) error {
	if v < low || v > high {
		return checkpoint.Invalid(field, "%d is out of range; give %d to %d", v, low, high)
	}
	return nil
}

func joined(causes []checkpoint.Cause) string {
	out := make([]string, len(causes))
	for i, c := range causes {
		out[i] = string(c)
	}
	return strings.Join(out, ", ")
}

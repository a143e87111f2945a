package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The checks of single texts: each says what is wrong and what would be right, or "".

func checkPath(text string) string {
	if text == "" || filepath.IsAbs(text) || strings.HasPrefix(text, "~/") {
		return ""
	}
	return fmt.Sprintf("must be an absolute path or begin with ~/, not %.60q: a daemon has no directory of its own to begin from", text)
}

func checkWatchPath(text string) string {
	if text == "" {
		return "is empty: give an absolute path or one that begins with ~/"
	}
	return checkPath(text)
}

func checkNotEmpty(text string) string {
	if text == "" {
		return "is empty: give a name"
	}
	return ""
}

var fileMode = regexp.MustCompile(`^0[0-7]{3}$`)

func checkMode(text string) string {
	if !fileMode.MatchString(text) {
		return fmt.Sprintf(`must be four octal digits in quotes, as in "0600", not %.60q`, text)
	}
	if text[1]&6 != 6 {
		return fmt.Sprintf("must let its owner read and write (06xx), not %q", text)
	}
	return ""
}

// FileMode is Mode as bits.
func (s Socket) FileMode() os.FileMode {
	mode, err := strconv.ParseUint(s.Mode, 8, 32)
	if err != nil {
		return 0o600 // not from a file: Load refuses it
	}
	return os.FileMode(mode)
}

// Shared says that others than the daemon's own uid and root may be let in.
func (s Socket) Shared() bool { return len(s.AllowedUIDs)+len(s.AllowedGIDs) > 0 }

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func checkEnvName(text string) string {
	if envName.MatchString(text) {
		return ""
	}
	return fmt.Sprintf("must be a variable's name, such as PATH, not %.60q", text)
}

func checkURL(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// The text may hold a password: it is not repeated.
		return "must be a postgres:// URL"
	}
	return ""
}

func checkListen(text string) string {
	if text == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Sprintf("must be an address and port, as 127.0.0.1:9464, not %.60q", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Sprintf("must end in a port from 0 to 65535, not %.60q", port)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Sprintf("must be on loopback (127.0.0.1, ::1 or localhost), not %.60q: nothing protects /metrics from the network", host)
	}
	return ""
}

// check is for what concerns more than one key.
func (c *Config) check() Errors {
	var errs Errors
	fail := func(key, format string, args ...any) {
		errs = append(errs, problem(c.file, c.lineOf(key), key, format, args...))
	}
	l := c.Limits
	if l.StateBytes >= l.FrameBytes {
		fail("limits.state_bytes", "must be less than limits.frame_bytes, %d, which has to hold it, not %d", l.FrameBytes, l.StateBytes)
	}
	if l.InFlightBytes < l.FrameBytes {
		fail("limits.in_flight_bytes", "must be at least limits.frame_bytes, %d, not %d: the longest request would never be read", l.FrameBytes, l.InFlightBytes)
	}
	if c.Capture.TotalBytes < c.Capture.FileBytes {
		fail("capture.total_bytes", "must be at least capture.file_bytes, %d, not %d", c.Capture.FileBytes, c.Capture.TotalBytes)
	}
	switch {
	case c.Storage.Driver == DriverPostgres && c.Storage.URL == "":
		fail("storage.url", "is needed by the driver postgres: give it as postgres://user@host/database")
	case c.Storage.Driver != DriverPostgres && c.Storage.URL != "":
		fail("storage.url", "belongs to the driver postgres, and storage.driver is %s: set one or remove the other", c.Storage.Driver)
	}
	c.checkWatches(fail, "auto")
	seen := map[string]int{}
	for i := range c.Sessions {
		key := fmt.Sprintf("sessions[%d]", i)
		s := &c.Sessions[i]
		if first, again := seen[s.Key]; s.Key == "" {
			fail(key+".key", "is missing: give the session a key of its own")
		} else if again {
			fail(key+".key", "%.60q is the key of sessions[%d] too: give each its own", s.Key, first)
		}
		seen[s.Key] = i
		if s.Auto != nil {
			c.checkWatches(fail, key+".auto")
		}
	}
	return errs
}

func (c *Config) checkWatches(fail func(key, format string, args ...any), at string) {
	auto := c.Auto
	var i int
	if n, err := fmt.Sscanf(at, "sessions[%d]", &i); n == 1 && err == nil {
		auto = *c.Sessions[i].Auto
	}
	for i, w := range auto.Watch {
		key := fmt.Sprintf("%s.watch[%d]", at, i)
		switch {
		case w.Path == "":
			fail(key+".path", "is missing: name the file, directory or glob to watch")
		case w.Format == "jsonl" && w.Match == nil:
			fail(key+".match", "is missing: with the format jsonl it says which lines are tool calls")
		case w.Format != "jsonl" && w.Match != nil:
			fail(key+".match", "belongs to the format jsonl: set format, or remove it")
		case w.MaxWaitMS < w.DebounceMS:
			fail(key+".max_wait_ms", "must be at least debounce_ms, %d, not %d", w.DebounceMS, w.MaxWaitMS)
		}
	}
}

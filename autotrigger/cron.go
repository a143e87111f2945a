package autotrigger

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// minEvery keeps @every from being a busy loop; for shorter steps there is file_change.
const minEvery = time.Second

// ParseCron reads a cron spec: five fields, @hourly and its like, or @every DURATION, with
// CRON_TZ=Zone in front if it is not for local time. It refuses what cron/v3 panics on or
// changes in silence, and schedules that never fire after now.
func ParseCron(spec string, now time.Time) (cron.Schedule, error) {
	if len(spec) > 256 {
		return nil, fmt.Errorf("a cron spec has at most 256 bytes, this one %d", len(spec))
	}
	rest, err := checkZone(strings.TrimSpace(spec))
	if err != nil {
		return nil, err
	}
	if d, ok := strings.CutPrefix(rest, "@every "); ok {
		if err := checkEvery(strings.TrimSpace(d)); err != nil {
			return nil, err
		}
	} else if n := len(strings.Fields(rest)); !strings.HasPrefix(rest, "@") && n != 5 {
		return nil, fmt.Errorf("%q has %d fields; give five: minute hour day month weekday (there are no seconds)", spec, n)
	}
	s, err := parseRecovered(strings.TrimSpace(spec))
	if err != nil {
		return nil, fmt.Errorf("no cron spec: %w", err)
	}
	next, err := nextRecovered(s, now)
	if err != nil {
		return nil, err
	}
	if next.IsZero() {
		return nil, fmt.Errorf("%q never fires: there is no such day", spec)
	}
	return s, nil
}

// checkZone returns the spec after its zone. cron/v3 slices out of range when no space
// follows the zone, and takes TZ= as well, which we leave out to have one spelling.
func checkZone(spec string) (string, error) {
	if strings.HasPrefix(spec, "TZ=") {
		return "", fmt.Errorf("%q: write CRON_TZ=Zone and a space, then the five fields", spec)
	}
	zone, ok := strings.CutPrefix(spec, "CRON_TZ=")
	if !ok {
		return spec, nil
	}
	zone, rest, found := strings.Cut(zone, " ")
	if !found || zone == "" || strings.TrimSpace(rest) == "" {
		return "", fmt.Errorf("%q: write CRON_TZ=Zone and a space, then the five fields", spec)
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return "", fmt.Errorf("unknown time zone %q; give one like Europe/Berlin or UTC", zone)
	}
	return strings.TrimSpace(rest), nil
}

// checkEvery refuses durations that cron/v3 rounds to a second without a word.
func checkEvery(text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return fmt.Errorf("@every %q: give a duration like 90s, 5m or 1h30m", text)
	case d < minEvery:
		return fmt.Errorf("@every %s is too short; give at least %s", text, minEvery)
	case d%time.Second != 0:
		return fmt.Errorf("@every %s: give whole seconds", text)
	case d > maxSeconds*time.Second:
		return fmt.Errorf("@every %s is longer than a year", text)
	}
	return nil
}

func parseRecovered(spec string) (s cron.Schedule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%q cannot be read", spec)
		}
	}()
	return cron.ParseStandard(spec)
}

func nextRecovered(s cron.Schedule, after time.Time) (t time.Time, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the schedule has no next time after %s", after.Format(time.RFC3339))
		}
	}()
	return s.Next(after), nil
}

// runs gives the next n times after now.
func runs(s cron.Schedule, now time.Time, n int) []time.Time {
	var out []time.Time
	for range n {
		next, err := nextRecovered(s, now)
		if err != nil || next.IsZero() {
			break
		}
		out, now = append(out, next), next
	}
	return out
}

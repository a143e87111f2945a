package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
)

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("x", 3600)
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"now": now, "2h ago": now.Add(-2 * time.Hour), "1h30m ago": now.Add(-90 * time.Minute), "3 days ago": now.AddDate(0, 0, -3),
		"1 week": now.AddDate(0, 0, -7), "90s": now.Add(-90 * time.Second), "2026-01-30": time.Date(2026, 1, 30, 0, 0, 0, 0, zone),
		"2026-01-30 08:15":          time.Date(2026, 1, 30, 8, 15, 0, 0, zone),
		"2026-01-30T08:15:00.5Z":    time.Date(2026, 1, 30, 8, 15, 0, 5e8, time.UTC),
		"2026-01-30T08:15:00+02:00": time.Date(2026, 1, 30, 6, 15, 0, 0, time.UTC),
		"10 minutes ago":            now.Add(-10 * time.Minute),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "yesterday", "2h later", "5 parsecs ago", "99999999999 weeks ago", "2026-13-01"} {
		if got, err := parseTime(bad, now); exitCode(err) != exitUsage {
			t.Errorf("parseTime(%q) = %v, %v", bad, got, err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	retry := checkpoint.Errorf(checkpoint.KindInvalidState, "draining")
	retry.Retry = true
	for want, err := range map[int]error{
		exitOK: nil, exitFailed: fmt.Errorf("x"), exitUsage: usagef("x"), exitNotRunning: &client.NotRunningError{Err: fmt.Errorf("x")},
		exitNotFound: fmt.Errorf("wrapped: %w", checkpoint.ErrNotFound), exitDamaged: checkpoint.ErrCorrupt, exitBusy: retry,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit %d, want %d", err, got, want)
		}
	}
	for _, err := range []error{checkpoint.ErrOverloaded, &client.NoAnswerError{}} {
		if exitCode(err) != exitBusy {
			t.Errorf("%v: not busy", err)
		}
	}
	if exitCode(checkpoint.ErrConflict) != exitFailed {
		t.Error("a conflict is a failure")
	}
}

func TestTableFits(t *testing.T) {
	tab := func() table {
		return table{
			columns: []column{{title: "SEQ", right: true}, {title: "ID", keep: 2}, {title: "MESSAGE", flex: true}, {title: "TAGS", keep: 1}},
			rows:    [][]string{{"1", strings.Repeat("a", 36), strings.Repeat("ü", 60), "t"}, {"12", strings.Repeat("b", 36), "short", ""}},
		}
	}
	for width, columns := range map[int]string{0: "SEQ ID MESSAGE TAGS", 200: "SEQ ID MESSAGE TAGS", 80: "SEQ ID MESSAGE TAGS", 58: "SEQ MESSAGE", 30: "SEQ MESSAGE", 18: "SEQ MESSAGE"} {
		x := tab()
		var b bytes.Buffer
		if err := x.print(&b, width, false); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if got := strings.Join(strings.Fields(lines[0]), " "); got != columns {
			t.Errorf("width %d: columns %s, want %s\n%s", width, got, columns, b.String())
		}
		for _, l := range lines {
			if n := len([]rune(l)); width > 0 && n > width {
				t.Errorf("width %d: a line of %d: %s", width, n, l)
			}
		}
	}
}

// On a narrow terminal ids are cut to what still tells them apart, and empty columns go.
func TestTableCutsIDs(t *testing.T) {
	x := table{
		columns: []column{{title: "ID", keep: 1, id: true}, {title: "NAME", flex: true}, {title: "NOTES", keep: 2}},
		rows: [][]string{
			{"01a208ba-f292-70c7-8364-822239697938", strings.Repeat("n", 30), ""},
			{"01a208ba-f292-70d7-8364-822239697938", "m", ""},
		},
	}
	var b bytes.Buffer
	if err := x.print(&b, 60, false); err != nil {
		t.Fatal(err)
	}
	want := "ID                 NAME\n01a208ba-f292-70c " + " " + strings.Repeat("n", 30) + "\n01a208ba-f292-70d " + " m\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestPlainIsHarmless(t *testing.T) {
	if got := plain("a\x1b[31mb\nc\u202ed\u009be"); strings.ContainsAny(got, "\x1b\n\u202e\u009b") {
		t.Fatalf("%q", got)
	}
}

func TestSplitPageKeepsEveryByte(t *testing.T) {
	entry := func(i int) string { return fmt.Sprintf(`{"id":"%d","state":{"n":1.0,"n":1e400,"s":"<\u003c"}}`, i) }
	var all []string
	for i := range 20 {
		all = append(all, entry(i))
	}
	page := `{"format":"forge-cpd-export","checkpoints":[` + strings.Join(all, ",") + `],"global_sequence":20}`
	var got []string
	parts := 0
	err := splitPage(json.RawMessage(page), 300, func(part json.RawMessage) error {
		parts++
		if len(part) > 300 {
			t.Errorf("a part of %d bytes", len(part))
		}
		var p struct {
			Format      string            `json:"format"`
			Checkpoints []json.RawMessage `json:"checkpoints"`
			Sequence    int               `json:"global_sequence"`
		}
		if err := json.Unmarshal(part, &p); err != nil || p.Format != "forge-cpd-export" || p.Sequence != 20 {
			t.Errorf("part %s: %v", part, err)
		}
		for _, c := range p.Checkpoints {
			got = append(got, string(c))
		}
		return nil
	})
	if err != nil || parts < 2 || strings.Join(got, ",") != strings.Join(all, ",") {
		t.Fatalf("%d parts, %v: %s", parts, err, got)
	}
}

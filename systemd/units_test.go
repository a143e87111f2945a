// Package systemd holds the units; its tests ask systemd's own tools about them, and run
// the service under a real systemd where there is one to run.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var units = map[string]string{ // file: the name to verify it by
	"forge-cpd.service":      "forge-cpd.service",
	"forge-cpd.socket":       "forge-cpd.socket",
	"forge-cpd@.service":     "forge-cpd@1000.service",
	"forge-cpd@.socket":      "forge-cpd@1000.socket",
	"user/forge-cpd.service": "forge-cpd.service",
	"user/forge-cpd.socket":  "forge-cpd.socket",
}

func analyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is missing: install the package systemd")
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// verify returns what systemd finds wrong with a unit, in a directory where its binary
// exists and its siblings are found.
func verify(t *testing.T, dir, name string) string {
	t.Helper()
	args := []string{"--man=no", "verify"}
	if strings.Contains(dir, "user") {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.Command(analyze(t), append(args, filepath.Join(dir, name))...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return strings.TrimSpace(string(out)) + " " + err.Error()
	}
	return strings.TrimSpace(string(out))
}

// stage copies the units of one kind into a directory and points them to a program that exists.
func stage(t *testing.T, kind string, edit func(string) string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), kind)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file := range units {
		if strings.HasPrefix(file, "user/") != (kind == "user") {
			continue
		}
		text := edit(strings.ReplaceAll(read(t, file), "/usr/bin/forge-cpd", "/bin/sh"))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUnitsVerifyClean(t *testing.T) {
	same := func(s string) string { return s }
	dirs := map[string]string{"system": stage(t, "system", same), "user": stage(t, "user", same)}
	for file, name := range units {
		kind := "system"
		if strings.HasPrefix(file, "user/") {
			kind = "user"
		}
		if kind == "system" {
			// A template is verified by an instance of it.
			if target := filepath.Join(dirs[kind], name); name != filepath.Base(file) {
				if err := os.WriteFile(target, []byte(read(t, filepath.Join(dirs[kind], filepath.Base(file)))), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for file, name := range units {
		kind := "system"
		if strings.HasPrefix(file, "user/") {
			kind = "user"
		}
		if out := verify(t, dirs[kind], name); out != "" {
			t.Errorf("%s: %s", file, out)
		}
	}
	broken := stage(t, "system", func(s string) string {
		return strings.ReplaceAll(s, "Type=notify\n", "Type=notify-when-ready\n")
	})
	if out := verify(t, broken, "forge-cpd.service"); !strings.Contains(out, "service type") {
		t.Errorf("a wrong Type was not noticed: %q", out)
	}
}

func TestExposureIsLow(t *testing.T) {
	tool := analyze(t)
	score := func(path string) (string, error) {
		out, err := exec.Command(tool, "security", "--offline=true", "--no-pager", "--threshold=10", path).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return lines[len(lines)-1], err
	}
	for _, unit := range []string{"forge-cpd.service", "forge-cpd@.service"} {
		if line, err := score(unit); err != nil || !strings.Contains(line, "SAFE") {
			t.Errorf("%s: %v: %s", unit, err, line)
		}
	}
	bare := filepath.Join(t.TempDir(), "bare.service")
	if err := os.WriteFile(bare, []byte("[Service]\nExecStart=/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if line, err := score(bare); err == nil {
		t.Errorf("a bare unit passes: %s", line)
	}
}

// What systemd would accept and users would suffer from.
func TestUnitsAvoidTheKnownTraps(t *testing.T) {
	directive := func(text, name string) []string {
		var values []string
		for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(text, -1) {
			values = append(values, m[1])
		}
		return values
	}
	for file := range units {
		text := read(t, file)
		if !strings.HasSuffix(file, ".service") {
			if strings.Contains(file, "@") || len(directive(text, "DirectoryMode")) == 1 {
				continue
			}
			t.Errorf("%s: the socket's directory needs a mode", file)
			continue
		}
		for name, want := range map[string]string{
			"Type":                     "notify",                          // notify-reload is unknown before 253
			"ExecReload":               "/bin/sh -c 'kill -HUP $MAINPID'", // so that reload works on all
			"NotifyAccess":             "main",
			"RestartPreventExitStatus": "2 5 75",
		} {
			if got := directive(text, name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", file, name, got, want)
			}
		}
		if got := directive(text, "WatchdogSec"); len(got) != 1 {
			t.Errorf("%s: no watchdog", file)
		}
		for name, why := range map[string]string{
			"RuntimeDirectory": "it is removed at stop, and the socket with it",
			"PrivateUsers":     "every peer would look like the overflow uid",
			"PrivateTmp":       "files in /tmp could not be watched",
		} {
			if got := directive(text, name); len(got) != 0 {
				t.Errorf("%s: %s=%s: %s", file, name, got[0], why)
			}
		}
		if got := directive(text, "ProtectHome"); len(got) == 1 && got[0] != "read-only" {
			t.Errorf("%s: ProtectHome=%s: files at home could not be watched", file, got[0])
		}
	}
}

package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

func want(t *testing.T, f finding, ok bool, parts ...string) {
	t.Helper()
	if f.OK != ok || !ok && f.Mend == "" {
		t.Fatalf("got %+v", f)
	}
	for _, p := range parts {
		if !strings.Contains(f.Message+" "+f.Mend, p) {
			t.Errorf("%+v does not tell %q", f, p)
		}
	}
}

func TestDoctorSocket(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := config.Default()
	chmod := func(name string, mode fs.FileMode) {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(path, 0o600)
	want(t, checkSocket(path, cfg), true)
	chmod(path, 0o666)
	want(t, checkSocket(path, cfg), false, "0666", "chmod 600")
	chmod(path, 0o600)
	chmod(dir, 0o777)
	want(t, checkSocket(path, cfg), false, "0777", "chmod 700")
	chmod(dir, 0o700)
}

func TestDoctorData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	want(t, checkDataDir(dir), true, "not made yet")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want(t, checkDataDir(dir), false, "0755", "chmod 700")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, checkDataDir(dir), true)
}

func TestDoctorClock(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	want(t, checkClock(time.Time{}, now), true)
	want(t, checkClock(now.Add(-time.Hour), now), true)
	want(t, checkClock(now.Add(time.Hour), now), false, "ran backwards", "2026-01-31T13:00:00Z")
}

func TestDoctorDaemon(t *testing.T) {
	defer func(v string) { version = v }(version)
	version = "v1.2.0"
	want(t, checkDaemon(&rpc.Info{Version: "v1.2.0", API: rpc.APIVersion}, nil), true)
	want(t, checkDaemon(&rpc.Info{Version: "v1.1.9", API: rpc.APIVersion}, nil), false, "v1.1.9", "daemon.shutdown")
	want(t, checkDaemon(nil, &client.NotRunningError{Socket: "/s", Err: errors.New("x")}), true, "not running")
	want(t, checkDaemon(nil, &client.NoAnswerError{Socket: "/s"}), false, "has not answered", "kill -CONT")
	want(t, checkDaemon(nil, &client.VersionError{Daemon: rpc.API{Major: 2}, Client: rpc.API{Major: 1}}), false, "too old")
}

func TestDoctorConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text := "sessions:\n  - key: a\n    auto: {watch: [{path: " + dir + "/gone/notes.md}]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := config.Flags{Config: file, Socket: filepath.Join(dir, "s")}
	cfg, paths, err := config.Resolve(flags)
	if err != nil {
		t.Fatal(err)
	}
	want(t, checkConfigured(cfg, paths), false, dir+"/gone", "session a")
	if err := os.Mkdir(filepath.Join(dir, "gone"), 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, checkConfigured(cfg, paths), true)
}

func TestOlder(t *testing.T) {
	for _, tc := range []struct {
		daemon, own string
		older       bool
	}{
		{"v1.2.3", "v1.2.3", false}, {"v1.2.3", "v1.2.4", true}, {"v1.10.0", "v1.9.0", false}, {"v1.2.3", "v1.2.3-4-gabcdef0", true},
		{"v1.2.3-4-gabcdef0", "v1.2.3", false}, {"v1.2.3-9-gabc", "v1.2.3-10-gdef-dirty", true}, {"dev", "v1.0.0", false}, {"v1.0.0", "dev", false},
	} {
		if got := olderThan(&rpc.Info{Version: tc.daemon, API: rpc.APIVersion}, tc.own); got != tc.older {
			t.Errorf("daemon %s, program %s: older = %v", tc.daemon, tc.own, got)
		}
	}
}

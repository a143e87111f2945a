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

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// healthyMachine is one with nothing to complain about; each test breaks one thing.
func healthyMachine(t *testing.T) machine {
	m := thisMachine()
	m.proc = t.TempDir()
	dir := filepath.Join(m.proc, "sys/fs/inotify")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]string{"max_user_watches": "524288\n", "max_user_instances": "512\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.statfs = func(_ string, st *unix.Statfs_t) error {
		*st = unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Bavail: 1 << 20, Files: 1 << 20, Ffree: 1 << 19}
		return nil
	}
	m.nofile = func() (uint64, error) { return 65536, nil }
	return m
}

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
	m, cfg := healthyMachine(t), config.Default()
	chmod := func(name string, mode fs.FileMode) {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(path, 0o600)
	want(t, m.checkSocket(path, cfg), true)
	chmod(path, 0o666)
	want(t, m.checkSocket(path, cfg), false, "0666", "chmod 600")
	chmod(path, 0o600)
	chmod(dir, 0o777)
	want(t, m.checkSocket(path, cfg), false, "0777", "chmod 700")
	chmod(dir, 0o700)
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		want(t, m.checkSocket(path, cfg), false, "uid 12345")
	} else {
		m.uid++
		want(t, m.checkSocket(path, cfg), false, "belongs to uid")
	}
}

func TestDoctorData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	m := healthyMachine(t)
	want(t, m.checkDataDir(dir), true, "not made yet")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want(t, m.checkDataDir(dir), false, "0755", "chmod 700")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want(t, m.checkDataDir(dir), true)
	m.uid = 4242
	want(t, m.checkDataDir(dir), false, "uid 4242", "chown")
}

func TestDoctorDisk(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*unix.Statfs_t)
		tells  string
	}{
		"full":      {func(st *unix.Statfs_t) { st.Bavail = 100 }, "400 KiB left"},
		"no inodes": {func(st *unix.Statfs_t) { st.Ffree = 3 }, "3 inodes"},
		"read-only": {func(st *unix.Statfs_t) { st.Flags = unix.ST_RDONLY }, "read-only"},
		"fine":      {func(*unix.Statfs_t) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := healthyMachine(t)
			sound := m.statfs
			m.statfs = func(path string, st *unix.Statfs_t) error {
				if path != "/" {
					return fs.ErrNotExist // the data directory is not there yet
				}
				err := sound(path, st)
				tc.change(st)
				return err
			}
			want(t, m.checkDisk("/var/lib/forge-cpd"), tc.tells == "", tc.tells)
		})
	}
}

func TestDoctorNetworkFileSystem(t *testing.T) {
	m := healthyMachine(t)
	want(t, m.checkFileSystem("/", false), true)
	m.statfs = func(_ string, st *unix.Statfs_t) error { st.Type = unix.NFS_SUPER_MAGIC; return nil }
	want(t, m.checkFileSystem("/", false), false, "NFS", "allow_network_fs")
	want(t, m.checkFileSystem("/", true), true, "NFS")
}

func TestDoctorLimits(t *testing.T) {
	m := healthyMachine(t)
	want(t, m.checkInotify(), true)
	want(t, m.checkDescriptors(config.Default()), true)
	name := filepath.Join(m.proc, "sys/fs/inotify/max_user_watches")
	if err := os.WriteFile(name, []byte("100\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, m.checkInotify(), false, "100 watches", "sysctl")
	m.nofile = func() (uint64, error) { return 256, nil }
	want(t, m.checkDescriptors(config.Default()), false, "256 open files", "ulimit -n 1280")
}

func TestDoctorClock(t *testing.T) {
	m := healthyMachine(t)
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	m.now = func() time.Time { return now }
	want(t, m.checkClock(nil), true)
	past, future := now.Add(-time.Hour), now.Add(time.Hour)
	want(t, m.checkClock(&past), true)
	want(t, m.checkClock(&future), false, "ran backwards", "2026-01-31T13:00:00Z")
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

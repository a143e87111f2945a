package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPathsComeFromTheStrongestSource(t *testing.T) {
	uid := os.Getuid()
	if uid == 0 {
		uid = 4242 // files made here are root's, which every uid trusts
	}
	file := write(t, filepath.Join(t.TempDir(), "c.yaml"), "socket: {path: /conf/s}\nstorage: {dir: /conf/d}\n")
	other := write(t, filepath.Join(t.TempDir(), "o.yaml"), "storage: {dir: /other/d}\n")
	env := map[string]string{EnvConfig: file, EnvSocket: "/env/s", EnvDataDir: "/env/d"}
	tests := []struct {
		name  string
		env   map[string]string
		flags Flags
		want  Paths
	}{
		{"flags win", env, Flags{Config: other, Socket: "/flag/s", DataDir: "/flag/d"}, Paths{other, FromFlag, "/flag/s", FromFlag, "/flag/d", FromFlag}},
		{"then the environment", env, Flags{}, Paths{file, FromEnv, "/env/s", FromEnv, "/env/d", FromEnv}},
		{"then the configuration", map[string]string{EnvConfig: file}, Flags{}, Paths{file, FromEnv, "/conf/s", FromConfig, "/conf/d", FromConfig}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, got, err := testSystem(t, uid, test.env).Resolve(test.flags)
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestDefaultPaths(t *testing.T) {
	me := os.Getuid()
	s := testSystem(t, me, nil)
	runtime := filepath.Join(s.Root, "runtime")
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	user := s
	if me == 0 {
		user.UID = 4242
		if err := os.Chown(runtime, 4242, 4242); err != nil {
			t.Fatal(err)
		}
	}
	uid := strconv.Itoa(user.UID)
	with := func(s System, env map[string]string) System {
		s.Getenv = func(k string) string { return env[k] }
		return s
	}
	root := s
	root.UID = 0
	fallback := s.Root + "/tmp/forge-cpd-" + uid + "/forge-cpd.sock"
	home := s.Home + "/.local/state/forge-cpd"
	tests := []struct {
		name         string
		system       System
		socket, data string
	}{
		{"a user", with(user, map[string]string{"XDG_RUNTIME_DIR": runtime}), runtime + "/forge-cpd/forge-cpd.sock", home},
		{"XDG_STATE_HOME", with(user, map[string]string{"XDG_RUNTIME_DIR": runtime, "XDG_STATE_HOME": "/state"}), runtime + "/forge-cpd/forge-cpd.sock", "/state/forge-cpd"},
		{"nothing set", user, fallback, home},
		{"relative ones count as unset", with(user, map[string]string{"XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "state"}), fallback, home},
		{"another's runtime directory", with(user, map[string]string{"XDG_RUNTIME_DIR": "/dev"}), fallback, home},
		{"a missing runtime directory", with(user, map[string]string{"XDG_RUNTIME_DIR": runtime + "/no"}), fallback, home},
		{"TMPDIR is not asked", with(user, map[string]string{"TMPDIR": "/elsewhere"}), fallback, home},
		{"root, whatever its environment", with(root, map[string]string{"XDG_RUNTIME_DIR": runtime, "XDG_STATE_HOME": "/state"}), s.Root + "/run/forge-cpd/forge-cpd.sock", s.Root + "/var/lib/forge-cpd"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, got, err := test.system.Resolve(Flags{})
			if err != nil || got.Socket != test.socket || got.DataDir != test.data || got.Config != "" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	t.Run("the login's directory under its usual name", func(t *testing.T) {
		if err := os.MkdirAll(s.Root+"/run/user", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(runtime, s.Root+"/run/user/"+uid); err != nil {
			t.Fatal(err)
		}
		_, got, err := user.Resolve(Flags{})
		if want := s.Root + "/run/user/" + uid + "/forge-cpd/forge-cpd.sock"; err != nil || got.Socket != want {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestConfigurationFilesInTheirOrder(t *testing.T) {
	s := testSystem(t, os.Getuid(), nil)
	etc := write(t, s.Root+"/etc/forge-cpd/config.yaml", "log: {level: warn}\n")
	c, p, err := s.Resolve(Flags{Socket: "/s"})
	if err != nil || p.Config != etc || c.Log.Level != "warn" {
		t.Fatalf("%+v, %v", p, err)
	}
	mine := write(t, s.Home+"/.config/forge-cpd/config.yaml", "log: {level: error}\n")
	if c, p, err = s.Resolve(Flags{Socket: "/s"}); err != nil || p.Config != mine || c.Log.Level != "error" || p.ConfigFrom != FromDefault {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, _, err = s.Resolve(Flags{Config: s.Root + "/missing.yaml"}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("a named file that is missing: %v", err)
	}
	if err := os.Chmod(mine, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err = s.Resolve(Flags{Socket: "/s"}); err == nil || !strings.Contains(err.Error(), "chmod 644") {
		t.Errorf("a file that anyone can write: %v", err)
	}
}

func TestReloadFindsAFileThatAppearedAndForgetsOneThatWent(t *testing.T) {
	s := testSystem(t, os.Getuid(), nil)
	_, p, err := s.Resolve(Flags{Socket: "/s", DataDir: "/d"})
	if err != nil || p.Config != "" {
		t.Fatal(p, err)
	}
	etc := write(t, s.Root+"/etc/forge-cpd/config.yaml", "log: {level: warn}\n")
	if c, file, err := s.reload(p); err != nil || file != etc || c.Log.Level != "warn" {
		t.Errorf("appeared: %q, %v", file, err)
	}
	if err := os.Remove(etc); err != nil {
		t.Fatal(err)
	}
	if c, file, err := s.reload(p); err != nil || file != "" || c.Log.Level != "info" {
		t.Errorf("went: %q, %v", file, err)
	}
	p.Config, p.ConfigFrom = etc, FromFlag
	if _, _, err := s.reload(p); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a named file that went: %v", err)
	}
}

func TestTooLongASocketPathIsRefusedWithItsLength(t *testing.T) {
	long := "/" + strings.Repeat("a", MaxSocketPath-1)
	s := testSystem(t, os.Getuid(), nil)
	if _, _, err := s.Resolve(Flags{Socket: long}); err != nil {
		t.Errorf("%d bytes: %v", len(long), err)
	}
	_, _, err := s.Resolve(Flags{Socket: long + "b"})
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(len(long)+1)+" bytes") || !strings.Contains(err.Error(), strconv.Itoa(MaxSocketPath)) {
		t.Errorf("%v", err)
	}
}

func TestPrivateDir(t *testing.T) {
	s := Host()
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b")
	for range 2 { // made, then found
		if err := s.privateDir(dir, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
	if err := os.Symlink(dir, base+"/link"); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	foreign := s
	foreign.UID++
	for _, bad := range []struct {
		name, dir, want string
		system          System
		shared          bool
	}{
		{"a link", base + "/link", "symbolic link", s, false},
		{"a file", write(t, base+"/file", ""), "not a directory", s, false},
		{"open to others", open, "mode 0755", s, false},
		{"another's", dir, "belongs to uid", foreign, false},
		{"another's, shared", dir, "belongs to uid", foreign, true},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if err := bad.system.privateDir(bad.dir, bad.shared); err == nil || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), bad.dir) {
				t.Errorf("got %v, want %q", err, bad.want)
			}
		})
	}
	if err := s.privateDir(open, true); err != nil {
		t.Errorf("a shared one may be entered by others: %v", err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := s.privateDir(open, true); err == nil {
		t.Error("a shared one may not be written by others")
	}
	if info, err := os.Stat(open); err != nil || info.Mode().Perm() != 0o777 {
		t.Error("a directory that was there was mended")
	}
}

func TestForeignFallbackDirectoryIsRefused(t *testing.T) {
	s := testSystem(t, 4243, nil)
	dir := s.Root + "/tmp/forge-cpd-4243"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Resolve(Flags{}); err == nil || !strings.Contains(err.Error(), dir+" belongs to uid") {
		t.Errorf("a client would hand its state to another user: %v", err)
	}
}

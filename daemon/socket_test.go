package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestSocketIsPrivate(t *testing.T) {
	path := filepath.Join(shortDir(t), "run", "d.sock")
	s, err := listen(path, "0600", false)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600 | os.ModeSocket, filepath.Dir(path): 0o700 | os.ModeDir} {
		if st, err := os.Lstat(p); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", p, st.Mode(), err, want)
		}
	}
	if _, err := listen(path, "0600", false); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon at one socket: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The file is still there, as after a crash, and refuses connections: it is replaced.
	again, err := listen(path, "0600", false)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	if err := s.remove(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the old daemon removed the new one's socket: %v", err)
	}
	c.Close()
	again.Close()
	if err := again.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

func TestSocketRefusals(t *testing.T) {
	dir := shortDir(t)
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	private := filepath.Join(dir, "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(private, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(private, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(open, "s"): "open to others",
		filepath.Join(link, "s"): "symbolic link",
		file:                     "no socket",
		filepath.Join(dir, strings.Repeat("x", 120)): "bytes",
	} {
		if _, err := listen(path, "0600", false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %q", path, err, want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	if st, err := os.Stat(open); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("a directory that is not ours alone was changed: %v, %v", st.Mode(), err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(private, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(filepath.Join(private, "s"), "0600", false); err == nil || !strings.Contains(err.Error(), "belongs to uid 12345") {
			t.Errorf("another user's directory: %v", err)
		}
	}
}

package vfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOSFollowsNoLinkAndReplacesNothingByRenameNew(t *testing.T) {
	dir := t.TempDir()
	o, err := OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	write(t, o, "a", "one")
	write(t, o, "b", "two")
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Open("link", os.O_RDONLY); !errors.Is(err, syscall.ELOOP) {
		t.Fatalf("a link opens with %v", err)
	}
	if err := o.RenameNew("a", "b"); !errors.Is(err, syscall.EEXIST) {
		t.Fatalf("RenameNew over a file: %v", err)
	}
	if err := errors.Join(o.Mkdir("d"), o.RenameNew("a", "d/c"), o.SyncDir("d"), o.SyncDir("")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, o, "d/c"); got != "one" {
		t.Fatalf("got %q", got)
	}
	if info, err := o.Lstat("d/c"); err != nil || info.Mode.Perm() != 0o600 || !info.Mode.IsRegular() {
		t.Fatalf("%v %v", info.Mode, err)
	}
	if info, err := o.Lstat("fifo"); err != nil || info.Mode.IsRegular() {
		t.Fatalf("%v %v", info.Mode, err)
	}
	if err := errors.Join(o.Remove("d/c"), o.Remove("d"), o.Remove("fifo")); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Lstat("d"); !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
}

func TestOSWritesManyBuffersAtOnce(t *testing.T) {
	o, err := OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	f, err := o.Open("f", os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	var bufs [][]byte
	var want []byte
	for i := range 3000 { // more than one pwritev takes
		b := bytes.Repeat([]byte{byte(i)}, i%7)
		bufs, want = append(bufs, b), append(want, b...)
	}
	if n, err := f.WriteAt(5, bufs...); err != nil || n != len(want) {
		t.Fatal(n, err)
	}
	if err := errors.Join(f.Datasync(), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, o, "f"); got[5:] != string(want) {
		t.Fatal("other bytes came back")
	}
}

func TestOSLockIsExclusive(t *testing.T) {
	dir := t.TempDir()
	a, errA := OS(dir)
	b, errB := OS(dir)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	for _, path := range []string{"LOCK", "."} {
		held, err := a.Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Lock(path); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Fatalf("second lock of %s: %v", path, err)
		}
		if err := held.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := b.Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package vfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
)

func write(t *testing.T, f FS, path, content string) {
	t.Helper()
	file, err := f.Open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := file.WriteAt(0, []byte(content)); err != nil || n != len(content) {
		t.Fatal(n, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, f FS, path string) string {
	t.Helper()
	file, err := f.Open(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMemErrors(t *testing.T) {
	m := NewMem()
	for _, dir := range []string{"d", "d/sub", "empty"} {
		if err := m.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	write(t, m, "f", "x")
	write(t, m, "d/g", "y")
	if err := errors.Join(m.Symlink("f", "link"), m.Symlink("d", "dlink"), m.Mkfifo("fifo")); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flag int) func() error {
		return func() error {
			f, err := m.Open(path, flag)
			if err == nil {
				err = f.Close()
			}
			return err
		}
	}
	for name, c := range map[string]struct {
		do   func() error
		want error
	}{
		"open nothing":           {open("none", os.O_RDONLY), syscall.ENOENT},
		"open below nothing":     {open("none/x", os.O_RDWR|os.O_CREATE), syscall.ENOENT},
		"open below a file":      {open("f/x", os.O_RDONLY), syscall.ENOTDIR},
		"open a link":            {open("link", os.O_RDONLY), syscall.ELOOP},
		"open below a link":      {open("dlink/g", os.O_RDONLY), syscall.ELOOP},
		"write a directory":      {open("d", os.O_WRONLY), syscall.EISDIR},
		"read a directory":       {open("d", os.O_RDONLY), nil},
		"write a fifo":           {open("fifo", os.O_WRONLY), syscall.ENXIO},
		"create over a file":     {open("f", os.O_WRONLY|os.O_CREATE|os.O_EXCL), syscall.EEXIST},
		"create over a link":     {open("link", os.O_WRONLY|os.O_CREATE|os.O_EXCL), syscall.EEXIST},
		"dots":                   {open("d/../f", os.O_RDONLY), syscall.EINVAL},
		"long name":              {open(string(bytes.Repeat([]byte("n"), 256)), os.O_RDONLY), syscall.ENAMETOOLONG},
		"mkdir over a file":      {func() error { return m.Mkdir("f") }, syscall.EEXIST},
		"mkdir below nothing":    {func() error { return m.Mkdir("none/d") }, syscall.ENOENT},
		"remove nothing":         {func() error { return m.Remove("none") }, syscall.ENOENT},
		"remove a full one":      {func() error { return m.Remove("d") }, syscall.ENOTEMPTY},
		"list a file":            {func() error { _, err := m.ReadDir("f"); return err }, syscall.ENOTDIR},
		"list a link":            {func() error { _, err := m.ReadDir("dlink"); return err }, syscall.ELOOP},
		"sync a file as a dir":   {func() error { return m.SyncDir("f") }, syscall.ENOTDIR},
		"rename nothing":         {func() error { return m.Rename("none", "x") }, syscall.ENOENT},
		"rename into itself":     {func() error { return m.Rename("d", "d/sub/d") }, syscall.EINVAL},
		"rename file over dir":   {func() error { return m.Rename("f", "empty") }, syscall.EISDIR},
		"rename dir over file":   {func() error { return m.Rename("empty", "f") }, syscall.ENOTDIR},
		"rename over full dir":   {func() error { return m.Rename("empty", "d") }, syscall.ENOTEMPTY},
		"rename new over a file": {func() error { return m.RenameNew("f", "d/g") }, syscall.EEXIST},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.do(); !errors.Is(err, c.want) && (err != nil || c.want != nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
	if read(t, m, "f") != "x" || read(t, m, "d/g") != "y" {
		t.Fatal("a refused operation changed a file")
	}
}

func TestMemKeepsBytes(t *testing.T) {
	m := NewMem()
	f, err := m.Open("f", os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteAt(pageSize-2, []byte("ab"), []byte("cd"), nil, []byte("e")); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if got := m.Used(); got != 2*pageSize {
		t.Fatalf("used %d", got)
	}
	if err := f.Truncate(pageSize - 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(3 * pageSize); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 3*pageSize)
	want[pageSize-2] = 'a'
	if read(t, m, "f") != string(want) {
		t.Fatal("truncating and growing must leave zeros")
	}
	if n, err := f.ReadAt(make([]byte, 4), 3*pageSize-1); n != 1 || err != io.EOF {
		t.Fatal(n, err)
	}
	// A file goes on without a name, and its space is free after the last descriptor.
	if err := m.Remove("f"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, pageSize-2); err != nil || b[0] != 'a' {
		t.Fatal(b, err)
	}
	if err := f.Close(); err != nil || m.Used() != 0 {
		t.Fatal(err, m.Used())
	}
	if err := f.Close(); !errors.Is(err, syscall.EBADF) {
		t.Fatal(err)
	}
}

func TestMemFullDisk(t *testing.T) {
	m := NewMem()
	m.SetCapacity(2 * pageSize)
	f, err := m.Open("f", os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteAt(0, make([]byte, pageSize), make([]byte, 2*pageSize)); n != 2*pageSize || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("zeros take room too: wrote %d, %v", n, err)
	}
	if _, err := m.Open("g", os.O_RDWR|os.O_CREATE); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(pageSize); err != nil {
		t.Fatal(err)
	}
	if info, err := m.Statfs(); err != nil || info.Free != pageSize {
		t.Fatal(info, err)
	}
	if n, err := f.WriteAt(pageSize, []byte("x")); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	// A reservation takes room and is not seen.
	m.SetCapacity(5 * pageSize)
	if err := f.Reserve(9 * pageSize); !errors.Is(err, syscall.ENOSPC) || m.Used() != 2*pageSize {
		t.Fatal(err, m.Used())
	}
	if err := f.Reserve(5 * pageSize); err != nil || m.Used() != 5*pageSize {
		t.Fatal(err, m.Used())
	}
	if size, err := f.Size(); err != nil || size != pageSize+1 {
		t.Fatal(size, err)
	}
	if n, err := f.WriteAt(2*pageSize, make([]byte, 3*pageSize)); n != 3*pageSize || err != nil {
		t.Fatal(n, err)
	}
}

func TestMemCloneAndLock(t *testing.T) {
	m := NewMem()
	write(t, m, "f", "before")
	l, err := m.Lock("LOCK")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock("LOCK"); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatal(err)
	}
	root, err := m.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock("."); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatal(err)
	}
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	c := m.Clone()
	write(t, m, "f", "after!")
	write(t, c, "g", "only there")
	if read(t, c, "f") != "before" || read(t, m, "f") != "after!" {
		t.Fatal("a clone shares what is written after it was made")
	}
	if _, err := m.Lstat("g"); !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	if _, err := c.Lock("LOCK"); err != nil {
		t.Fatalf("a clone is another process's view, not locked: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock("LOCK"); err != nil {
		t.Fatal(err)
	}
}

package vfstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// save is the textbook way to write a file so that it is there, whole, or not at all.
func save(fsys vfs.FS, name string, content []byte) error {
	f, err := fsys.Open("tmp/"+name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(0, content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fsys.RenameNew("tmp/"+name, "d/"+name); err != nil {
		return err
	}
	return fsys.SyncDir("d")
}

func start(t *testing.T) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	if err := errors.Join(m.Mkdir("tmp"), m.Mkdir("d")); err != nil {
		t.Fatal(err)
	}
	return m
}

// crashes saves three files and looks at all that a power cut may leave.
func crashes(t *testing.T, d *Disk, fsys vfs.FS) (Crashes, error) {
	t.Helper()
	content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 1500) }
	for i := range 3 {
		if err := save(fsys, fmt.Sprint(i), content(i)); err != nil {
			t.Fatal(err)
		}
		d.Mark(i)
	}
	return d.EachCrash(Model{}, func(s State) error {
		for i := range 3 {
			_, err := s.Mem.Lstat(fmt.Sprint("d/", i))
			switch {
			case err == nil && !bytes.Equal(ReadFile(s.Mem, fmt.Sprint("d/", i)), content(i)):
				return fmt.Errorf("file %d is torn", i)
			case err != nil && i < len(s.Marks):
				return fmt.Errorf("file %d was acknowledged and is lost", i)
			}
		}
		return nil
	})
}

func TestCrashStatesFindWhatIsNotFlushed(t *testing.T) {
	d := NewDisk(start(t), nil)
	count, err := crashes(t, d, d)
	if err != nil || count.States < 50 {
		t.Fatalf("%+v, %v", count, err)
	}
	t.Logf("%+v", count)
	for name, mutant := range map[string]func(vfs.FS) vfs.FS{
		"no flush of the file":      func(f vfs.FS) vfs.FS { return NoSync(f, "tmp/") },
		"no flush of the directory": func(f vfs.FS) vfs.FS { return NoSyncDir(f, "d") },
		"name before flush":         func(f vfs.FS) vfs.FS { return RenameFirst(f) },
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDisk(start(t), nil)
			if _, err := crashes(t, d, mutant(d)); err == nil {
				t.Fatal("nothing is lost, so the model would miss it in the store, too")
			}
		})
	}
}

func TestAFailedFlushIsFinal(t *testing.T) {
	syncs := 0
	hook := func(c Call) Verdict {
		if c.Op == "sync" {
			if syncs++; syncs == 1 {
				return Verdict{Errno: syscall.EIO}
			}
		}
		return Verdict{}
	}
	d := NewDisk(start(t), hook)
	if err := save(SyncAgain(d), "x", []byte("content")); err != nil {
		t.Fatal("the second flush says that all is well, as the kernel does:", err)
	}
	if len(d.Violations()) != 1 {
		t.Fatalf("violations: %v", d.Violations())
	}
	d.Mark("acknowledged")
	lost := false
	if _, err := d.EachCrash(Model{}, func(s State) error {
		if _, err := s.Mem.Lstat("d/x"); len(s.Marks) > 0 && (err != nil || string(ReadFile(s.Mem, "d/x")) != "content") {
			lost = true
		}
		return nil
	}); err != nil || !lost {
		t.Fatal("the bytes of a failed flush must not count as durable", err)
	}
}

func TestDiskFailsAndKills(t *testing.T) {
	d := NewDisk(start(t), nil)
	if err := save(d, "x", []byte("content")); err != nil {
		t.Fatal(err)
	}
	total := d.Calls()
	if d.OpenFiles() != 0 {
		t.Fatal("a file is open")
	}
	for n := 1; n <= total; n++ {
		for _, v := range []Verdict{{Errno: syscall.ENOSPC, Short: true}, {Kill: true}} {
			d := NewDisk(start(t), func(c Call) Verdict {
				if c.N == n {
					return v
				}
				return Verdict{}
			})
			err := save(d, "x", []byte("content"))
			if v.Kill != d.Dead() || err == nil || !v.Kill && !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("call %d, %+v: %v", n, v, err)
			}
			if v.Kill && d.Calls() != n {
				t.Fatal("a dead process made calls")
			}
		}
	}
}

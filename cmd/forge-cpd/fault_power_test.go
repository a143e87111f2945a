package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cut is what the tests of power cuts need of the machine.
func cut(t *testing.T, kind string) (mount string, again func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("power cuts need root: loop devices and the shutdown ioctl")
	}
	for _, program := range []string{"mkfs." + kind, "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("power cuts on %s need %s", kind, program)
		}
	}
	dir, err := os.MkdirTemp("/var/tmp", "forge-cpd-cut")
	if err != nil {
		t.Fatal(err)
	}
	image, mount := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	options, size := "loop", int64(384<<20)
	mkfs := []string{"-q", image}
	if kind == "ext4" {
		// Nothing becomes durable by itself within the test, and no block of metadata is late.
		options, size, mkfs = "loop,commit=1000", 96<<20, []string{"-q", "-F", "-b", "4096", image}
	}
	err = errors.Join(os.Mkdir(mount, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, size), run("mkfs."+kind, mkfs...))
	if err == nil {
		err = run("mount", "-o", options, image, mount)
	}
	t.Cleanup(func() {
		_ = exec.Command("umount", mount).Run() // it is not mounted when mounting failed
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Skipf("no %s on a loop device here: %v", kind, err)
	}
	return mount, func() {
		t.Helper()
		if err := run("umount", mount); err != nil {
			t.Fatal(err)
		}
		if err := run("mount", "-o", options, image, mount); err != nil {
			t.Fatal(err)
		}
	}
}

// shutdown is the power cut: EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number, and
// with this flag nothing that is in memory reaches the disk, the log included.
func shutdown(t *testing.T, mount *os.File) {
	t.Helper()
	if err := unix.IoctlSetPointerInt(int(mount.Fd()), 0x8004587d, 2); err != nil {
		t.Fatal("the shutdown ioctl: ", err)
	}
}

// freeze stops the daemon amid its calls: none that has not returned yet is answered for.
// The power goes at one moment, the ioctl takes some. On ext4 an fdatasync that began before
// it can return success after it, of a transaction that is dropped: the abort ends the
// running transaction (jbd2_journal_abort), and who waits for one that has ended is not told
// how (jbd2_complete_transaction). So no answer may leave after the ioctl began; each that
// left counts, and the kernel is in the middle of the flushes that it was asked for.
func (r *rig) freeze() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	// Once one thread has stopped, none goes back to user mode; a flush may still be under way.
	for deadline := time.Now().Add(hangs); !r.stopped(); {
		if time.Now().After(deadline) {
			r.t.Fatal("the daemon does not stop")
		}
	}
}

func (r *rig) stopped() bool {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.cmd.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(path string) bool {
		b, err := os.ReadFile(path) // a thread may end meanwhile
		return err == nil && bytes.Contains(b, []byte(") T "))
	})
}

// powerCuts cuts the power right after an answer, again and again, and returns how many
// acknowledged checkpoints were lost.
func powerCuts(t *testing.T, bin, kind string, rounds int, until func(lost int) bool) (acks, lost int) {
	t.Helper()
	mount, again := cut(t, kind)
	r := newRig(t, bin, filepath.Join(mount, "data"))
	for range rounds {
		r.start()
		told := make(chan struct{}, 1)
		from := len(r.acks)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				if err := r.write(fmt.Sprint("writer ", w), told); err != nil {
					t.Error(err)
				}
			})
		}
		dir, err := os.Open(mount)
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + rand.IntN(30) {
			select {
			case <-told:
			case <-time.After(hangs):
				_ = dir.Close() // or it stays mounted
				t.Fatalf("no answers:\n%s", &r.log)
			}
		}
		r.freeze()
		shutdown(t, dir)
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		r.kill()
		wg.Wait()
		again()
		r.start()
		missing := r.lost(from)
		if lost += len(missing); len(missing) > 0 {
			t.Logf("lost: %s", missing[len(missing)-1])
		}
		r.kill()
		if until(lost) {
			return len(r.acks), lost
		}
	}
	r.start()
	missing := r.lost(0)
	if err := r.sound(); err != nil && len(missing) == 0 {
		t.Fatal(err)
	}
	return len(r.acks), lost + len(missing)
}

func TestFaultPowerCut(t *testing.T) {
	rounds := faultRounds(t, 300, 30)
	t.Parallel()
	bin := buildDaemon(t)
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			acks, lost := powerCuts(t, bin, kind, rounds, func(lost int) bool { return lost > 0 })
			if lost > 0 {
				t.Fatalf("%d of %d acknowledged are lost", lost, acks)
			}
			t.Logf("%d cuts, %d acknowledged, none lost", rounds, acks)
		})
	}
}

// A daemon whose flushes do nothing must lose some, or the cut is none.
func TestFaultPowerCutNoticesMutants(t *testing.T) {
	rounds := faultRounds(t, 30, 30)
	t.Parallel()
	bin := buildDaemon(t, "unix.Fsync(f.fd)", "error(nil)", "unix.Fdatasync(f.fd)", "error(nil)", "err = unix.Fsync(fd)", "err = error(nil)")
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			acks, lost := powerCuts(t, bin, kind, rounds, func(lost int) bool { return lost > 0 })
			if lost == 0 {
				t.Fatalf("no flush at all, and all %d acknowledged are there", acks)
			}
		})
	}
}

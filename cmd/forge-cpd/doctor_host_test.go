package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faults are machines that something is really wrong with. Each script runs in a mount
// namespace of its own, with a socket directory and a data directory that are not there
// yet; wants are lines of what `forge-cpd doctor` prints at the end, exit its status.
var faults = []struct {
	name   string
	script string
	exit   int
	wants  []string
}{
	{"none", `first; stop`, 0, []string{`ok +integrity +1 checkpoint read again, all sound`}},
	{"none, running", `first`, 0, []string{`ok +integrity +1 checkpoint read again, all sound`}},
	{"socket mode", `first; chmod 666 "$FORGE_CPD_SOCKET"`, 1, []string{`FAIL +socket .*/s has mode 0666, and the configuration says 0600`, `→ chmod 600 .*/s`}},
	{"socket of another user", `first; chown 12345 "$FORGE_CPD_SOCKET"`, 1, []string{`FAIL +socket .*/s belongs to uid 12345, and you are uid 0`}},
	{"socket directory of another user", `first; stop; chown 12345 "${FORGE_CPD_SOCKET%/s}"`, 1, []string{`FAIL +socket .*/d belongs to uid 12345`}},
	{"data of another user", `first; stop; as=12345`, 1, []string{`FAIL +data .*/data belongs to uid 0, and you are uid 12345`, `→ chown it`}},
	{"full disk", `small size=24m; first; head -c 99m /dev/zero >data/fill 2>/dev/null || true; forge-cpd checkpoint delete '#1' >/dev/null`, 1, []string{
		`FAIL +disk .*/data has only \d+ (B|KiB) left`, `→ make room: .forge-cpd prune`, `ok +integrity +0 checkpoints`}},
	{"full disk, not running", `small size=24m; first; stop; head -c 99m /dev/zero >data/fill 2>/dev/null || true`, 1, []string{
		`FAIL +disk .*/data has only 0 B left`, `ok +integrity +1 checkpoint`}},
	{"no inodes", `small size=1g,nr_inodes=150; first`, 1, []string{`FAIL +disk .* inodes left`}},
	{"read-only", `small size=600m; first; stop; mount -o remount,ro data`, 1, []string{
		`FAIL +disk .*/data is mounted read-only`, `→ mount -o remount,rw`, `ok +integrity +1 checkpoint`}},
	{"few watches", `lower() { echo 100 >/proc/sys/user/max_inotify_watches; "$@"; }; within="unshare --user --map-root-user sh -ec"`, 1, []string{
		`FAIL +inotify +100 watches, \d+ instances: too few`, `→ sysctl fs.inotify.max_user_watches=524288`}},
	{"few descriptors", `ulimit -n 256`, 1, []string{`FAIL +descriptors +256 open files allowed, and limits.connections: 1024 needs 1280`, `→ ulimit -n 1280`}},
	{"few descriptors for the daemon", `(ulimit -n 300; first)`, 1, []string{`FAIL +descriptors +300 open files allowed`}},
	{"another socket's daemon", `FORGE_CPD_SOCKET=${FORGE_CPD_SOCKET%/d/s}/e/s first`, 1, []string{
		`FAIL +integrity +another daemon \(process \d+\) holds the store`, `→ name its socket`}},
	{"a clock that ran backwards", `future; first`, 1, []string{`FAIL +clock +ran backwards: a checkpoint is of 2099-01-01T00:00:00Z`, `→ set the clock right`}},
	{"a clock that ran backwards, not running", `future; stop`, 1, []string{`FAIL +clock +ran backwards: a checkpoint is of 2099-01-01T00:00:00Z`}},
	{"damage", `first; forge-cpd call daemon.sync >/dev/null; rot data/sessions/*/checkpoints/*; look`, 5, []string{
		`FAIL +integrity +1 of 1 checkpoint read again are damaged; checkpoint .* is damaged: checksum is sha256:`, `→ .forge-cpd fsck`}},
	{"damage, not running", `first; stop; rot data/sessions/*/checkpoints/*; look`, 5, []string{
		`FAIL +integrity +1 damaged file; the first is sessions/.*/checkpoints/.*: checksum is sha256:`, `→ .forge-cpd fsck`}},
	{"damaged bookkeeping, not running", `first; stop; rot data/sessions/*/manifest.jsonl; look`, 5, []string{`FAIL +integrity .* the first is sessions/.*/manifest.jsonl`}},
	{"damaged FORMAT, not running", `first; stop; rot data/FORMAT; look`, 5, []string{`FAIL +integrity +FORMAT is damaged: run forge-cpd fsck --repair`}},
}

// What the scripts call. look proves that a doctor changes nothing: the bytes of every
// file, its mode and its place are the same before and after.
const faultWords = `
small() { mkdir data; mount -t tmpfs -o "mode=700,$1" none data; }
first() { forge-cpd session create s --key s >/dev/null; forge-cpd checkpoint create s -m one >/dev/null; }
stop() { forge-cpd call daemon.shutdown >/dev/null; while forge-cpd --no-start status >/dev/null 2>&1; do :; done; until flock -n data/LOCK true; do :; done; }
future() {
	echo '{"checkpoints":[{"id":"0197f0aa-0000-7000-8000-000000000001","session_id":"0197f0aa-0000-7000-8000-000000000002","sequence_number":1,
	"timestamp":"2099-01-01T00:00:00Z","message":"m","tags":[],"trigger":"Manual","state":{},"checksum":"x"}],"global_sequence":1,"exported_at":"2026-01-01T00:00:00Z"}' |
		tr -d '\n' | forge-cpd import - >/dev/null
}
rot() { printf X | dd of="$1" bs=1 seek=30 conv=notrunc 2>/dev/null; }
tree() { find data ! -type d -exec sha256sum {} + | sort -k2; find data -printf '%p %m %s %l\n' | sort; }
look() { tree >before; forge-cpd doctor >/dev/null || true; tree >after; cmp before after >&2; }
as= within=
`

func TestDoctorOnRealFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds and starts real daemons")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts file systems and makes files of other users")
	}
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace (unshare --mount: %v %s)", err, out)
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			m := newFaulty(t)
			out, code := m.run(f.script + `
set +e
if [ -n "$as" ]; then chmod 711 . "${FORGE_CPD_SOCKET%/d/s}"; setpriv --reuid "$as" --regid "$as" --clear-groups forge-cpd doctor
elif [ -n "$within" ]; then $within 'echo 100 >/proc/sys/user/max_inotify_watches; exec forge-cpd doctor'
else forge-cpd doctor; fi`)
			if code != f.exit {
				t.Errorf("exit status %d, want %d", code, f.exit)
			}
			for _, want := range f.wants {
				if !regexp.MustCompile(`(?m)` + want).MatchString(out) {
					t.Errorf("%q is not told", want)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// faulty is a place of its own for one fault, and for the daemon that lives in it.
type faulty struct {
	t       *testing.T
	bin     string
	dir     string
	sockets string
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	bin, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(bin, 0o755); err != nil { // for other users
		t.Fatal(err)
	}
	m := &faulty{t: t, bin: bin}
	for _, dir := range []*string{&m.dir, &m.sockets} {
		if *dir, err = os.MkdirTemp("/tmp", "fc"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		endDaemons(t, m.sockets)
		if err := errors.Join(os.RemoveAll(m.dir), os.RemoveAll(m.sockets)); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *faulty) run(script string) (out string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-euc", faultWords+script)
	cmd.Dir = m.dir
	cmd.Env = []string{
		"PATH=" + m.bin + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + m.dir, "NO_COLOR=1", "FORGE_CPD_NO_SYSTEMD=1",
		"FORGE_CPD_SOCKET=" + filepath.Join(m.sockets, "d", "s"), "FORGE_CPD_DATA_DIR=" + filepath.Join(m.dir, "data"),
	}
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// A file system in user space stands for those whose locks and flushes are another machine's word.
func TestDoctorOnANetworkFileSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the daemon")
	}
	m := newFaulty(t)
	data := filepath.Join(m.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	mountFUSE(t, data)
	out, code := m.run("set +e; forge-cpd doctor")
	if code != 1 || !strings.Contains(out, data+" is on FUSE") || !strings.Contains(out, "storage.allow_network_fs: true") {
		t.Errorf("exit status %d: %s", code, out)
	}
	out, code = m.run("set +e; forge-cpd serve")
	if code == 0 || !strings.Contains(out, "is on FUSE, where locks and flushes do not hold") {
		t.Errorf("exit status %d: %s", code, out)
	}
	out, _ = m.run(`set +e; echo 'storage: {allow_network_fs: true}' >c.yaml; forge-cpd --config c.yaml doctor`)
	if !regexp.MustCompile(`ok +file system .* is on FUSE`).MatchString(out) {
		t.Errorf("allowed: %s", out)
	}
}

// mountFUSE mounts an empty file system that this process serves.
func mountFUSE(t *testing.T, dir string) {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0) // an os.File would poll it, which it minds
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", dev, os.Getuid(), os.Getgid())
	if err := unix.Mount("forge-cpd-test", dir, "fuse", 0, data); err != nil {
		unix.Close(dev)
		t.Skipf("needs the right to mount: %v", err)
	}
	served := make(chan error, 1)
	go func() {
		err := serveFUSE(dev)
		served <- errors.Join(err, unix.Close(dev)) // or who waits for an answer would wait for good
	}()
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, syscall.ENODEV) { // so it tells of the unmount
			t.Error(err)
		}
	})
}

// serveFUSE answers the kernel: one empty directory, of a size that is no problem.
func serveFUSE(dev int) error {
	const opLookup, opForget, opGetattr, opStatfs, opInit, opInterrupt = 1, 2, 3, 17, 26, 36
	le := binary.LittleEndian
	for b := make([]byte, 1<<17); ; {
		if _, err := unix.Read(dev, b); errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINTR) {
			continue // the request was interrupted
		} else if err != nil {
			return err
		}
		reply := make([]byte, 16)
		status := syscall.Errno(0)
		switch le.Uint32(b[4:]) {
		case opInit: // major and minor version, the rest as the kernel likes
			reply = append(reply, make([]byte, 64)...)
			le.PutUint32(reply[16:], 7)
			le.PutUint32(reply[20:], 31)
			le.PutUint32(reply[36:], 4096)
		case opGetattr: // inode 1, a directory of mode 0700
			reply = append(reply, make([]byte, 104)...)
			le.PutUint64(reply[32:], 1)
			le.PutUint32(reply[92:], syscall.S_IFDIR|0o700)
			le.PutUint32(reply[96:], 2)
			le.PutUint32(reply[100:], uint32(os.Getuid()))
		case opStatfs: // 4 GiB in blocks of 4 KiB
			reply = append(reply, make([]byte, 80)...)
			for i := range 5 {
				le.PutUint64(reply[16+8*i:], 1<<20)
			}
			le.PutUint32(reply[56:], 4096)
			le.PutUint32(reply[60:], 255)
			le.PutUint32(reply[64:], 4096)
		case opForget, opInterrupt:
			continue
		case opLookup:
			status = syscall.ENOENT
		default:
			status = syscall.ENOSYS
		}
		le.PutUint32(reply, uint32(len(reply)))
		le.PutUint32(reply[4:], uint32(-int32(status)))
		copy(reply[8:16], b[8:16])
		if _, err := unix.Write(dev, reply); err != nil && !errors.Is(err, syscall.ENOENT) { // interrupted meanwhile
			return err
		}
	}
}

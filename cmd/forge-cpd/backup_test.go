package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// liveDaemon is a real daemon in directories of its own.
type liveDaemon struct {
	t           *testing.T
	bin, dir    string
	socket      string
	environment []string
}

func newLiveDaemon(t *testing.T) *liveDaemon {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it builds and starts a real daemon")
	}
	bin, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "fc") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	m := &liveDaemon{t: t, bin: filepath.Join(bin, "forge-cpd"), dir: dir, socket: filepath.Join(dir, "d", "s")}
	m.environment = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME=", "FORGE_CPD_CONFIG=", "FORGE_CPD_NO_SYSTEMD=1", "NO_COLOR=1",
		"FORGE_CPD_SOCKET="+m.socket, "FORGE_CPD_DATA_DIR="+m.data())
	t.Cleanup(func() {
		endDaemons(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	m.run("session", "list")
	return m
}

func (m *liveDaemon) data() string { return filepath.Join(m.dir, "data") }

func (m *liveDaemon) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.bin, args...)
	cmd.Env = m.environment
	return cmd
}

// run runs a command that must succeed and gives what it printed.
func (m *liveDaemon) run(args ...string) []byte {
	m.t.Helper()
	cmd := m.command(args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		m.t.Fatalf("%v: %v: %s", args, err, exit.Stderr)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// acknowledged is what writers were told is kept, by number, and what they deleted since.
type acknowledged struct {
	mu      sync.Mutex
	kept    map[uint64]checkpoint.ID
	deleted map[checkpoint.ID]bool
}

func (a *acknowledged) now() map[uint64]checkpoint.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[uint64]checkpoint.ID{}
	for n, id := range a.kept {
		if !a.deleted[id] {
			all[n] = id
		}
	}
	return all
}

// write creates, annotates and deletes until ctx ends.
func (a *acknowledged) write(ctx context.Context, c *client.Client, n int) error {
	ref := client.ByKey(fmt.Sprint("writer-", n%4))
	var mine []checkpoint.ID
	for i := 0; ; i++ {
		r, err := c.CreateCheckpoint(ctx, &rpc.CheckpointCreateParams{SessionRef: ref, State: fmt.Appendf(nil, `{"writer":%d,"i":%d}`, n, i), Message: "m"})
		if err == nil && i%7 == 0 {
			_, err = c.Annotate(ctx, &rpc.AnnotateParams{CheckpointID: r.CheckpointID, Note: "n"})
		}
		if err == nil && i%5 == 4 {
			a.mu.Lock()
			a.deleted[mine[len(mine)-2]] = true // from now on it may be gone
			a.mu.Unlock()
			err = c.DeleteCheckpoint(ctx, mine[len(mine)-2])
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		mine = append(mine, r.CheckpointID)
		a.mu.Lock()
		a.kept[r.Sequence] = r.CheckpointID
		a.mu.Unlock()
	}
}

// checkCopy opens a copy as a store and looks for what must be in it.
func checkCopy(t *testing.T, dir string, want map[uint64]checkpoint.ID, gone func(checkpoint.ID) bool) {
	t.Helper()
	r, err := storage.Fsck(t.Context(), storage.Options{Dir: dir}, false)
	if err != nil || len(r.Problems) > 0 || r.Skipped > 0 {
		t.Fatalf("the copy is not whole: %+v, %v", r, err)
	}
	s, err := storage.Open(t.Context(), storage.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	missing := 0
	for number, id := range want {
		if _, err := s.Get(t.Context(), id); err != nil && !gone(id) {
			if missing++; missing < 5 {
				t.Errorf("%d, %s, was acknowledged before the backup began: %v", number, id, err)
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d are missing", missing, len(want))
	}
}

// TestBackupWhileEightWrite takes backups under load, and kills one with -9 at a time of
// its own choice: what is in the copy's place is a whole copy at each moment.
func TestBackupWhileEightWrite(t *testing.T) {
	m := newLiveDaemon(t)
	to := filepath.Join(t.TempDir(), "copy")
	for i := range 4 {
		m.run("session", "create", fmt.Sprint("writer ", i), "--key", fmt.Sprint("writer-", i))
	}
	ack := &acknowledged{kept: map[uint64]checkpoint.ID{}, deleted: map[checkpoint.ID]bool{}}
	gone := func(id checkpoint.ID) bool {
		ack.mu.Lock()
		defer ack.mu.Unlock()
		return ack.deleted[id]
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var failed atomic.Pointer[error]
	for n := range 8 {
		writers.Go(func() {
			c := &client.Client{Socket: m.socket}
			if err := errors.Join(ack.write(ctx, c, n), c.Close()); err != nil {
				failed.Store(&err)
			}
		})
	}
	defer writers.Wait()
	defer stop()
	for len(ack.now()) < 400 && failed.Load() == nil {
		time.Sleep(5 * time.Millisecond) // the writers' own pace is the load
	}

	var first, second storage.BackupReport
	before := ack.now()
	if err := json.Unmarshal(m.run("backup", to, "--json"), &first); err != nil {
		t.Fatal(err)
	}
	checkCopy(t, to, before, gone)

	// A backup that is killed as soon as it has begun to copy.
	lastGood := before
	cmd := m.command("backup", to)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if names, err := os.ReadDir(filepath.Join(to+".new", "sessions")); err == nil && len(names) > 0 {
			break
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Log("the backup had ended before it was killed")
	}
	checkCopy(t, to, lastGood, gone)

	before = ack.now()
	if err := json.Unmarshal(m.run("backup", to, "--json"), &second); err != nil {
		t.Fatal(err)
	}
	checkCopy(t, to, before, gone)
	stop()
	writers.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	if second.Linked < first.Checkpoints/2 {
		t.Errorf("first %+v, second %+v", first, second)
	}
	t.Logf("acknowledged %d; first %+v, second %+v", len(ack.now()), first, second)
	var third storage.BackupReport
	if err := json.Unmarshal(m.run("backup", to, "--json"), &third); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(m.run("backup", to, "--json", "--verify"), &second); err != nil {
		t.Fatal(err)
	}
	if second.Copied != 0 || second.Checkpoints != third.Checkpoints || second.Checkpoints < len(ack.now()) {
		t.Errorf("nothing is new: %+v, acknowledged %d", second, len(ack.now()))
	}
}

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// maxEnviron bounds what is read of a process's environment; the kernel lets one be larger.
const maxEnviron = 1 << 20

// gitTimeout bounds looking at a work tree; a huge one is left out rather than waited for.
const gitTimeout = 2 * time.Second

// capturer sees what belongs in a checkpoint's context: the agent's process and work tree.
type capturer struct {
	uid      uint32
	hostname string
	proc     string // /proc, or a test's

	mu   sync.Mutex // guards what follows
	kept map[uint64]*peerProcess
	room int // how many more agents' directories may stay open
}

// keptDirs is how many agents' directories stay open at most: each is a descriptor.
const keptDirs = 128

// peerProcess is what is kept of one connection's process. Its directory in /proc tells nothing
// once it has ended, whoever has its number then. Its environment does not change after it
// began, so it is read once a connection and set of names.
type peerProcess struct {
	dir   *os.Root
	names string
	vars  map[string]string
}

func newCapturer(uid uint32) (*capturer, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("reading the host's name: %w", err)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("reading the limit on open files: %w", err)
	}
	return &capturer{
		uid: uid, hostname: host, proc: "/proc", kept: map[uint64]*peerProcess{}, room: int(min(keptDirs, files.Cur/64)),
	}, nil
}

// forget drops what was kept of a connection.
func (c *capturer) forget(conn uint64) {
	c.mu.Lock()
	p := c.kept[conn]
	if p != nil {
		delete(c.kept, conn)
		c.room++
	}
	c.mu.Unlock()
	if p != nil {
		_ = p.dir.Close() // of a descriptor that was only read
	}
}

// contextOf describes the moment: the peer's process when there is one, else only the host.
func (s *service) contextOf(ctx context.Context, sess checkpoint.Session, peer rpc.Peer, source checkpoint.StateSource) checkpoint.Context {
	cfg := s.config()
	c := checkpoint.Context{
		CapturedAt: time.Now().UTC(), StartedAt: s.started, EnvVars: map[string]string{}, Hostname: s.capture.hostname,
		StateSource: source,
		Metrics: map[string]uint64{
			"checkpoints_created": s.metrics.creates.Load(),
			"session_checkpoints": uint64(sess.CheckpointCount),
		},
	}
	if peer != nil {
		names := cfg.Capture.Env
		if sess.Auto != nil && len(sess.Auto.Capture.Env) > 0 {
			names = slices.Concat(names, sess.Auto.Capture.Env)
		}
		hidden := s.capture.process(&c, peer, names, cfg.Capture.Redact)
		s.metrics.redacted.Add(hidden)
	}
	own := c.UID != nil && *c.UID == s.uid
	if c.WorkingDir == "" && sess.OwnerUID == s.uid && filepath.IsAbs(sess.Labels["cwd"]) {
		// A transcript that is followed, a timer, a hook that has ended: no process is there
		// to look at, but who made the session said where its agent works.
		c.WorkingDir, own = sess.Labels["cwd"], true
	}
	if sess.Auto != nil && sess.Auto.Capture.Git && c.WorkingDir != "" && own {
		git, err := readGit(ctx, c.WorkingDir)
		if err != nil {
			s.log.DebugContext(ctx, "the work tree was not looked at", "dir", c.WorkingDir, "err", err)
		}
		c.Git = git
	}
	return c
}

// process fills in what /proc tells of the peer. A process that ended, or whose number
// another process has by now, leaves only the credentials the kernel gave at connect.
func (c *capturer) process(out *checkpoint.Context, peer rpc.Peer, names []string, redact bool) (hidden uint64) {
	uid := peer.UID()
	out.UID, out.PID = &uid, peer.PID()
	if peer.PID() <= 0 {
		return 0
	}
	p, keep := c.open(peer)
	if p == nil {
		return 0
	}
	if !keep {
		defer p.dir.Close()
	}
	cwd, err := p.dir.Readlink("cwd")
	if err != nil {
		if !peer.Alive() {
			return 0
		}
		cwd = "" // not ours to look at
	}
	out.WorkingDir = strings.TrimSuffix(cwd, " (deleted)")
	vars, hidden := c.environ(p, names, redact)
	maps.Copy(out.EnvVars, vars)
	return hidden
}

// open opens the directory of the peer's process, nil when that has ended. When it is not
// to be kept, it is the caller's to close.
func (c *capturer) open(peer rpc.Peer) (p *peerProcess, keep bool) {
	c.mu.Lock()
	p = c.kept[peer.ConnID()]
	c.mu.Unlock()
	if p != nil {
		return p, true
	}
	dir, err := os.OpenRoot(c.proc + "/" + strconv.Itoa(peer.PID()))
	if err != nil {
		return nil, false
	}
	if !peer.Alive() { // it may be another's, who got the number
		_ = dir.Close()
		return nil, false
	}
	p = &peerProcess{dir: dir}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == 0 || c.kept[peer.ConnID()] != nil {
		return p, false
	}
	select {
	case <-peer.Done(): // forget was called, or will find nothing
		return p, false
	default:
	}
	c.room--
	c.kept[peer.ConnID()] = p
	return p, true
}

// environ is what may be kept of the agent's environment, and how much was hidden.
func (c *capturer) environ(p *peerProcess, names []string, redact bool) (vars map[string]string, hidden uint64) {
	key := strconv.FormatBool(redact) + "\x00" + strings.Join(names, "\x00")
	c.mu.Lock()
	vars, known := p.vars, p.vars != nil && p.names == key
	c.mu.Unlock()
	if known {
		return vars, 0 // counted when it was read
	}
	vars = map[string]string{}
	raw, err := readAtMost(p.dir, "environ", maxEnviron)
	if err != nil {
		return vars, 0
	}
	for _, entry := range bytes.Split(raw, []byte{0}) {
		name, value, ok := strings.Cut(string(entry), "=")
		if !ok || !slices.Contains(names, name) {
			continue
		}
		if redact && looksSecret(name, value) {
			hidden++
			continue
		}
		vars[name] = strings.ToValidUTF8(value, "\uFFFD")
	}
	c.mu.Lock()
	p.names, p.vars = key, vars
	c.mu.Unlock()
	return vars, hidden
}

func readAtMost(dir *os.Root, name string, n int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(&limited{f: f, n: n})
	return b.Bytes(), err
}

// limited is io.LimitedReader that does not hide the file from bytes.Buffer's caller.
type limited struct {
	f *os.File
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, fmt.Errorf("%s is larger than %d bytes", l.f.Name(), maxEnviron)
	}
	n, err := l.f.Read(p[:min(int64(len(p)), l.n)])
	l.n -= int64(n)
	return n, err
}

// readGit asks git itself, told to change nothing, to fetch nothing and to run nothing that
// the repository names: no index refresh, file system monitor, hooks or filters.
func readGit(ctx context.Context, dir string) (*checkpoint.Git, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gitTimeout)
	defer cancel()
	env, err := withoutFilters(ctx, dir)
	if err != nil {
		return nil, err
	}
	out, err := runGit(ctx, dir, env, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--ignore-submodules=all")
	if err != nil {
		return nil, err
	}
	git := &checkpoint.Git{}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "# branch.oid "):
			if git.Head = strings.TrimPrefix(line, "# branch.oid "); git.Head == "(initial)" {
				git.Head = ""
			}
		case strings.HasPrefix(line, "# branch.head "):
			if git.Branch = strings.TrimPrefix(line, "# branch.head "); git.Branch == "(detached)" {
				git.Branch = ""
			}
		case line != "" && line[0] != '#':
			git.Dirty = true
		}
	}
	return git, nil
}

// withoutFilters is the environment that empties each filter of a repository's
// configuration: git would run one to compare a file whose time has changed.
func withoutFilters(ctx context.Context, dir string) ([]string, error) {
	out, err := runGit(ctx, dir, nil, "config", "--null", "--name-only", "--get-regexp", `^filter\.`)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // there is none
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var env []string
	n := 0
	for _, key := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		value := ""
		if strings.HasSuffix(key, ".required") {
			value = "false"
		}
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, value))
		n++
	}
	return append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", n)), nil
}

func runGit(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", slices.Concat([]string{
		"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false",
	}, args)...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0",
		"GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none",
	}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s in %s: %w", args[0], dir, err)
	}
	return out, nil
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// realAgent is how one of the real programs is installed, set up and called.
type realAgent struct {
	name     string // as `forge-cpd hook` knows it
	packages string // for npm, with the version: newer ones may behave otherwise
	program  string // below node_modules, a pattern
	env      func(base string) []string
	setup    func(home, base string) error
	prompt   func(p string) []string          // arguments that run a prompt without a terminal
	goOn     func(session, p string) []string // and in a session that is there
}

var realAgents = []*realAgent{
	{
		name: "claude-code", packages: "@anthropic-ai/claude-code@2.1.330", program: "@anthropic-ai/claude-code-linux-*/claude",
		env: func(base string) []string {
			return []string{"ANTHROPIC_BASE_URL=" + base, "ANTHROPIC_API_KEY=none", "DISABLE_TELEMETRY=1", "DISABLE_ERROR_REPORTING=1",
				"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_AUTOUPDATER=1", "CLAUDE_CODE_MAX_RETRIES=0"}
		},
		prompt: func(p string) []string { return []string{"-p", p, "--allowedTools", "Bash"} },
		goOn:   func(s, p string) []string { return []string{"--resume", s, "-p", p, "--allowedTools", "Bash"} },
	},
	{
		name: "codex", packages: "@openai/codex@0.169.0", program: "@openai/codex-linux-*/vendor/*/bin/codex",
		env: func(string) []string { return []string{"STUB_KEY=none"} },
		setup: func(home, base string) error {
			config := fmt.Sprintf("model = \"stub\"\nmodel_provider = \"stub\"\ncheck_for_update_on_startup = false\n[model_providers.stub]\nname = \"stub\"\n"+
				"base_url = \"%s/v1\"\nenv_key = \"STUB_KEY\"\nwire_api = \"responses\"\nrequest_max_retries = 0\nstream_max_retries = 0\n"+
				"[analytics]\nenabled = false\n[otel]\nexporter = \"none\"\n", base)
			return writeBelow(filepath.Join(home, ".codex", "config.toml"), config)
		},
		// A person trusts the hooks once, with /hooks; the flag stands for that.
		prompt: func(p string) []string { return append(codexFlags("exec"), p) },
		goOn:   func(s, p string) []string { return append(codexFlags("exec", "resume"), s, p) },
	},
	{
		name: "gemini", packages: "@google/gemini-cli@0.61.0", program: "@google/gemini-cli/bundle/gemini.js",
		// Without NO_RELAUNCH it starts itself again, and a kill hits the wrong process.
		env: func(base string) []string {
			return []string{"GOOGLE_GEMINI_BASE_URL=" + base, "GEMINI_API_KEY=none", "GEMINI_CLI_NO_RELAUNCH=true"}
		},
		setup: func(home, _ string) error {
			return writeBelow(filepath.Join(home, ".gemini", "settings.json"), `{"security": {"auth": {"selectedType": "gemini-api-key"}},
 "telemetry": {"enabled": false}, "privacy": {"usageStatisticsEnabled": false}, "general": {"enableAutoUpdate": false}}`+"\n")
		},
		prompt: func(p string) []string { return append(geminiFlags(), "-p", p) },
		goOn:   func(s, p string) []string { return append(geminiFlags(), "--resume", s, "-p", p) },
	},
}

func codexFlags(words ...string) []string {
	return append(words, "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--dangerously-bypass-hook-trust", "--json")
}

func geminiFlags() []string {
	return []string{"--skip-trust", "--yolo", "-m", "gemini-2.5-flash", "-o", "json"}
}

func writeBelow(path, text string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600))
}

// install puts the program into a cache outside the source tree, once.
func (a *realAgent) install(t *testing.T) []string {
	t.Helper()
	base := os.Getenv("FORGE_CPD_AGENTS_DIR")
	if base == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		base = filepath.Join(cache, "forge-cpd-agents")
	}
	dir := filepath.Join(base, a.name)
	find := func() string {
		found, _ := filepath.Glob(filepath.Join(dir, "node_modules", a.program))
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	if find() == "" {
		if err := writeBelow(filepath.Join(dir, "package.json"), `{"private": true}`); err != nil {
			t.Fatal(err)
		}
		npm := exec.Command("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", a.packages)
		npm.Dir = dir
		if out, err := npm.CombinedOutput(); err != nil || find() == "" {
			t.Fatalf("npm install %s: %v\n%s", a.packages, err, out)
		}
	}
	if path := find(); strings.HasSuffix(path, ".js") {
		return []string{"node", path}
	} else {
		return []string{path}
	}
}

// jail starts programs where the network is a loopback interface and nothing else, so that
// no agent can reach the internet. It is a thread in a network namespace of its own.
type jail struct{ work chan func() }

func newJail(t *testing.T) *jail {
	t.Helper()
	j := &jail{work: make(chan func())}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		failed <- err
		for f := range j.work {
			f()
		}
	}()
	err := <-failed
	t.Cleanup(func() { close(j.work) })
	if err != nil {
		t.Skipf("a network of its own for the agents needs root: %v", err)
	}
	return j
}

func (j *jail) do(f func()) {
	done := make(chan struct{})
	j.work <- func() { defer close(done); f() }
	<-done
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// agentRig is one agent with a home, a model and a daemon of its own.
type agentRig struct {
	t      *testing.T
	agent  *realAgent
	argv   []string
	binary string // forge-cpd
	dir    string
	home   string
	proj   string
	socket string
	base   string
	jail   *jail
	model  *stubModel
	daemon *exec.Cmd
}

func newAgentRig(t *testing.T, a *realAgent, binary string) *agentRig {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	r := &agentRig{t: t, agent: a, argv: a.install(t), binary: binary, dir: dir, home: filepath.Join(dir, "home"), proj: filepath.Join(dir, "proj"),
		socket: filepath.Join(dir, "s"), model: &stubModel{}}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("FORGE_CPD_AGENTS_KEEP") == "1" {
			t.Log("kept", dir)
			return
		}
		os.RemoveAll(dir)
	})
	for _, d := range []string{r.home, r.proj} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.jail = newJail(t)
	r.jail.do(func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		r.base = "http://" + l.Addr().String()
		t.Cleanup(func() { l.Close() })
		go r.model.serve(l)
	})
	if a.setup != nil {
		if err := a.setup(r.home, r.base); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *agentRig) environ() []string {
	return append([]string{"HOME=" + r.home, "PATH=" + os.Getenv("PATH"), "TERM=xterm-256color", "LANG=C.UTF-8", "TMPDIR=" + r.dir}, r.agent.env(r.base)...)
}

// start runs the agent; its process group is its own.
func (r *agentRig) start(args ...string) (*exec.Cmd, *bytes.Buffer) {
	r.t.Helper()
	argv := append(append([]string(nil), r.argv...), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	out := &bytes.Buffer{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.proj, r.environ(), out, out
	cmd.WaitDelay = 2 * time.Second // orphans of a killed agent hold the pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var err error
	r.jail.do(func() { err = cmd.Start() })
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd, out
}

// run runs the agent to its end and gives how long that took.
func (r *agentRig) run(args ...string) time.Duration {
	r.t.Helper()
	start := time.Now()
	cmd, out := r.start(args...)
	timer := time.AfterFunc(90*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	timer.Stop()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		r.t.Fatalf("%s %q: %v\n%s", r.agent.name, args, err, out.String())
	}
	return time.Since(start)
}

// forge runs forge-cpd for this rig and gives its output.
func (r *agentRig) forge(args ...string) string {
	r.t.Helper()
	cmd := exec.Command(r.binary, args...)
	cmd.Dir, cmd.Env = r.proj, append(r.environ(), "FORGE_CPD_SOCKET="+r.socket, "FORGE_CPD_DATA_DIR="+filepath.Join(r.dir, "data"), "FORGE_CPD_NO_AUTOSTART=1")
	var talk bytes.Buffer
	cmd.Stderr = &talk
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("forge-cpd %q: %v\n%s%s", args, err, out, talk.String())
	}
	return string(out)
}

// serve starts the daemon and waits until it answers.
func (r *agentRig) serve() {
	r.t.Helper()
	r.daemon = exec.Command(r.binary, "serve", "--socket", r.socket, "--data-dir", filepath.Join(r.dir, "data"))
	var log bytes.Buffer
	r.daemon.Env, r.daemon.Stderr = r.environ(), &log
	if err := r.daemon.Start(); err != nil {
		r.t.Fatal(err)
	}
	d := r.daemon
	r.t.Cleanup(func() {
		_ = d.Process.Signal(syscall.SIGCONT)
		_ = d.Process.Signal(syscall.SIGTERM)
		_ = d.Wait()
		if r.t.Failed() {
			r.t.Logf("the daemon's log:\n%s", log.String())
		}
	})
	r.wait("the daemon to answer", func() bool {
		c, err := net.Dial("unix", r.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// wait polls: the programs that are waited for tell nobody.
func (r *agentRig) wait(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("waited for %s in vain", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// builtBinary builds the real program once for all scripts: an automatic start must find a
// program that serves, and a test's own binary is none.
var builtBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "forge-cpd-bin")
	if err != nil {
		return "", err
	}
	binDir = dir
	overlay, err := nextMajor(dir)
	if err != nil {
		return "", err
	}
	for name, args := range map[string][]string{
		"forge-cpd": {"-ldflags", "-X main.version=v1.2.0"}, "forge-cpd-old": {"-ldflags", "-X main.version=v1.1.0"},
		"forge-cpd-next": {"-overlay", overlay, "-ldflags", "-X main.version=v2.0.0"},
	} {
		args = append(append([]string{"build"}, args...), "-o", filepath.Join(dir, name), ".")
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("building: %w\n%s", err, out)
		}
	}
	return dir, nil
})

// nextMajor writes the overlay with which the program is built as one of another API.
func nextMajor(dir string) (string, error) {
	file, err := filepath.Abs("../../rpc/service.go")
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	changed := bytes.Replace(source, []byte("APIVersion = API{Major: 1,"), []byte("APIVersion = API{Major: 2,"), 1)
	if bytes.Equal(changed, source) {
		return "", fmt.Errorf("%s does not name the API's version where it is looked for", file)
	}
	replaced, overlay := filepath.Join(dir, "service.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {file: replaced}})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(os.WriteFile(replaced, changed, 0o600), os.WriteFile(overlay, list, 0o600))
}

var binDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if binDir != "" {
		if err := os.RemoveAll(binDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// TestScripts runs the scripts in testdata/script: each has a machine of its own, with
// home, socket and data directory, and a daemon that the first command starts.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds and starts real daemons")
	}
	bin, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Deadline:            time.Now().Add(90 * time.Second),
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return setupMachine(env, bin) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits,
			"fifty": cmdFifty,
			"keep":  cmdKeep,
		},
	})
}

func setupMachine(env *testscript.Env, bin string) error {
	run, err := os.MkdirTemp("/tmp", "fc") // sockets want short paths
	if err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for k, v := range map[string]string{
		"HOME": home, "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": "", "XDG_RUNTIME_DIR": "", "NO_COLOR": "1",
		"PATH": bin + string(os.PathListSeparator) + os.Getenv("PATH"), "RUN": run, "BIN": bin,
		"FORGE_CPD_SOCKET": filepath.Join(run, "d", "s"), "FORGE_CPD_DATA_DIR": filepath.Join(env.WorkDir, "data"),
		"FORGE_CPD_CONFIG": "", "FORGE_CPD_NO_SYSTEMD": "1", "TZ": "UTC",
	} {
		env.Setenv(k, v)
	}
	env.Defer(func() {
		endDaemons(env.T().(testing.TB), run)
		_ = os.RemoveAll(run)
	})
	return nil
}

// endDaemons ends every daemon that listens below a directory, one that is stopped too:
// a script that fails or is cut off leaves none behind.
func endDaemons(t testing.TB, run string) {
	sockets, err := filepath.Glob(filepath.Join(run, "*", "s"))
	if err != nil {
		t.Error(err)
	}
	for _, socket := range sockets {
		pid, err := listener(socket)
		if err != nil {
			continue // nobody listens any more
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		_ = p.Signal(syscall.SIGTERM)
		_ = p.Signal(syscall.SIGCONT)
		for end := time.Now().Add(15 * time.Second); p.Signal(syscall.Signal(0)) == nil; {
			if time.Now().After(end) {
				t.Errorf("the daemon %d did not end when it was told to", pid)
				_ = p.Kill()
				break
			}
			time.Sleep(10 * time.Millisecond) // it is no child: there is nothing to wait for
		}
	}
}

// listener is the process that listens on a socket; the kernel tells, even of one that is stopped.
func listener(socket string) (int, error) {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(ctlErr, err); err != nil {
		return 0, err
	}
	if cred.Pid == int32(os.Getpid()) || cred.Pid <= 1 {
		return 0, fmt.Errorf("process %d listens on %s", cred.Pid, socket)
	}
	return int(cred.Pid), nil
}

// cmdExits runs a program and wants its exit status: exits 4 forge-cpd show x.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(*exec.ExitError); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit status %d, want %s", code, args[0])
	}
}

// cmdFifty runs fifty copies of a command at once; each must succeed.
func cmdFifty(ts *testscript.TestScript, _ bool, args []string) {
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			cmd := exec.Command(filepath.Join(ts.Getenv("BIN"), args[0]), args[1:]...)
			cmd.Dir, cmd.Env = ts.Getenv("WORK"), scriptEnv(ts)
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("%w: %s", err, out)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		ts.Check(err)
	}
}

func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, k := range []string{"HOME", "PATH", "FORGE_CPD_SOCKET", "FORGE_CPD_DATA_DIR", "FORGE_CPD_NO_SYSTEMD", "NO_COLOR"} {
		env = append(env, k+"="+ts.Getenv(k))
	}
	return env
}

// cmdKeep puts the last command's output, less its new line, into a variable: keep ID.
func cmdKeep(ts *testscript.TestScript, _ bool, args []string) {
	out := ts.ReadFile("stdout")
	for len(out) > 0 && out[len(out)-1] == '\n' {
		out = out[:len(out)-1]
	}
	ts.Setenv(args[0], out)
}

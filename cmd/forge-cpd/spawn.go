package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/daemon/config"
)

// process is a daemon that was started; ended tells once when it is gone too early. One
// that systemd started is not watched: its channel stays silent.
type process struct{ ended chan ending }

type ending struct {
	code int
	err  error
}

// logFile is where a daemon that no service manager runs writes its log: beside the data
// directory, which holds nothing but the store.
func logFile(paths config.Paths) string { return filepath.Clean(paths.DataDir) + ".log" }

const maxLog = 10 << 20

// spawn starts `serve` so that it outlives the caller: under the user's systemd where one
// runs, so that it does not die with the agent's own unit, else in a session of its own.
func spawn(ctx context.Context, paths config.Paths) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// The program may have been replaced since it was started; the new one is right.
	self = strings.TrimSuffix(self, " (deleted)")
	args := []string{"serve", "--socket", paths.Socket, "--data-dir", paths.DataDir}
	if paths.Config != "" {
		args = append(args, "--config", paths.Config)
	}
	if os.Getenv("FORGE_CPD_NO_SYSTEMD") != "1" && systemdRuns() {
		switch err := underSystemd(ctx, self, args, paths); {
		case err == nil:
			return &process{}, nil
		case errors.Is(err, errUnitThere):
			return nil, err
		}
	}
	return detach(self, args, logFile(paths))
}

// errUnitThere: systemd has a unit of this daemon's name, which is on its way up or out.
var errUnitThere = errors.New("systemd has the daemon's unit already")

// underSystemd tries a transient unit. Its name stands for the socket, so that systemd
// too lets only one be started.
func underSystemd(ctx context.Context, self string, args []string, paths config.Paths) error {
	h := fnv.New32a()
	io.WriteString(h, paths.Socket) // a hash takes everything
	run := []string{"--quiet", "--collect", "--unit", fmt.Sprintf("forge-cpd-auto-%08x", h.Sum32()),
		"--description", "forge-cpd, started by a client", "--service-type=notify", "--setenv=PATH=" + os.Getenv("PATH"),
		"--property=Restart=on-failure", "--property=RestartPreventExitStatus=2 5 75"}
	if os.Getuid() != 0 {
		run = append(run, "--user")
	}
	run = append(append(run, "--", self), args...)
	cmd := exec.CommandContext(ctx, "systemd-run", run...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("was already loaded")) {
		return errUnitThere
	}
	return err
}

// systemdRuns tells whether there is a manager for this user to start units with.
func systemdRuns() bool {
	if _, err := exec.LookPath("systemd-run"); err != nil {
		return false
	}
	private := "/run/systemd/private"
	if os.Getuid() != 0 {
		private = filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd", "private")
	}
	info, err := os.Stat(private)
	return err == nil && info.Mode()&os.ModeSocket != 0
}

// detach runs the daemon in a session of its own, its output in a log file.
func detach(self string, args []string, logName string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(logName), 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Stat(logName); err == nil && info.Size() > maxLog {
		if err := os.Rename(logName, logName+".1"); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the daemon's log: %w", err)
	}
	defer log.Close()
	start, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the daemon: %w", err)
	}
	p := &process{ended: make(chan ending, 1)}
	go func() { // ends with the daemon, or with this process
		err := cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		p.ended <- ending{code: code, err: &exitError{code: max(code, 1),
			err: fmt.Errorf("the daemon did not start (%v): %s\nIts log is %s", errors.Join(err), tail(logName, start), logName)}}
	}()
	return p, nil
}

// tail is the end of what was written to a log since an offset.
func tail(name string, from int64) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-3):], []byte("\n")))
}

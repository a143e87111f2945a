package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// stderrWait is how long a program's children may hold its stderr open after its end
// before run ends as well.
const stderrWait = 500 * time.Millisecond

// tailWriter passes on what is written and remembers its end.
type tailWriter struct {
	to    io.Writer
	limit int
	kept  []byte
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.kept = append(w.kept, p...)
	if extra := len(w.kept) - w.limit; extra > 0 {
		w.kept = append(w.kept[:0], w.kept[extra:]...)
	}
	return w.to.Write(p)
}

// text is what was kept, in valid UTF-8: it may begin in the middle of a character.
func (w *tailWriter) text() string { return strings.ToValidUTF8(string(w.kept), "") }

// connectStderr gives the program a stderr that passes through tail. Behind a terminal it
// is a terminal as well, or programs would drop their colours and progress bars. wait
// returns when all was passed on.
func connectStderr(cmd *exec.Cmd, stderr io.Writer, tail *tailWriter) (wait func(), err error) {
	real, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(real.Fd())) {
		cmd.Stderr, cmd.WaitDelay = tail, stderrWait
		return func() {}, nil
	}
	master, slave, err := openPTY(real)
	if err != nil {
		return nil, fmt.Errorf("giving the program a terminal for its errors: %w", err)
	}
	cmd.Stderr = slave
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, syscall.SIGWINCH)
	stop, copied := make(chan struct{}), make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-sizes:
				copySize(real, master)
			}
		}
	}()
	go func() {
		defer close(copied)
		_, _ = io.Copy(tail, master) // ends in EIO when the last writer has gone
	}()
	return func() {
		signal.Stop(sizes)
		close(stop)
		slave.Close()
		select {
		case <-copied:
		case <-time.After(stderrWait):
		}
		master.Close()
		<-copied
	}, nil
}

// openPTY makes a terminal of the size of another that changes nothing in what is written.
func openPTY(like *os.File) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
		var n int
		if n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	}
	if err == nil {
		_, err = term.MakeRaw(int(slave.Fd()))
	}
	if err != nil {
		if slave != nil {
			err = errors.Join(err, slave.Close())
		}
		return nil, nil, errors.Join(err, master.Close())
	}
	copySize(like, master)
	return master, slave, nil
}

// copySize is for looks: a terminal that has no size keeps the other's as it is.
func copySize(from, to *os.File) {
	size, err := unix.IoctlGetWinsize(int(from.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	raw, err := to.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
}

// signalName is "SIGKILL" and the like.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(s))
}

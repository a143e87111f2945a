package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
)

// socket is a listener that this process made, and the file that goes with it.
type socket struct {
	net.Listener
	path     string
	dev, ino uint64
	changed  unix.Timespec // inode numbers are used again; this tells two sockets apart
}

// listen makes the daemon's socket. The store's lock is held already, so a socket that
// refuses connections is a leftover of this store's last daemon, or of none.
//
// The socket gets its mode between bind and listen: before listen nobody can connect, and
// after it the mode is right. Nothing that this process did not make is changed.
func listen(path, mode string, shared bool) (*socket, error) {
	if err := config.CheckSocketPath(path); err != nil {
		return nil, err
	}
	perm, err := strconv.ParseUint(mode, 8, 9)
	if err != nil {
		return nil, fmt.Errorf("socket.mode %q is not a mode such as 0600", mode)
	}
	if err := config.PrivateDir(filepath.Dir(path), shared); err != nil {
		return nil, fmt.Errorf("the socket's directory: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // net.FileListener works on a copy
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("binding %s: %w", path, err)
	}
	s, err := finishListen(file, path, os.FileMode(perm))
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return s, nil
}

func finishListen(file *os.File, path string, mode os.FileMode) (*socket, error) {
	if err := os.Chmod(path, mode); err != nil {
		return nil, fmt.Errorf("closing %s to others: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	if err := unix.Listen(int(file.Fd()), unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return &socket{Listener: l, path: path, dev: uint64(st.Dev), ino: st.Ino, changed: st.Ctim}, nil
}

// removeStale removes a socket that nobody listens on. Anything else there is an error.
func removeStale(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%s is there and is no socket: remove it, or name another place with --socket", path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("the socket %s belongs to uid %d and this is uid %d: name another place with --socket", path, st.Uid, os.Geteuid())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		e := checkpoint.Errorf(checkpoint.KindOverloaded, "another daemon, of another store, answers at %s: stop it, or name another place with --socket", path)
		e.Retry = true
		return errors.Join(e, c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("asking who is at %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the stale socket %s: %w", path, err)
	}
	return nil
}

// remove takes the file away, if it is still the one that this process made.
func (s *socket) remove() error {
	var st unix.Stat_t
	if err := unix.Lstat(s.path, &st); err != nil || uint64(st.Dev) != s.dev || st.Ino != s.ino || st.Ctim != s.changed {
		return nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", s.path, err)
	}
	return nil
}

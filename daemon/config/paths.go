package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Flags are what a command line may say about paths; "" is not given. Relative ones begin
// at the working directory.
type Flags struct {
	Config, Socket, DataDir string
}

// Origin says what decided a path.
type Origin string

// The origins, strongest first.
const (
	FromFlag    Origin = "flag"
	FromEnv     Origin = "environment"
	FromConfig  Origin = "configuration"
	FromDefault Origin = "default"
)

// The environment variables that come between flags and configuration.
const (
	EnvSocket  = "FORGE_CPD_SOCKET"
	EnvDataDir = "FORGE_CPD_DATA_DIR"
	EnvConfig  = "FORGE_CPD_CONFIG"
)

// Paths are where things live. All are absolute; Config is "" when no file was found.
type Paths struct {
	Config      string `json:"config"`
	ConfigFrom  Origin `json:"config_from"`
	Socket      string `json:"socket"`
	SocketFrom  Origin `json:"socket_from"`
	DataDir     string `json:"data_dir"`
	DataDirFrom Origin `json:"data_dir_from"`
}

// Resolve finds and loads the configuration and settles the paths: flag, then
// environment, then configuration, then default. A daemon and a client with the same
// flags, environment and uid get the same answer. It creates nothing; see PrivateDir.
func Resolve(flags Flags) (*Config, Paths, error) { return Host().Resolve(flags) }

// Resolve is the package's Resolve on this system.
func (s System) Resolve(flags Flags) (*Config, Paths, error) {
	var p Paths
	var err error
	if p.Config, p.ConfigFrom, err = s.findConfig(flags); err != nil {
		return nil, p, err
	}
	c := Default()
	if p.Config != "" {
		if c, err = s.Load(p.Config); err != nil {
			return nil, p, err
		}
	}
	if p.Socket, p.SocketFrom, err = s.pick(flags.Socket, EnvSocket, c.Socket.Path); err != nil {
		return nil, p, err
	}
	if p.Socket == "" {
		if p.Socket, err = s.defaultSocket(); err != nil {
			return nil, p, err
		}
	}
	if err := CheckSocketPath(p.Socket); err != nil {
		return nil, p, err
	}
	if p.DataDir, p.DataDirFrom, err = s.pick(flags.DataDir, EnvDataDir, c.Storage.Dir); err != nil {
		return nil, p, err
	}
	if p.DataDir == "" {
		p.DataDir, err = s.defaultDataDir()
	}
	return c, p, err
}

// ResolveClient is Resolve for those who only need the way to the daemon: when socket and
// data directory both are named by flag or environment, a configuration that cannot be
// read is none of their business, and they get the defaults.
func ResolveClient(flags Flags) (*Config, Paths, error) { return Host().ResolveClient(flags) }

// ResolveClient is the package's ResolveClient on this system.
func (s System) ResolveClient(flags Flags) (*Config, Paths, error) {
	c, p, err := s.Resolve(flags)
	if err == nil {
		return c, p, nil
	}
	named := p
	var socketErr, dirErr error
	named.Socket, named.SocketFrom, socketErr = s.pick(flags.Socket, EnvSocket, "")
	named.DataDir, named.DataDirFrom, dirErr = s.pick(flags.DataDir, EnvDataDir, "")
	if socketErr != nil || dirErr != nil || named.Socket == "" || named.DataDir == "" || CheckSocketPath(named.Socket) != nil {
		return nil, p, err
	}
	return Default(), named, nil
}

// Reload reads the configuration again for a daemon that was started with these paths, and
// says which file it was: the same one where it was named, else what is in the usual
// places now, which may have appeared or gone since.
func (p Paths) Reload() (*Config, string, error) { return Host().reload(p) }

func (s System) reload(p Paths) (*Config, string, error) {
	file := p.Config
	if p.ConfigFrom == FromDefault {
		var err error
		if file, _, err = s.findConfig(Flags{}); err != nil {
			return nil, "", err
		}
	}
	if file == "" {
		return Default(), "", nil
	}
	c, err := s.Load(file)
	return c, file, err
}

func (s System) pick(flag, variable, configured string) (string, Origin, error) {
	path, from := flag, FromFlag
	if path == "" {
		path, from = s.Getenv(variable), FromEnv
	}
	if path == "" {
		path, from = configured, FromConfig
	}
	if path == "" {
		return "", FromDefault, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", from, fmt.Errorf("resolving %s: %w", path, err)
	}
	return abs, from, nil
}

// findConfig returns the file to read, or "" when none is named and none is in its place.
func (s System) findConfig(flags Flags) (string, Origin, error) {
	if path, from, err := s.pick(flags.Config, EnvConfig, ""); path != "" || err != nil {
		return path, from, err
	}
	candidates := []string{s.Root + "/etc/forge-cpd/config.yaml"}
	if dir := s.xdg("XDG_CONFIG_HOME", ".config"); dir != "" {
		candidates = append([]string{filepath.Join(dir, "forge-cpd", "config.yaml")}, candidates...)
	}
	for _, path := range candidates {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		} else if err != nil {
			return "", FromDefault, fmt.Errorf("looking for the configuration: %w: make it readable or name another with --config", err)
		}
		if owner, ok := ownerOf(info); ok && owner != 0 && owner != s.UID || info.Mode().Perm()&0o002 != 0 {
			return "", FromDefault, fmt.Errorf("%s can be changed by another user (uid %d, mode %04o), who could make the daemon read files: make it yours and `chmod 644` it, or name it with --config", path, owner, info.Mode().Perm())
		}
		return path, FromDefault, nil
	}
	return "", FromDefault, nil
}

// defaultSocket keeps root in one place whatever its environment: sudo and su carry the
// caller's along. A user's XDG_RUNTIME_DIR counts only when it is the user's; without one
// (cron, ssh, containers) the same directory is looked for by its usual name, so that
// both sides of a login meet, and last comes a directory of the uid's own in /tmp.
func (s System) defaultSocket() (string, error) {
	const name = "forge-cpd.sock"
	if s.UID == 0 {
		return s.Root + "/run/forge-cpd/" + name, nil
	}
	uid := strconv.Itoa(s.UID)
	for _, dir := range []string{s.Getenv("XDG_RUNTIME_DIR"), s.Root + "/run/user/" + uid} {
		if filepath.IsAbs(dir) && s.owns(dir) {
			return filepath.Join(dir, "forge-cpd", name), nil
		}
	}
	dir := s.Root + "/tmp/forge-cpd-" + uid
	if err := s.checkPrivate(dir, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

func (s System) defaultDataDir() (string, error) {
	if s.UID == 0 {
		return s.Root + "/var/lib/forge-cpd", nil
	}
	dir := s.xdg("XDG_STATE_HOME", ".local/state")
	if dir == "" {
		return "", fmt.Errorf("uid %d has no home directory to keep checkpoints in: name one with --data-dir or %s", s.UID, EnvDataDir)
	}
	return filepath.Join(dir, "forge-cpd"), nil
}

// MaxSocketPath is the longest path that the kernel takes for a socket, in bytes.
const MaxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// CheckSocketPath refuses a path that the kernel would refuse without a reason.
func CheckSocketPath(path string) error {
	if n := len(path); n > MaxSocketPath {
		return fmt.Errorf("socket path has %d bytes, and the kernel takes %d at most: %s: name a shorter one with --socket or %s", n, MaxSocketPath, path, EnvSocket)
	}
	return nil
}

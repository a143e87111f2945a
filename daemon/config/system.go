package config

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// System is what paths depend on, so that tests can stand in for a machine.
type System struct {
	UID    int
	Home   string // "" when there is none
	Getenv func(string) string
	// Root is put before the fixed places /etc, /run, /var/lib and /tmp; "" outside tests.
	Root string
}

// Host is this process's own system. The home directory is HOME, or what the user
// database says: a service may have no HOME.
func Host() System {
	s := System{UID: os.Getuid(), Getenv: os.Getenv, Home: os.Getenv("HOME")}
	if !filepath.IsAbs(s.Home) {
		s.Home = ""
		if u, err := user.LookupId(strconv.Itoa(s.UID)); err == nil && filepath.IsAbs(u.HomeDir) {
			s.Home = u.HomeDir
		}
	}
	return s
}

// xdg is a base directory by its variable, or by its place in the home directory. A
// relative value counts as unset, as its specification says.
func (s System) xdg(variable, inHome string) string {
	if dir := s.Getenv(variable); filepath.IsAbs(dir) {
		return dir
	}
	if s.Home == "" {
		return ""
	}
	return filepath.Join(s.Home, inHome)
}

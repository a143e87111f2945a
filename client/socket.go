package client

import "github.com/forge-cpd/forge-cpd/daemon/config"

// defaultSocket finds the daemon's socket as the command and the daemon do.
func defaultSocket() (string, error) {
	_, paths, err := config.Resolve(config.Flags{})
	return paths.Socket, err
}

package client

import (
	"errors"
	"os"
)

// defaultSocket finds the daemon's socket when the program named none.
func defaultSocket() (string, error) {
	if s := os.Getenv("FORGE_CPD_SOCKET"); s != "" {
		return s, nil
	}
	return "", errors.New("no socket: set Client.Socket or FORGE_CPD_SOCKET")
}

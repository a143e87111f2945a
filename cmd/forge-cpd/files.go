package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// sameAs tells that a file has the captured content already.
func sameAs(root *os.Root, name string, want checkpoint.File) bool {
	f, err := root.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	return hex.EncodeToString(h.Sum(nil)) == want.SHA256
}

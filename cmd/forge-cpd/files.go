package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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

// writeWhole is writeStream for what is in memory.
func writeWhole(name string, data []byte) error {
	return writeStream(name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// writeStream replaces a file by a rename, so that a reader sees the old one or the new
// one whole. An existing file keeps its mode; a new one is its owner's alone.
func writeStream(name string, write func(io.Writer) error) error {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() { // a pipe or a device, as /dev/stdout
			return writeThrough(name, write)
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	var failed *fs.PathError
	if errors.As(err, &failed) { // its path is the new file's, which says nothing to anyone
		return fmt.Errorf("%s cannot be written (%w): name a file in a directory that is there and yours", name, failed.Err)
	} else if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing by that name
	err = write(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

func writeThrough(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// missingFile says what a file argument may be.
func missingFile(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: name a file that is there, or - for standard input", err)
	}
	return err
}

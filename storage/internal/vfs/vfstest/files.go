package vfstest

import (
	"io"
	"os"
	"slices"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// ReadFile returns a file's bytes.
func ReadFile(m *vfs.Mem, file string) []byte {
	f, err := m.Open(file, os.O_RDONLY)
	must(err)
	size, err := f.Size()
	must(err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != io.EOF {
		must(err)
	}
	must(f.Close())
	return b
}

// WriteFile makes or replaces a file's bytes, in place.
func WriteFile(m *vfs.Mem, file string, b []byte) {
	f, err := m.Open(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	must(err)
	_, err = f.WriteAt(0, b)
	must(err)
	must(f.Truncate(int64(len(b))))
	must(f.Close())
}

// Files lists the regular files below a directory, by path.
func Files(m *vfs.Mem, dir string) []string {
	var list []string
	entries, err := m.ReadDir(dir)
	must(err)
	for _, e := range entries {
		file := e.Name
		if dir != "." {
			file = dir + "/" + e.Name
		}
		if e.Mode.IsDir() {
			list = append(list, Files(m, file)...)
		} else {
			list = append(list, file)
		}
	}
	slices.Sort(list)
	return list
}

package autotrigger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// prefix reads a file's beginning once for all the calls of one pass.
type prefix struct {
	file  *os.File
	info  fs.FileInfo
	limit int64
	have  []byte
}

// load reads up to end.
func (x *prefix) load(end int64) error {
	if int64(len(x.have)) >= end {
		return nil
	}
	// A burst of lines is read in one go.
	to := max(end, min(x.info.Size(), x.limit))
	grown := make([]byte, to)
	n := copy(grown, x.have)
	m, err := io.ReadFull(io.NewSectionReader(x.file, int64(n), to-int64(n)), grown[n:])
	x.have = grown[:n+m]
	if int64(len(x.have)) < end {
		return errors.Join(errRewritten, err)
	}
	return nil
}

// agrees tells whether the bytes that are kept are those that were parsed.
func (x *prefix) agrees(line []byte, end int64) bool {
	if end > x.limit {
		return true // it is not captured
	}
	return x.load(end) == nil && bytes.Equal(x.have[end-1-int64(len(line)):end-1], line)
}

// upTo is the captured file, or why it is not.
func (x *prefix) upTo(path string, end int64) (File, string) {
	f := File{Path: path, Mode: uint32(x.info.Mode().Perm()), ModifiedAt: x.info.ModTime()}
	if end > x.limit {
		return f, fmt.Sprintf("%s: not captured: %d bytes are over capture.file_bytes (%d)", path, end, x.limit)
	}
	if err := x.load(end); err != nil {
		return f, fmt.Sprintf("%s: not captured: %v", path, err)
	}
	f.Content = x.have[:end:end]
	return f, ""
}

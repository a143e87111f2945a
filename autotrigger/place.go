package autotrigger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
)

// savedFollow is where a watch with a format was left.
type savedFollow struct {
	// Since is when the watch was first armed: an unknown file older than this was there.
	Since time.Time   `json:"since"`
	Files []savedFile `json:"files"`
}

// move replaces the place in one file.
func (s *savedFollow) move(to savedFile) {
	if s == nil {
		return // the watch was taken away meanwhile
	}
	for i := range s.Files {
		if s.Files[i].Path == to.Path {
			s.Files[i] = to
		}
	}
}

// savedFile is a place in one followed file, and what tells whether it is still that file.
type savedFile struct {
	Path   string `json:"path"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Offset int64  `json:"offset"` // after the last line that was taken
	// Mark is over the first and the last bytes before Offset: a file that was truncated and
	// written anew, or another one under the same name, has another.
	Mark   string `json:"mark"`
	Active bool   `json:"active,omitempty"` // it has grown or appeared since the watch began: it is captured
}

// markHead and markTail bound what a mark is over.
const (
	markHead = 1024
	markTail = 256
)

// mark is a hash over the ends of what lies before offset.
func mark(r io.ReaderAt, offset int64) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", offset)
	if _, err := io.CopyN(h, io.NewSectionReader(r, 0, offset), min(offset, markHead)); err != nil {
		return "", err
	}
	from := max(0, offset-markTail)
	if _, err := io.Copy(h, io.NewSectionReader(r, from, offset-from)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// followed is a followed file. Only its follower's one reader changes it, under mu.
type followed struct {
	savedFile
	grown   time.Time         // when it last did
	parser  transcript.Parser // nil until a line is needed
	line    int               // of Offset, counted from 1 for the first
	pending []transcript.Call // of the line before parsed, not yet taken
	parsed  int64             // the end of that line
}

// behind is the place after the line that ends at end.
func (s *savedFile) behind(f *os.File, end int64) (savedFile, error) {
	after := *s
	var err error
	after.Mark, err = mark(f, end)
	after.Offset, after.Active = end, true
	return after, err
}

// holds tells whether the file still has, before Offset, what was read there.
func (s *savedFile) holds(f *os.File, info fs.FileInfo) bool {
	if info.Size() < s.Offset {
		return false
	}
	m, err := mark(f, s.Offset)
	return err == nil && m == s.Mark
}

func (s *savedFile) is(info fs.FileInfo) bool {
	dev, ino := inode(info)
	return dev == s.Dev && ino == s.Ino
}

func inode(info fs.FileInfo) (dev, ino uint64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev), st.Ino //nolint:unconvert // Dev is 32 bits on some systems
	}
	return 0, 0
}

// fromStart is a place at a file's first byte.
func fromStart(path string, info fs.FileInfo) (*followed, error) {
	s := &followed{savedFile: savedFile{Path: path, Active: true}}
	s.Dev, s.Ino = inode(info)
	var err error
	s.Mark, err = mark(eofReader{}, 0)
	return s, err
}

type eofReader struct{}

func (eofReader) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// fromEnd is a place after a file's last whole line.
func fromEnd(path string) (*followed, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	s := &followed{savedFile: savedFile{Path: path}}
	s.Dev, s.Ino = inode(info)
	if s.Offset, err = lastLineEnd(f, info.Size()); err == nil {
		s.Mark, err = mark(f, s.Offset)
	}
	return s, errors.Join(err, f.Close())
}

// rotated finds where a file went that was renamed away: beside its old name, by its inode.
func (s *savedFile) rotated() string {
	dir := filepath.Dir(s.Path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "" // the directory went as well: there is nothing to read
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == filepath.Base(s.Path) {
			continue
		}
		if info, err := e.Info(); err == nil && s.is(info) {
			return filepath.Join(dir, e.Name())
		}
	}
	return ""
}

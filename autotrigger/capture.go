package autotrigger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/autotrigger/internal/watch"
)

// origin is the line of a followed file that a trigger is about.
type origin struct {
	key string // of the following
	// file reads the file as it was at the end of the line, or tells the problem with it.
	file func() (File, string)
	// after is the place behind the line; nil when the line holds more calls.
	after *savedFile
}

// capture reads the session's files; that of o, if any, stands for what is on disk.
// What cannot be captured is told in problems, never left out in silence; a file that is
// not there is not a problem.
func (e *Engine) capture(f *files, o *origin) (out []File, problems []string) {
	c := capturing{opts: e.opts, have: map[string]bool{}}
	if o != nil {
		file, problem := o.file()
		c.have[file.Path] = true
		if problem != "" {
			c.problems = append(c.problems, problem)
		} else {
			c.add(file)
		}
	}
	if f != nil {
		f.each(c.spec, c.path)
	}
	return c.files, c.problems
}

// capturing gathers files under the limits.
type capturing struct {
	opts     Options
	have     map[string]bool
	files    []File
	total    int64
	problems []string
	full     bool
}

func (c *capturing) problem(format string, args ...any) {
	if len(c.problems) < 100 {
		c.problems = append(c.problems, fmt.Sprintf(format, args...))
	}
}

// add takes a file if the limits allow.
func (c *capturing) add(f File) {
	size := int64(len(f.Content))
	c.have[f.Path] = true
	switch {
	case size > c.opts.FileBytes:
		c.problem("%s: not captured: %d bytes are over capture.file_bytes (%d)", f.Path, size, c.opts.FileBytes)
	case c.total+size > c.opts.TotalBytes:
		c.problem("%s: not captured: with its %d bytes the checkpoint's files are over capture.total_bytes (%d)", f.Path, size, c.opts.TotalBytes)
	case len(c.files) >= c.opts.MaxFiles:
		if !c.full {
			c.problem("%s and others: not captured: a checkpoint holds at most %d files", f.Path, c.opts.MaxFiles)
		}
		c.full = true
	default:
		c.files, c.total = append(c.files, f), c.total+size
	}
}

// spec captures all that a watch or a capture names.
func (c *capturing) spec(s watch.Spec) {
	if watch.Literal(s) {
		c.path(filepath.Clean(s.Path))
		return
	}
	paths, more := watch.List(s, c.opts.MaxFiles)
	for _, p := range paths {
		c.path(p)
	}
	if more && !c.full {
		c.full = true
		c.problem("%s: only the first %d files are captured", s.Path, c.opts.MaxFiles)
	}
}

func (c *capturing) path(path string) {
	if c.have[path] || c.full {
		return
	}
	c.have[path] = true
	if c.opts.StoreDir != "" && watch.Reaches(watch.Spec{Path: path}, c.opts.StoreDir) {
		c.problem("%s: not captured: it belongs to the store", path)
		return
	}
	f, err := readStable(path, c.opts.FileBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		c.problem("%s: not captured: %v", path, err)
	default:
		c.add(f)
	}
}

// openRegular opens a regular file for reading. It follows no link in the last element
// and does not wait at a FIFO.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return nil, nil, errors.New("it is a symbolic link; name the file that it points to")
		}
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is no regular file (%s)", info.Mode().Type())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// stableTries bounds how often a file that changes while it is read is read again; after
// that it is taken as it was last read, for a log that never rests is worth having.
const stableTries = 3

// readStable reads a file that had the same size and time before and after.
func readStable(path string, limit int64) (File, error) {
	var out File
	for range stableTries {
		f, before, err := openRegular(path)
		if err != nil {
			return File{}, err
		}
		if before.Size() > limit {
			return File{}, errors.Join(fmt.Errorf("%d bytes are over capture.file_bytes (%d)", before.Size(), limit), f.Close())
		}
		b, err := readUpTo(f, before.Size(), limit)
		after, statErr := f.Stat()
		if err := errors.Join(err, statErr, f.Close()); err != nil {
			return File{}, err
		}
		out = File{Path: path, Mode: uint32(before.Mode().Perm()), ModifiedAt: after.ModTime(), Content: b}
		if after.Size() == int64(len(b)) && after.ModTime().Equal(before.ModTime()) {
			break
		}
	}
	return out, nil
}

// readUpTo reads a whole file into one allocation of the size expected.
func readUpTo(f *os.File, size, limit int64) ([]byte, error) {
	buf := make([]byte, 0, size+1)
	for {
		n, err := f.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, err
		case int64(len(buf)) > limit:
			return nil, fmt.Errorf("it grew over capture.file_bytes (%d) while it was read", limit)
		case len(buf) == cap(buf):
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

package autotrigger

import (
	"bytes"
	"errors"
	"io"
)

// lineReader yields whole lines of a file from an offset on. Lines over max are yielded
// as nil: they are counted, but not held in memory.
type lineReader struct {
	r      io.ReaderAt
	max    int
	chunk  []byte // what was read and not yet yielded
	buf    []byte
	at     int64 // where chunk ends
	line   []byte
	length int
	pos    int64 // the end of the last line yielded
}

func newLineReader(r io.ReaderAt, offset int64, max int) *lineReader {
	return &lineReader{r: r, max: max, buf: make([]byte, 64<<10), at: offset, pos: offset}
}

// next returns a line without its line feed, valid until the next call, and the offset
// after it. At a line that has no end yet, and at the end of the file, it returns io.EOF.
func (l *lineReader) next() (line []byte, end int64, err error) {
	l.line, l.length = l.line[:0], 0
	for {
		if i := bytes.IndexByte(l.chunk, '\n'); i >= 0 {
			l.take(l.chunk[:i])
			l.chunk = l.chunk[i+1:]
			l.pos += int64(l.length) + 1
			if l.length > l.max {
				return nil, l.pos, nil
			}
			return l.line, l.pos, nil
		}
		l.take(l.chunk)
		n, err := l.r.ReadAt(l.buf, l.at)
		l.chunk, l.at = l.buf[:n], l.at+int64(n)
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return nil, l.pos, err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, l.pos, err
		}
	}
}

func (l *lineReader) take(b []byte) {
	l.length += len(b)
	if l.length <= l.max {
		l.line = append(l.line, b...)
	} else {
		l.line = nil
	}
}

// lastLineEnd returns the offset after the last line feed before size: where a file that
// is followed from its end begins.
func lastLineEnd(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for size > 0 {
		from := max(0, size-int64(len(buf)))
		b := buf[:size-from]
		if _, err := io.ReadFull(io.NewSectionReader(r, from, int64(len(b))), b); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return from + int64(i) + 1, nil
		}
		size = from
	}
	return 0, nil
}

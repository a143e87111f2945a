package rpc

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// What the frame reader reports beside frames and the end of the connection.
var (
	errTooLong    = errors.New("frame over the limit")      // the rest of it is passed over
	errBadHeader  = errors.New("bad header")                // the end of the frame is unknown
	errFrameTime  = errors.New("frame not ended in time")   // a peer that stopped in mid-frame
	errIdle       = errors.New("idle")                      // nothing happened for long
	errNoMore     = errors.New("the server reads no more")  // draining
	errCutInFrame = errors.New("connection ended in frame") // LSP: a body that is too short
)

const maxHeader = 4 << 10

// frames cuts what a peer sends into frames, of the framing that its first byte shows.
// It holds no more than one frame, and no buffer while the peer is silent.
type frames struct {
	c       *conn
	buf     []byte   // nil: nothing waits in it
	parts   [][]byte // what a large frame has filled before buf, in buffers of smallFrame
	held    int      // bytes in them
	r, w    int
	begun   time.Time // when the first byte of a frame that is not whole came
	share   share     // what the buffer's growth has taken of the budget
	known   bool      // the framing is
	lsp     bool
	discard int64 // bytes of an over-long LSP frame still to pass over
	toLine  bool  // passing over an over-long line
	eof     error
	taken   []byte // the buffer that the frame cut last has to itself, nil for none
	drained bool   // the time to read is over, but for left bytes
	left    int

	first    func(fd uintptr) bool // readFirst, and what it found
	firstN   int
	firstErr error
}

// next returns one frame, which the caller owns with the share it holds.
func (f *frames) next() ([]byte, share, error) {
	if !f.known {
		if err := f.detect(); err != nil {
			return nil, share{}, err
		}
	}
	if f.lsp {
		return f.body()
	}
	return f.line()
}

// detect waits for the first byte that is not white space.
func (f *frames) detect() error {
	for {
		for f.r < f.w {
			switch f.buf[f.r] {
			case ' ', '\t', '\r', '\n':
				f.r++
				continue
			case 'C', 'c':
				f.lsp = true
			}
			f.known = true
			f.c.lsp.Store(f.lsp)
			return nil
		}
		f.begun = time.Time{}
		if err := f.fill(); err != nil {
			return err
		}
	}
}

func (f *frames) line() ([]byte, share, error) {
	from := f.r
	for {
		if n := bytes.IndexByte(f.buf[from:f.w], '\n'); n >= 0 {
			end := from + n
			if f.toLine {
				f.toLine = false
			} else if f.held+end-f.r > f.c.limits.FrameBytes {
				f.r = end + 1
				f.begun = time.Time{}
				f.dropParts()
				return nil, share{}, errTooLong
			} else if !f.blank(end) {
				frame, s := f.cut(end, end+1)
				return frame, s, nil
			}
			f.dropParts()
			f.r, from = end+1, end+1
			f.begun = time.Time{}
			continue
		}
		if f.toLine {
			f.r = f.w
		} else if f.has() > f.c.limits.FrameBytes {
			f.toLine = true
			f.r = f.w
			f.dropParts()
			f.drop()
			return nil, share{}, errTooLong
		}
		pending := f.has()
		if err := f.fill(); err != nil {
			if errors.Is(err, io.EOF) && pending > 0 && !f.blank(f.w) {
				frame, s := f.cut(f.w, f.w) // the last line need not end
				return frame, s, nil
			}
			return nil, share{}, err
		}
		from = f.r + pending - f.held
	}
}

// has is how much of a frame is there.
func (f *frames) has() int { return f.held + f.w - f.r }

// blank says that there is nothing but white space up to end.
func (f *frames) blank(end int) bool {
	for _, p := range f.parts {
		if !blank(p) {
			return false
		}
	}
	return blank(f.buf[f.r:end])
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}

// body reads one frame of the LSP framing.
func (f *frames) body() ([]byte, share, error) {
	for f.discard > 0 {
		if f.r == f.w {
			if err := f.fill(); err != nil {
				return nil, share{}, err
			}
		}
		n := min(int64(f.w-f.r), f.discard)
		f.discard -= n
		f.r += int(n)
		if f.discard == 0 {
			f.begun = time.Time{}
		}
	}
	length := int64(-1)
	for used := 0; ; {
		line, err := f.headerLine()
		if err != nil {
			return nil, share{}, err
		}
		if used += len(line) + 2; used > maxHeader {
			return nil, share{}, errBadHeader
		}
		if line == "" && length >= 0 {
			break
		}
		if line == "" && used == 2 {
			used = 0
			continue // empty lines between frames
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, share{}, errBadHeader
		}
		if strings.EqualFold(strings.TrimSpace(name), "Content-Length") {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil || n < 0 {
				return nil, share{}, errBadHeader
			}
			length = n
		}
	}
	if length > int64(f.c.limits.FrameBytes) {
		f.discard = length
		return nil, share{}, errTooLong
	}
	for int64(f.has()) < length {
		if err := f.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = errCutInFrame
			}
			return nil, share{}, err
		}
	}
	end := f.r + int(length) - f.held
	frame, s := f.cut(end, end)
	return frame, s, nil
}

func (f *frames) headerLine() (string, error) {
	from := f.r
	for {
		if n := bytes.IndexByte(f.buf[from:f.w], '\n'); n >= 0 {
			line := strings.TrimSuffix(string(f.buf[f.r:from+n]), "\r")
			f.r = from + n + 1
			return line, nil
		}
		if f.w-f.r > maxHeader {
			return "", errBadHeader
		}
		pending := f.w - f.r
		if err := f.fill(); err != nil {
			return "", err
		}
		from = f.r + pending
	}
}

// cut takes what is there before end out as a frame and goes on at next. A frame that has a
// buffer to itself takes it along; others are copied, once.
func (f *frames) cut(end, next int) ([]byte, share) {
	var frame []byte
	var s share
	f.taken = nil
	switch {
	case f.held > 0:
		frame = make([]byte, 0, f.held+end-f.r)
		for i, p := range f.parts {
			if frame = append(frame, p...); i%16 == 15 {
				runtime.Gosched() // others have short frames
			}
		}
		frame = append(frame, f.buf[f.r:end]...)
		s, f.share = f.share, share{}
		f.dropParts()
	case f.r == 0 && next == f.w && end > len(f.buf)/4:
		frame, f.taken = f.buf[:end:end], f.buf
		f.buf, next, f.w = nil, 0, 0
	default:
		frame = append(frame, f.buf[f.r:end]...)
	}
	f.r = next
	f.begun = time.Time{}
	if f.r < f.w {
		f.begun = time.Now()
	}
	return frame, s
}

// dropParts lets go of what a large frame had filled.
func (f *frames) dropParts() {
	if f.held == 0 {
		return
	}
	for _, p := range f.parts {
		giveBack(p)
	}
	f.parts, f.held = nil, 0
	f.c.holding.Store(0)
	f.c.srv.budget.give(&f.share)
}

// drop lets go of a buffer that has nothing in it.
func (f *frames) drop() {
	if f.r == f.w && f.held == 0 {
		giveBack(f.buf)
		f.buf, f.r, f.w = nil, 0, 0
	}
}

// close gives back what the buffer holds of the budget. The reader must have ended.
func (f *frames) close() {
	f.c.srv.budget.give(&f.share)
}

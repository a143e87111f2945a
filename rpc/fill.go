package rpc

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const firstBuffer = 16 << 10

// buffers are what frames are read into: first a small one, in which most frames come whole,
// then those of a small frame's size. Nobody keeps one while its peer is silent.
var buffers = [2]sync.Pool{{New: func() any { return new([firstBuffer]byte) }}, {New: func() any { return new([smallFrame]byte) }}}

func borrowFirst() []byte { return buffers[0].Get().(*[firstBuffer]byte)[:] }

func borrowSmall() []byte { return buffers[1].Get().(*[smallFrame]byte)[:] }

// giveBack takes a buffer that nothing refers to any more.
func giveBack(b []byte) {
	if poison && len(b) > 0 {
		b[0] = 0xff // who still reads it is to notice
		for n := 1; n < len(b); n *= 2 {
			copy(b[n:], b[:n])
		}
	}
	switch len(b) {
	case firstBuffer:
		buffers[0].Put((*[firstBuffer]byte)(b))
	case smallFrame:
		buffers[1].Put((*[smallFrame]byte)(b))
	}
}

// fill reads at least one byte.
func (f *frames) fill() error {
	if f.eof != nil {
		return f.eof
	}
	f.drop()
	if f.w == len(f.buf) && f.r > 0 {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if f.buf != nil && f.w == len(f.buf) && !f.grow() {
		return io.ErrUnexpectedEOF
	}
	for {
		f.c.setReadDeadline(f.begun, f.has() > 0 || f.discard > 0 || f.toLine)
		n, err := f.read()
		if n > 0 {
			f.came(n)
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err = f.c.whyTimeout(f.begun, f.has() > 0 || f.discard > 0 || f.toLine); err == nil {
				continue
			}
			if n = f.readLeft(err); n > 0 {
				f.came(n)
				return nil
			}
		} else if err == nil {
			continue
		} else if !errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		f.eof = err
		return err
	}
}

func (f *frames) came(n int) {
	now := time.Now()
	if f.begun.IsZero() {
		f.begun = now
	}
	f.w += n
	f.c.readAt.Store(now.UnixNano())
}

// readLeft reads on when the server reads no more, what had come by then and could not be
// read: the peer may have had to wait for its place. Who sends on is not waited for.
func (f *frames) readLeft(why error) (n int) {
	if why != errNoMore {
		return 0
	}
	err := f.c.raw.Control(func(fd uintptr) {
		if !f.drained {
			f.drained = true
			f.left, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) // 0 when it fails
		}
		if f.left == 0 {
			return
		}
		if f.buf == nil {
			f.buf = borrowFirst()
		}
		n, _ = unix.Read(int(fd), f.buf[f.w:min(len(f.buf), f.w+f.left)]) // -1 when it fails
	})
	if err != nil || n <= 0 {
		return 0
	}
	f.left -= n
	return n
}

// read waits for bytes, and only takes a buffer when there are some.
func (f *frames) read() (int, error) {
	if f.buf != nil {
		return f.c.nc.Read(f.buf[f.w:])
	}
	if f.first == nil {
		f.first = f.readFirst
	}
	if err := f.c.raw.Read(f.first); err != nil {
		return 0, err
	}
	return f.firstN, f.firstErr
}

// readFirst is false when there is nothing to read yet.
func (f *frames) readFirst(fd uintptr) bool {
	buf := borrowFirst()
	for {
		f.firstN, f.firstErr = syscall.Read(int(fd), buf)
		if f.firstErr != syscall.EINTR {
			break
		}
	}
	switch {
	case f.firstN > 0:
		f.buf = buf
		return true
	case f.firstErr == nil:
		f.firstErr = io.EOF
	}
	giveBack(buf)
	return f.firstErr != syscall.EAGAIN
}

// grow makes room: a buffer of a small frame's size in place of the first, and from there on
// one more each time, within the budget of all connections.
func (f *frames) grow() bool {
	if len(f.buf) < smallFrame {
		buf := borrowSmall()
		copy(buf, f.buf)
		giveBack(f.buf)
		f.buf = buf
		return true
	}
	f.c.holding.Store(int64(f.held + 2*smallFrame))
	if !f.wait(smallFrame) {
		return false
	}
	f.parts, f.held = append(f.parts, f.buf), f.held+smallFrame
	f.buf, f.r, f.w = borrowSmall(), 0, 0
	return true
}

// wait takes n bytes of the budget. The time that takes is not the peer's.
func (f *frames) wait(n int64) bool {
	began := time.Now()
	f.c.waits.Store(true)
	ok := f.c.srv.budget.take(&f.share, n, false, f.c.closed, f.c.srv.shed)
	now := time.Now()
	f.c.readAt.Store(now.UnixNano())
	f.c.waits.Store(false)
	if !f.begun.IsZero() {
		f.begun = f.begun.Add(now.Sub(began))
	}
	return ok
}

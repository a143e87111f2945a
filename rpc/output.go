package rpc

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// output is what waits to be written to one peer. Adding never waits; a goroutine that
// lives only while there is something writes it.
type output struct {
	c *conn

	mu      sync.Mutex
	queue   []message
	bytes   int64 // queued and being written
	notes   int   // of those, bytes of notifications
	writing bool
	dead    bool
	now     []byte        // see writeNow
	attempt func(uintptr) // writeOnce
	changed chan struct{} // closed when bytes become fewer
	idle    chan struct{} // closed while nothing is being written

	wroteAt atomic.Int64 // when the peer last took something, while something waits
}

type message struct {
	pieces net.Buffers
	bytes  int64
	notes  int
	done   func() // called when it is written or given up
}

func (o *output) init(c *conn) {
	o.c, o.attempt = c, o.writeOnce
	o.changed = make(chan struct{})
	o.idle = make(chan struct{})
	close(o.idle)
}

// send queues one message. done, if not nil, is called once it is written or given up.
func (c *conn) send(pieces [][]byte, done func()) error {
	return c.out.add(pieces, done, false)
}

func (o *output) add(pieces [][]byte, done func(), note bool) error {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	m := message{done: done}
	if o.c.lsp.Load() {
		head := strconv.AppendInt([]byte("Content-Length: "), int64(n), 10)
		m.pieces = append(net.Buffers{append(head, "\r\n\r\n"...)}, pieces...)
	} else {
		m.pieces = append(append(make(net.Buffers, 0, len(pieces)+1), pieces...), newLine)
	}
	if n < 16<<10 && len(m.pieces) > 1 {
		m.pieces = join(m.pieces) // one small write costs less than many pieces
	}
	m.bytes = int64(n) + 24
	o.mu.Lock()
	if o.dead || isClosed(o.c.closed) {
		o.mu.Unlock()
		if done != nil {
			done()
		}
		return net.ErrClosed
	}
	if note {
		if o.notes > 0 && (o.notes+n > o.c.limits.QueuedNotifications || o.c.srv.budget.full()) {
			o.mu.Unlock()
			return errNoRoom
		}
		m.notes = n
	}
	if !note && !o.writing && len(m.pieces) == 1 && o.writeNow(&m.pieces[0]) {
		o.wroteAt.Store(time.Now().UnixNano())
		o.mu.Unlock()
		if done != nil {
			done()
		}
		return nil
	}
	o.notes += m.notes
	o.queue = append(o.queue, m)
	if o.bytes == 0 {
		o.wroteAt.Store(time.Now().UnixNano())
	}
	o.bytes += m.bytes
	o.c.srv.budget.reply(m.bytes)
	start := !o.writing
	if start {
		o.writing = true
		o.idle = make(chan struct{})
	}
	o.mu.Unlock()
	if start {
		go o.write()
	}
	return nil
}

// writeNow writes what the peer takes at once, which nearly always is all: a goroutine and a
// deadline are only for the rest, and for errors. o.mu is held.
func (o *output) writeNow(b *[]byte) bool {
	o.now = *b
	err := o.c.raw.Control(o.attempt) // when it fails, write finds out why
	*b, o.now = o.now, nil
	return err == nil && len(*b) == 0
}

func (o *output) writeOnce(fd uintptr) {
	n, err := syscall.Write(int(fd), o.now)
	if err == nil {
		o.now = o.now[n:]
	}
}

var newLine = []byte("\n")

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// write writes until the queue is empty.
func (o *output) write() {
	var err error
	for {
		o.mu.Lock()
		turn := o.queue
		o.queue = nil
		if len(turn) == 0 {
			o.writing = false
			if err != nil {
				o.dead = true
			}
			close(o.idle)
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		for len(turn) > 0 {
			n := 0
			var pieces net.Buffers
			for n < len(turn) && (n == 0 || len(pieces) < 64) {
				pieces = append(pieces, turn[n].pieces...)
				n++
			}
			if err == nil {
				if err = o.put(pieces); err != nil {
					o.c.drop(err)
					o.c.close()
				}
			}
			o.settle(turn[:n])
			turn = turn[n:]
		}
	}
}

// put writes pieces a part at a time, so that the deadline is one for progress: a peer that
// reads slowly is served, one that does not read is not.
func (o *output) put(pieces net.Buffers) error {
	const part = 256 << 10
	for len(pieces) > 0 {
		var turn net.Buffers
		for n := 0; len(pieces) > 0 && n < part && len(turn) < 64; {
			p := pieces[0]
			if room := part - n; len(p) > room {
				pieces[0] = p[room:]
				p = p[:room]
			} else {
				pieces = pieces[1:]
			}
			turn = append(turn, p)
			n += len(p)
		}
		if d := o.c.limits.WriteTimeout; d > 0 {
			if err := o.c.nc.SetWriteDeadline(time.Now().Add(d)); err != nil {
				return err
			}
		}
		if _, err := turn.WriteTo(o.c.nc); err != nil {
			return err
		}
		o.wroteAt.Store(time.Now().UnixNano())
	}
	return nil
}

// settle accounts for messages that are written or given up.
func (o *output) settle(turn []message) {
	var bytes int64
	notes := 0
	for _, m := range turn {
		bytes += m.bytes
		notes += m.notes
		if m.done != nil {
			m.done()
		}
	}
	o.c.srv.budget.reply(-bytes)
	o.mu.Lock()
	o.bytes -= bytes
	o.notes -= notes
	close(o.changed)
	o.changed = make(chan struct{})
	o.mu.Unlock()
}

// wake lets those go on who wait for room on a connection that has ended.
func (o *output) wake() {
	o.mu.Lock()
	close(o.changed)
	o.changed = make(chan struct{})
	o.mu.Unlock()
}

// stopped is closed when nothing is being written.
func (o *output) stopped() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.idle
}

// flush waits until all is written.
func (o *output) flush() {
	select {
	case <-o.stopped():
	case <-o.c.closed:
	}
}

// backlog waits until the peer has taken what was queued, but for a little.
func (o *output) backlog() bool {
	for {
		o.mu.Lock()
		few, changed := o.bytes <= replyBacklog, o.changed
		o.mu.Unlock()
		if few {
			return !isClosed(o.c.closed)
		}
		select {
		case <-changed:
		case <-o.c.closed:
			return false
		}
	}
}

// room waits until a notification may be queued.
func (o *output) room(ctx context.Context) error {
	o.mu.Lock()
	full, changed := o.notes > 0, o.changed
	o.mu.Unlock()
	if !full {
		return nil
	}
	select {
	case <-changed:
		return nil
	case <-o.c.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stuck is how many bytes wait for a peer that has taken none for a while.
func (o *output) stuck(since time.Time) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes == 0 || o.wroteAt.Load() > since.UnixNano() {
		return 0
	}
	return o.bytes
}

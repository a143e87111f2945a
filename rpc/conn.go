package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// conn is one connection: a Peer for the handlers, the jsonrpc2 library's handler, and the
// owner of the socket.
type conn struct {
	srv    *Server
	nc     *net.UnixConn
	raw    syscall.RawConn
	id     uint64
	creds  creds
	limits *Limits
	stream *stream
	order  sequencer
	out    output
	lsp    atomic.Bool

	slots    chan struct{} // one for each request that is not answered
	reads    chan struct{} // one for each large read that runs or waits for room
	handlers sync.WaitGroup
	jc       *jsonrpc2.Conn
	ready    chan struct{} // closed when jc is there
	readEnd  chan struct{} // closed when the peer will send no more
	endOnce  sync.Once
	closed   chan struct{}
	shutOnce sync.Once
	shutErr  error

	calls   atomic.Uint64
	drainAt atomic.Int64 // unix nanoseconds after which nothing more is read; 0: not draining
	readAt  atomic.Int64 // when something was last read
	holding atomic.Int64 // bytes of the frame that is growing
	waits   atomic.Bool  // for room for that frame: the peer cannot send
	timed   bool         // a read deadline is set; the reader's
}

func newConn(s *Server, nc *net.UnixConn, raw syscall.RawConn, id uint64, who creds) *conn {
	limits := s.limits.Load()
	c := &conn{
		srv: s, nc: nc, raw: raw, id: id, creds: who, limits: limits,
		slots: make(chan struct{}, limits.InFlightPerConnection), reads: make(chan struct{}, largeReads),
		ready: make(chan struct{}), readEnd: make(chan struct{}), closed: make(chan struct{}),
	}
	c.readAt.Store(time.Now().UnixNano())
	c.out.init(c)
	c.stream = &stream{c: c, requests: map[uint64]*request{}, results: map[string][]byte{}}
	c.stream.frames.c = c
	return c
}

// run serves the connection until it has ended and its last handler has returned.
func (c *conn) run() {
	c.jc = jsonrpc2.NewConn(context.Background(), c.stream, c, jsonrpc2.SetLogger(libraryLog{c.srv.log}))
	close(c.ready)
	<-c.jc.DisconnectNotify()
	c.handlers.Wait()
	<-c.out.stopped()
	c.stream.frames.close()
	c.srv.service.Disconnected(c)
}

// readEnded is called by the reader after the last frame. It returns when all that was
// received is answered and the answers are written, so that a peer that has closed only
// its own half gets them.
func (c *conn) readEnded(cause error) {
	c.endOnce.Do(func() { close(c.readEnd) })
	if errors.Is(cause, io.ErrUnexpectedEOF) {
		c.close()
		return
	}
	for range cap(c.slots) {
		select {
		case c.slots <- struct{}{}:
		case <-c.closed:
			return
		}
	}
	c.out.flush()
}

// close ends the connection at once. What is not written is lost.
func (c *conn) close() error {
	c.shutOnce.Do(func() {
		close(c.closed)
		c.endOnce.Do(func() { close(c.readEnd) })
		c.shutErr = c.nc.Close()
		c.out.wake()
	})
	return c.shutErr
}

// enter takes a place for a request: while there is none, the reader waits and the peer with it.
func (c *conn) enter() bool {
	select {
	case c.slots <- struct{}{}:
		return true
	case <-c.closed:
		return false
	}
}

func (c *conn) leave() { <-c.slots }

func (c *conn) countError() { c.srv.errors.Add(1) }

// refuse answers what has no id that can be told.
func (c *conn) refuse(err error) {
	c.countError()
	c.drop(c.send([][]byte{errorReply(nil, ToWire(err))}, nil))
}

// drop is for errors of a connection that has ended: there is no one left to tell.
func (c *conn) drop(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.srv.log.Debug("message not sent", "conn", c.id, "err", err)
	}
}

// Handle is called by the library, in the order sent, from the goroutine that reads.
func (c *conn) Handle(_ context.Context, jc *jsonrpc2.Conn, req *jsonrpc2.Request) {
	r := c.stream.request(req.ID.Num)
	if r == nil {
		return
	}
	c.handlers.Add(1)
	m, params, err := c.prepare(r)
	if err != nil {
		c.finish(jc, r, nil, nil, err)
		return
	}
	o := &op{order: m.order}
	o.order, o.session = c.srv.place(m, params)
	o.start = func() { c.srv.workers.run(func() { c.serve(jc, r, m, params, o) }) }
	c.order.add(o)
}

func (c *conn) prepare(r *request) (*method, any, error) {
	m := methodByName[r.method]
	switch {
	case m == nil && r.method == discoverMethod.name:
		m = discoverMethod
	case m == nil:
		return nil, nil, checkpoint.Errorf(checkpoint.KindMethodNotFound, "there is no method %q; rpc.discover lists them", cut(r.method))
	}
	if r.bad != nil {
		return nil, nil, r.bad
	}
	params, err := c.limits.decode(m, r.params, r.members)
	return m, params, err
}

// serve runs one request's handler.
func (c *conn) serve(jc *jsonrpc2.Conn, r *request, m *method, params any, o *op) {
	ctx := &requestContext{Context: c.srv.base, c: c, r: r, o: o}
	var result [][]byte
	var err error
	var exit func()
	if m.large {
		exit, err = c.srv.enter(c, r.batch, func() bool { return c.short(ctx, m, params) })
	}
	if err == nil {
		result, err = c.call(ctx, m, params)
	}
	if m.transient && err == nil && r.batch == nil { // others of a batch have the same frame
		r.frame.reuse = true
	}
	c.order.finish(o, func() {
		c.finish(jc, r, m, result, err)
		if exit != nil {
			exit()
		}
	})
}

// short says whether a request's result is a short one, when that can be told for little.
func (c *conn) short(ctx context.Context, m *method, params any) bool {
	var ref SessionRef
	switch p := params.(type) {
	case *CheckpointListParams, *SessionListParams: // of the index alone
		c.srv.peeking.Lock() // one at a time: what this holds is in no budget
		defer c.srv.peeking.Unlock()
		result, err := c.call(ctx, m, params)
		n := 0
		for _, piece := range result {
			n += len(piece)
		}
		return err != nil || n <= smallFrame
	case *SessionParams:
		ref = p.SessionRef
	case *CheckpointParams, *RestoreParams:
	default:
		return false
	}
	if c.srv.lookup == nil {
		return false
	}
	n, known := c.srv.lookup.StateBytes(ref, checkpointOf(params))
	return known && n <= smallFrame
}

// requestContext is a request's context: one piece in place of a value for each key.
type requestContext struct {
	context.Context
	c *conn
	r *request
	o *op
}

func (x *requestContext) Value(key any) any {
	switch key {
	case peerKey:
		return Peer(x.c)
	case admitKey:
		return func() { x.c.order.admit(x.o) }
	case receivedKey:
		return x.r.received
	case afterKey:
		return func(f func()) { x.r.after = append(x.r.after, f) }
	case requestKey:
		return requestID{x.c.id, x.r.id}
	}
	return x.Context.Value(key)
}

var errGone = &checkpoint.Error{Kind: checkpoint.KindOverloaded, Message: "the connection ended before the request was served", Retry: true}

// call runs the handler and renders its result; a panic ends the request and nothing else.
func (c *conn) call(ctx context.Context, m *method, params any) (result [][]byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.srv.log.ErrorContext(ctx, "handler panicked", "method", m.name, "panic", v, "stack", string(debug.Stack()))
			result, err = nil, checkpoint.Errorf(checkpoint.KindInternal, "internal error in %s: the daemon's log says more", m.name)
		}
	}()
	if m == discoverMethod {
		doc, err := Discover()
		return [][]byte{doc}, err
	}
	value, err := m.call(ctx, c.srv.service, params)
	if err != nil {
		var known *checkpoint.Error
		if !errors.As(err, &known) {
			c.srv.log.ErrorContext(ctx, "handler failed", "method", m.name, "err", err)
		}
		return nil, err
	}
	return render(m, value)
}

// finish gives a request its reply, through the library where one is due.
func (c *conn) finish(jc *jsonrpc2.Conn, r *request, m *method, result [][]byte, err error) {
	defer c.handlers.Done()
	if err != nil {
		c.countError()
	}
	c.logRequest(r, m, err)
	switch {
	case r.rawID == nil:
	case err != nil:
		r.reply = [][]byte{errorReply(r.rawID, ToWire(err))}
	default:
		r.reply = append(append([][]byte{replyHead(r.rawID)}, result...), []byte("}"))
	}
	zero := json.RawMessage("0")
	if err := jc.SendResponse(context.Background(), &jsonrpc2.Response{ID: jsonrpc2.ID{Num: r.id}, Result: &zero}); err != nil {
		c.drop(err)
		c.stream.forget(r)
	}
}

// logRequest tells that a request was answered. Nothing of what the peer sent is told: a
// name that is no method's, a message or a state may hold what is nobody's business.
func (c *conn) logRequest(r *request, m *method, err error) {
	if !c.srv.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	name := "unknown"
	if m == nil {
		m = methodByName[r.method]
	}
	if m != nil {
		name = m.name
	}
	attrs := []any{"request", requestID{c.id, r.id}, "method", name, "pid", c.PID(), "uid", c.UID(), "took", time.Since(r.received).Round(time.Microsecond)}
	if err != nil {
		attrs = append(attrs, "error", ToWire(err).Code)
	}
	c.srv.log.Debug("answered", attrs...)
}

// reply is where the library's answer comes out again: it queues the real one.
func (c *conn) reply(r *request) error {
	r.frame.release()
	if r.batch != nil {
		c.addAfter(r.batch, r.after)
		c.batchDone(r.batch, r.reply...)
		c.leave()
		return nil
	}
	if r.rawID == nil {
		c.leave()
		run(r.after)
		return nil
	}
	err := c.send(r.reply, c.leave)
	if err == nil {
		run(r.after)
	}
	return err
}

func run(after []func()) {
	for _, f := range after {
		f()
	}
}

// join makes one piece of many small ones: a write takes at most 1,024.
func join(pieces [][]byte) [][]byte {
	var out [][]byte
	var small []byte
	for _, p := range pieces {
		if len(p) < 16<<10 {
			small = append(small, p...)
			continue
		}
		if len(small) > 0 {
			out = append(out, small)
			small = nil
		}
		out = append(out, p)
	}
	if len(small) > 0 {
		out = append(out, small)
	}
	return out
}

// forget gives back what a request held that cannot be answered any more.
func (s *stream) forget(r *request) {
	s.mu.Lock()
	_, held := s.requests[r.id]
	delete(s.requests, r.id)
	s.mu.Unlock()
	if !held {
		return
	}
	r.frame.release()
	if r.batch != nil {
		s.c.batchDone(r.batch)
	}
	s.c.leave()
}

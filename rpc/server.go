package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Options of a Server. The zero value serves root and the server's own uid with the default limits.
type Options struct {
	Limits Limits       // zero: DefaultLimits
	Logger *slog.Logger // nil: slog.Default
	// Access is asked at each accept who else may connect; nil: nobody.
	Access func() Access
	// Lookup, if not nil, tells which session a key or a checkpoint belongs to, so that
	// requests that name one of those need not wait for all others on their connection.
	Lookup Lookup
	stall  time.Duration // a test's, for stallTime
}

// Lookup answers from memory, without I/O.
type Lookup interface {
	SessionOfKey(key string) (checkpoint.ID, bool)
	SessionOfCheckpoint(id checkpoint.ID) (checkpoint.ID, bool)
	// StateBytes is the length of a checkpoint's state, or when id is zero of the newest one's
	// of a session.
	StateBytes(ref SessionRef, id checkpoint.ID) (int64, bool)
}

// Stats counts what the server does.
type Stats struct {
	Connections   int
	InFlightBytes int64
	Errors        uint64 // requests that were answered with an error
	Refused       uint64 // connections that were not let in, or one too many
}

// Server speaks the wire on Unix sockets and calls a Service.
type Server struct {
	service Service
	log     *slog.Logger
	access  func() Access
	lookup  Lookup
	limits  atomic.Pointer[Limits]
	budget  *budget
	base    context.Context
	workers workers

	errors, refused atomic.Uint64

	mu        sync.Mutex // guards what follows
	conns     map[*conn]struct{}
	nextID    uint64
	listeners map[net.Listener]struct{}
	draining  bool
	done      sync.WaitGroup // one for each connection

	peeking    sync.Mutex // see conn.short
	affordable int        // connections that leave descriptors for the rest of the process
}

// NewServer makes a server; Serve starts it.
func NewServer(service Service, o Options) *Server {
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Access == nil {
		o.Access = func() Access { return Access{} }
	}
	s := &Server{
		service: service, log: o.Logger, access: o.Access, lookup: o.Lookup, base: context.Background(),
		budget: newBudget(&o.Limits), affordable: affordable(),
		workers: workers{tasks: make(chan func()), stop: make(chan struct{})},
		conns:   map[*conn]struct{}{}, listeners: map[net.Listener]struct{}{},
	}
	if o.stall > 0 {
		s.budget.stall = o.stall
	}
	s.limits.Store(&o.Limits)
	return s
}

// affordable is how many connections the limit on open files allows: each takes one
// descriptor, and an eighth stays for files.
func affordable() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur > 1<<24 {
		return math.MaxInt
	}
	return max(1, int(files.Cur)-max(32, int(files.Cur)/8))
}

// SetLimits changes the limits; connections that are open keep those they began with, but
// for the bytes in flight over all.
func (s *Server) SetLimits(l Limits) {
	s.limits.Store(&l)
	s.budget.resize(&l)
}

// Stats counts now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	n := len(s.conns)
	s.mu.Unlock()
	return Stats{Connections: n, InFlightBytes: s.budget.held(), Errors: s.errors.Load(), Refused: s.refused.Load()}
}

// Serve accepts connections on a Unix socket until Shutdown, which makes it return nil, or
// until ctx ends or the listener fails. It does not close the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { stopAccepting(l) })
	defer stop()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.accept(nc)
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case s.isDraining():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("the listener was closed: %w", err)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("the listener has a deadline of its own: %w", err)
		}
		// Out of descriptors, most likely: it passes when connections end.
		s.log.Warn("cannot accept a connection", "err", err)
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// stopAccepting ends a blocked Accept and leaves the socket as it is: it may be inherited.
func stopAccepting(l net.Listener) {
	if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok && d.SetDeadline(time.Unix(1, 0)) == nil {
		return
	}
	l.Close()
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// accept lets a connection in, or closes it before a byte of it is read.
func (s *Server) accept(nc net.Conn) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		s.log.Error("only Unix sockets are served", "address", nc.LocalAddr())
		nc.Close()
		return
	}
	raw, who, err := peerOf(uc)
	if err != nil || !s.access().allows(who, uint32(os.Geteuid())) {
		s.refused.Add(1)
		if err != nil {
			s.log.Warn("connection refused: who the peer is cannot be told", "err", err)
		} else {
			s.log.Warn("connection refused: the peer may not", "uid", who.Uid, "gid", who.Gid, "pid", who.Pid)
		}
		uc.Close()
		return
	}
	s.mu.Lock()
	full := len(s.conns) >= min(s.limits.Load().Connections, s.affordable)
	if full || s.draining {
		s.mu.Unlock()
		s.refused.Add(1)
		s.tell(uc, full)
		return
	}
	s.nextID++
	c := newConn(s, uc, raw, s.nextID, who)
	s.conns[c] = struct{}{}
	s.done.Add(1)
	s.mu.Unlock()
	go func() {
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.done.Done()
	}()
}

// tell writes one line to a connection that is not served, as far as the socket's buffer
// takes it, and closes it.
func (s *Server) tell(uc *net.UnixConn, full bool) {
	err := &checkpoint.Error{Kind: checkpoint.KindInvalidState, Message: "the daemon is stopping", Retry: true}
	if full {
		err = &checkpoint.Error{Kind: checkpoint.KindOverloaded, Message: "too many connections are open; close some, or raise limits.connections and the daemon's limit on open files", Retry: true}
		s.log.Warn("connection refused: too many are open", "limit", min(s.limits.Load().Connections, s.affordable))
	}
	if derr := uc.SetWriteDeadline(time.Now().Add(stallTime)); derr == nil {
		if _, werr := uc.Write(append(errorReply(nil, ToWire(err)), '\n')); werr != nil {
			s.log.Debug("refusal not sent", "err", werr)
		}
	}
	uc.Close()
}

// place finds a request's place in its connection's order.
func (s *Server) place(m *method, params any) (order, checkpoint.ID) {
	if m.order != change && m.order != read {
		return m.order, checkpoint.ID{}
	}
	var id checkpoint.ID
	var key string
	switch {
	case m.naming == byNew:
		p := params.(*SessionCreateParams)
		if p.Key == "" && p.SessionID.IsZero() {
			return change, checkpoint.NewID() // nobody can name it yet
		}
		if id = p.SessionID; p.Key != "" {
			known, ok := s.sessionOfKey(p.Key)
			if !ok || !id.IsZero() && id != known {
				return barrier, checkpoint.ID{}
			}
			id = known
		}
	case m.naming == byCheckpoint:
		if s.lookup != nil {
			if cp := checkpointOf(params); !cp.IsZero() {
				id, _ = s.lookup.SessionOfCheckpoint(cp)
			}
		}
	case m.fields.session != nil:
		ref := sessionOf(params)
		if id, key = ref.SessionID, ref.Key; key != "" {
			id, _ = s.sessionOfKey(key)
		}
	}
	if id.IsZero() && m.order == change {
		return barrier, id
	}
	return m.order, id
}

func (s *Server) sessionOfKey(key string) (checkpoint.ID, bool) {
	if s.lookup == nil {
		return checkpoint.ID{}, false
	}
	return s.lookup.SessionOfKey(key)
}

// enter waits until a request with a large result may run: until the peer has taken most of
// what it was sent before, and there is room in the budget. A few of one connection run or
// wait at a time. While others have the room, short finds out whether the result is a
// short one, which need not wait. In a batch, whose replies wait for each other, a request
// is refused when it would wait long. exit is to be called when the reply counts for itself.
func (s *Server) enter(c *conn, b *batch, short func() bool) (exit func(), err error) {
	if b != nil && b.full(c.limits.FrameBytes) {
		return nil, errBatchFull
	}
	leave := func() {}
	if b == nil {
		select {
		case c.reads <- struct{}{}:
			leave = func() { <-c.reads }
		case <-c.closed:
			return nil, errGone
		}
		if !c.out.backlog() {
			leave()
			return nil, errGone
		}
	}
	aside := s.budget.tryRead()
	if aside == 0 && short() {
		return leave, nil
	}
	if aside == 0 {
		stop, err := (<-chan struct{})(c.closed), errGone
		if b != nil {
			late, cancel := context.WithTimeout(context.Background(), 2*stallTime)
			defer cancel()
			stop, err = late.Done(), errBusy
		}
		if aside = s.budget.beginRead(stop, s.shed); aside == 0 {
			leave()
			return nil, err
		}
	}
	return func() {
		s.budget.endRead(aside)
		leave()
	}, nil
}

var errBusy = &checkpoint.Error{Kind: checkpoint.KindOverloaded, Message: "too many bytes are in flight; try again, outside a batch best", Retry: true}

// shed is called while somebody has waited for room for a second: it ends the connections
// that hold much and whose peers neither send nor take anything.
func (s *Server) shed() {
	since := time.Now().Add(-stallTime)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		stuck := c.out.stuck(since)
		if !c.waits.Load() && c.readAt.Load() <= since.UnixNano() {
			stuck += c.holding.Load()
		}
		if stuck > smallFrame {
			s.log.Warn("connection ended: it holds memory that others wait for", "pid", c.PID(), "bytes", stuck)
			c.close()
		}
	}
}

// drainGrace is how long Shutdown goes on reading what clients have sent already.
const drainGrace = 100 * time.Millisecond

// Shutdown stops accepting, answers every request that was received, and ends the
// connections. When ctx ends first, it cuts them off and returns the cause.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		stopAccepting(l)
	}
	at := time.Now().Add(drainGrace)
	for c := range s.conns {
		c.drainAt.Store(at.UnixNano())
		c.drop(c.nc.SetReadDeadline(at))
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.done.Wait()
		close(ended)
	}()
	defer s.workers.end()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.close()
	}
	s.mu.Unlock()
	<-ended
	return context.Cause(ctx)
}

// libraryLog takes what the jsonrpc2 library wants to say.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, v ...any) {
	l.log.Debug("jsonrpc2: " + fmt.Sprintf(format, v...))
}

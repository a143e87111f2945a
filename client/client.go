package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// Defaults of the fields of Client.
const (
	DefaultRetryFor   = 15 * time.Second
	DefaultHandshake  = 5 * time.Second
	DefaultMaxMessage = 256 << 20
)

// Client is a connection to the daemon that makes itself when it is needed. The zero
// value works. Set the fields before the first call.
type Client struct {
	// Socket is the path of the daemon's socket; "" finds it as the command does.
	Socket string
	// Dial connects; nil connects to Socket.
	Dial func(ctx context.Context) (net.Conn, error)
	// RetryFor bounds how long one call may wait, from its first failure on, for a daemon
	// that was there and is starting again, draining or overloaded; 0 is DefaultRetryFor,
	// negative is not at all.
	RetryFor time.Duration
	// Handshake bounds the wait for the first answer on a new connection; 0 is DefaultHandshake.
	Handshake time.Duration
	// MaxMessage is the longest answer that is taken, in bytes; 0 is DefaultMaxMessage.
	MaxMessage int

	connecting sync.Mutex // one connects at a time; taken before mu
	mu         sync.Mutex // guards what follows
	cur        *conn
	was        bool // a handshake succeeded once
	closed     bool
	attached   map[checkpoint.ID]attachment
}

// Close ends the connection and waits for what runs on it. Calls in flight fail with
// ErrClosed. Subscriptions have connections of their own and are not ended.
func (c *Client) Close() error {
	c.mu.Lock()
	cur := c.cur
	c.closed, c.cur = true, nil
	c.mu.Unlock()
	if cur != nil {
		cur.close()
	}
	return nil
}

// Call calls any method of the wire by its name and gives its result as it came. params
// is anything that renders as a JSON object; nil sends none.
func (c *Client) Call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	body, err := encodeParams(params)
	if err != nil {
		return nil, err
	}
	r := c.newRetry()
	for {
		cn, err := c.connect(ctx)
		if err == nil {
			var result json.RawMessage
			if result, err = cn.call(ctx, method, body); err == nil {
				return result, nil
			}
		}
		if !r.again(ctx, method, err) {
			return nil, err
		}
	}
}

// Pending is a request that was sent and not waited for.
type Pending struct {
	client *Client
	conn   *conn
	method string
	body   []byte
	id     uint64
	ch     chan message
	err    error
}

// Send sends a request and returns without its answer. Requests sent one after the other
// reach the daemon in that order, which is the order in which those that change one session
// are carried out. Each Pending must be waited for, or its answer stays in memory.
func (c *Client) Send(ctx context.Context, method string, params any) *Pending {
	p := &Pending{client: c, method: method}
	if p.body, p.err = encodeParams(params); p.err != nil {
		return p
	}
	r := c.newRetry()
	for {
		if p.conn, p.err = c.connect(ctx); p.err == nil {
			if p.id, p.ch, p.err = p.conn.send(ctx, method, p.body); p.err == nil {
				return p
			}
		}
		if !r.again(ctx, method, p.err) {
			return p
		}
	}
}

// Wait gives the answer. A request whose connection was lost is not sent again: that
// would change the order.
func (p *Pending) Wait(ctx context.Context) (json.RawMessage, error) {
	if p.err != nil {
		return nil, p.err
	}
	return p.conn.wait(ctx, p.id, p.ch)
}

func encodeParams(params any) ([]byte, error) {
	if params == nil {
		return nil, nil
	}
	body, err := encode(params)
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInvalidParams, "params cannot be rendered as JSON: %w", err)
	}
	return body, nil
}

// retry decides, call by call, whether to try once more.
type retry struct {
	client   *Client
	span     time.Duration
	deadline time.Time // set by the first failure: a daemon may hang for long before it is replaced
	delay    time.Duration
}

func (c *Client) newRetry() *retry {
	span := c.RetryFor
	if span == 0 {
		span = DefaultRetryFor
	}
	return &retry{client: c, span: span, delay: 10 * time.Millisecond}
}

// again waits and reports true when the call may be made once more.
func (r *retry) again(ctx context.Context, method string, err error) bool {
	if r.deadline.IsZero() {
		r.deadline = time.Now().Add(r.span)
	}
	if ctx.Err() != nil || !r.client.worthRetrying(method, err) || time.Now().Add(r.delay).After(r.deadline) {
		return false
	}
	// Half of it at random: many clients of one restarted daemon do not come all at once.
	t := time.NewTimer(r.delay/2 + rand.N(r.delay))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	}
	r.delay = min(2*r.delay, 500*time.Millisecond)
	return true
}

func (c *Client) worthRetrying(method string, err error) bool {
	c.mu.Lock()
	was, closed := c.was, c.closed
	c.mu.Unlock()
	var lost *lostError
	var answer *checkpoint.Error
	switch {
	case closed || c.RetryFor < 0:
		return false
	case errors.As(err, &lost):
		return !lost.sent || repeatable[method]
	case errors.As(err, &answer):
		return answer.Retry && answer.Kind != checkpoint.KindStorage
	case errors.Is(err, syscall.EAGAIN): // the queue of the listening socket is full
		return true
	}
	return was && errors.Is(err, ErrNotRunning)
}

// connect gives the current connection, or a new one.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	if cn, err := c.current(); cn != nil || err != nil {
		return cn, err
	}
	c.connecting.Lock()
	defer c.connecting.Unlock()
	if cn, err := c.current(); cn != nil || err != nil { // another call made it meanwhile
		return cn, err
	}
	cn, err := c.open(ctx, c.capture, nil)
	if err != nil {
		return nil, err
	}
	if err := c.attachAgain(ctx, cn); err != nil {
		cn.close()
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		go cn.close()
		return nil, ErrClosed
	}
	c.cur, c.was = cn, true
	return cn, nil
}

func (c *Client) current() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if c.cur != nil && !c.cur.ended() {
		return c.cur, nil
	}
	return nil, nil
}

// open dials, shakes hands and checks the version.
func (c *Client) open(ctx context.Context, request func(context.Context, string, json.RawMessage) (any, error),
	notify func(string, json.RawMessage)) (*conn, error) {
	nc, socket, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	limit := c.MaxMessage
	if limit == 0 {
		limit = DefaultMaxMessage
	}
	cn := newConn(nc, limit)
	cn.request, cn.notify = request, notify
	cn.start()
	if err := c.handshake(ctx, cn, socket); err != nil {
		cn.close()
		return nil, err
	}
	return cn, nil
}

func (c *Client) handshake(ctx context.Context, cn *conn, socket string) error {
	span := c.Handshake
	if span == 0 {
		span = DefaultHandshake
	}
	timed, cancel := context.WithTimeoutCause(ctx, span, &NoAnswerError{Socket: socket, Waited: span})
	defer cancel()
	raw, err := cn.call(timed, "daemon.info", nil)
	if err != nil {
		return err
	}
	var info rpc.Info
	if err := json.Unmarshal(raw, &info); err != nil || info.Name != "forge-cpd" {
		return fmt.Errorf("what listens on %s is no forge-cpd daemon (it answered daemon.info with %.80s)", socket, raw)
	}
	if info.API.Major != rpc.APIVersion.Major {
		return &VersionError{Socket: socket, Client: rpc.APIVersion, Daemon: info.API, DaemonVersion: info.Version, DaemonPID: info.PID}
	}
	cn.info = &info
	return nil
}

// dial connects to the socket and says which it was.
func (c *Client) dial(ctx context.Context) (net.Conn, string, error) {
	socket := c.Socket
	if c.Dial != nil {
		nc, err := c.Dial(ctx)
		return nc, socket, err
	}
	if socket == "" {
		var err error
		if socket, err = defaultSocket(); err != nil {
			return nil, "", err
		}
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return nc, socket, nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, socket, &NotRunningError{Socket: socket, Err: errors.Unwrap(errors.Unwrap(err))}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return nil, socket, checkpoint.Errorf(checkpoint.KindPermissionDenied,
			"no permission to connect to %s: %w; the daemon belongs to another user, who can let you in by socket.allowed_uids", socket, err)
	}
	return nil, socket, err
}

package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// conn is one connection: newline-delimited JSON-RPC 2.0, any number of calls in flight.
type conn struct {
	nc       net.Conn
	maxFrame int
	info     *rpc.Info // set by the handshake
	notify   func(method string, params json.RawMessage)
	request  func(ctx context.Context, method string, params json.RawMessage) (any, error)

	writing chan struct{} // holds one token: who has it may write
	ctx     context.Context
	cancel  context.CancelFunc // ends when the connection does
	wg      sync.WaitGroup     // the reader and the handlers of the daemon's requests

	mu      sync.Mutex // guards what follows
	nextID  uint64
	pending map[uint64]chan message
	err     error // why it ended
}

// message is anything the daemon sends.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *jsonrpc2.Error `json:"error"`
	lost   error
}

func newConn(nc net.Conn, maxFrame int) *conn {
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{
		nc: nc, maxFrame: maxFrame, writing: make(chan struct{}, 1),
		ctx: ctx, cancel: cancel, pending: map[uint64]chan message{},
	}
	c.writing <- struct{}{}
	return c
}

// start reads until the connection ends.
func (c *conn) start() {
	c.wg.Go(func() {
		r := bufio.NewReaderSize(c.nc, 64<<10)
		for {
			line, err := readFrame(r, c.maxFrame)
			if err == nil {
				err = c.receive(line)
			}
			if err != nil {
				c.fail(err)
				return
			}
		}
	})
}

// readFrame reads one line of at most limit bytes.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("the daemon sent more than %d bytes in one message: raise Client.MaxMessage", limit)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

func (c *conn) receive(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("the daemon sent what is no JSON-RPC message: %w", err)
	}
	switch {
	case m.Method != "" && m.ID == nil:
		if c.notify != nil {
			c.notify(m.Method, m.Params)
		}
		return nil
	case m.Method != "":
		c.wg.Go(func() { c.serve(m) })
		return nil
	}
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		// An error that belongs to no request: this connection was refused, or a frame
		// that could not be read. Which of the calls in flight it was is not told.
		if m.Error != nil {
			return rpc.FromWire(m.Error)
		}
		return fmt.Errorf("the daemon answered with the id %.40s, which nobody used", m.ID)
	}
	c.mu.Lock()
	ch := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if ch != nil { // nil: its caller gave up
		ch <- m
	}
	return nil
}

// serve answers a request of the daemon's.
func (c *conn) serve(m message) {
	var result any
	err := unknownMethod(m.Method)
	if c.request != nil {
		result, err = c.request(c.ctx, m.Method, m.Params)
	}
	reply := struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Result  any             `json:"result,omitempty"`
		Error   *jsonrpc2.Error `json:"error,omitempty"`
	}{Version: "2.0", ID: m.ID, Result: result}
	if err != nil {
		reply.Result, reply.Error = nil, wireOf(err)
	}
	frame, err := encode(reply)
	if err != nil { // the state that was given is no JSON
		reply.Result, reply.Error = nil, wireOf(err)
		frame, err = encode(reply)
	}
	if err == nil {
		_, err = c.write(c.ctx, append(frame, '\n'))
	}
	if err != nil && c.ctx.Err() == nil {
		c.fail(err)
	}
}

func unknownMethod(name string) error {
	return checkpoint.Errorf(checkpoint.KindMethodNotFound, "this client does not answer %s", name)
}

// wireOf renders the program's own error: unlike the daemon's, its text may be told.
func wireOf(err error) *jsonrpc2.Error {
	var e *checkpoint.Error
	if !errors.As(err, &e) {
		e = checkpoint.Errorf(checkpoint.KindInternal, "%w", err)
	}
	return rpc.ToWire(e)
}

// call sends one request and waits for its answer. A caller that stops waiting leaves
// the connection whole.
func (c *conn) call(ctx context.Context, method string, params []byte) (json.RawMessage, error) {
	id, ch, err := c.send(ctx, method, params)
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, id, ch)
}

func (c *conn) send(ctx context.Context, method string, params []byte) (uint64, chan message, error) {
	name, err := json.Marshal(method)
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan message, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return 0, nil, &lostError{err: c.err}
	}
	c.nextID++
	id := c.nextID
	c.pending[id] = ch
	c.mu.Unlock()

	frame := make([]byte, 0, len(params)+len(name)+64)
	frame = append(frame, `{"jsonrpc":"2.0","id":`...)
	frame = strconv.AppendUint(frame, id, 10)
	frame = append(append(frame, `,"method":`...), name...)
	if params != nil {
		frame = append(append(frame, `,"params":`...), params...)
	}
	n, err := c.write(ctx, append(frame, '}', '\n'))
	if err == nil {
		return id, ch, nil
	}
	c.mu.Lock()
	delete(c.pending, id)
	reason := c.err
	c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return 0, nil, context.Cause(ctx)
	case reason != nil:
		err = reason
	}
	return 0, nil, &lostError{sent: n > 0, err: err}
}

func (c *conn) wait(ctx context.Context, id uint64, ch chan message) (json.RawMessage, error) {
	select {
	case m := <-ch:
		switch {
		case m.lost != nil:
			return nil, &lostError{sent: true, err: m.lost}
		case m.Error != nil:
			return nil, rpc.FromWire(m.Error)
		}
		return m.Result, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

// write sends one frame. When ctx ends in the middle of it, the connection is of no more use.
func (c *conn) write(ctx context.Context, frame []byte) (int, error) {
	select {
	case <-c.writing:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.ctx.Done():
		return 0, net.ErrClosed
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.nc.SetWriteDeadline(time.Unix(1, 0))
		close(fired)
	})
	n, err := c.nc.Write(frame)
	if !stop() {
		<-fired
		_ = c.nc.SetWriteDeadline(time.Time{})
	}
	if err != nil && (n > 0 || ctx.Err() == nil) {
		c.fail(err) // half a frame: nothing can follow it
	}
	c.writing <- struct{}{}
	return n, err
}

// fail ends the connection and tells all who wait. The first reason stays.
func (c *conn) fail(err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the daemon closed it")
	}
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	pending := c.pending
	c.pending = map[uint64]chan message{}
	c.mu.Unlock()
	c.cancel()
	_ = c.nc.Close() // it ends for another reason, which is told
	for _, ch := range pending {
		ch <- message{lost: c.err}
	}
}

// ended tells whether the connection can still be used.
func (c *conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// close ends the connection and waits for its goroutines.
func (c *conn) close() {
	c.fail(ErrClosed)
	c.wg.Wait()
}

// encode renders params with every byte of a RawMessage kept but white space: the
// encoder's habit of escaping <, > and & would change states.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

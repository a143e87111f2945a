package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// stream is the ObjectStream that stands between the peer and the jsonrpc2 library. The
// library gets small messages that refer to ours by number: it never sees a peer's id, its
// params, or a result.
type stream struct {
	c      *conn
	frames frames

	// Of the frame that is being handed out; only the reader touches them.
	batch   *batch
	before  *batch // the last one: a connection has one batch at a time
	rest    []byte // elements of the batch still to come, from their comma or bracket on
	frame   *frameShare
	suspect bool
	came    time.Time

	mu       sync.Mutex
	last     uint64
	requests map[uint64]*request
	results  map[string][]byte // of our calls, until Call takes them
}

// frameShare is a frame's part of the budget, given back with its last request. So is its
// buffer, if it has one to itself, when reuse says that nothing refers to it any more.
type frameShare struct {
	b     *budget
	share share
	refs  atomic.Int32
	buf   []byte
	reuse bool // the request's handler
}

func (f *frameShare) release() {
	if f.refs.Add(-1) == 0 {
		f.b.give(&f.share)
		if f.reuse {
			giveBack(f.buf)
		}
		f.buf = nil
	}
}

// ReadObject hands the library the next request or response.
func (s *stream) ReadObject(v any) error {
	dst, ok := v.(json.Unmarshaler)
	if !ok {
		return errors.New("rpc: the library asks for a type that is not its message")
	}
	for {
		msg, err := s.message()
		if err != nil {
			if s.batch != nil { // the connection was cut off in the middle of one
				s.endBatch()
			}
			s.c.readEnded(err)
			return io.EOF
		}
		if msg != nil {
			return dst.UnmarshalJSON(msg)
		}
	}
}

// message reads on until there is something for the library, or nil after something that
// was answered here.
func (s *stream) message() ([]byte, error) {
	if s.batch != nil {
		return s.element()
	}
	frame, share, err := s.frames.next()
	switch {
	case errors.Is(err, errTooLong):
		s.c.refuse(checkpoint.Errorf(checkpoint.KindTooLarge, "the frame is over the limit of %d bytes", s.c.limits.FrameBytes))
		return nil, nil
	case errors.Is(err, errBadHeader), errors.Is(err, errCutInFrame):
		s.c.refuse(checkpoint.Errorf(checkpoint.KindParse, "%s: a frame starts with Content-Length: BYTES and an empty line", err.Error()))
		return nil, err
	case errors.Is(err, errFrameTime):
		s.c.refuse(checkpoint.Errorf(checkpoint.KindInvalidRequest, "the frame did not end within %v; the connection ends", s.c.limits.FrameTimeout))
		return nil, err
	case err != nil:
		return nil, err
	}
	s.frame = &frameShare{b: s.c.srv.budget, share: share, buf: s.frames.taken}
	s.frames.taken = nil
	s.frame.refs.Store(1)
	if len(frame) <= smallFrame && !s.c.srv.budget.take(&s.frame.share, int64(max(len(frame), len(s.frame.buf))), true, s.c.closed, s.c.srv.shed) {
		s.frame.release()
		return nil, io.ErrUnexpectedEOF
	}
	s.came = time.Now()
	msg, err := s.open(frame)
	if s.batch == nil {
		s.frame.release()
	}
	return msg, err
}

// open checks a frame and takes it apart.
func (s *stream) open(frame []byte) ([]byte, error) {
	depth := s.c.limits.JSONDepth
	first := frame[rawjson.Space(frame, 0):]
	isArray := len(first) > 0 && first[0] == '['
	envelope := 2 // a request's own levels: the message and its params
	if isArray {
		envelope = 3
	}
	compact, marks, flaw, err := rawjson.Lenient(frame[:0], frame, depth+envelope)
	if err != nil {
		s.c.refuse(checkpoint.Errorf(checkpoint.KindParse, "%s", err.Error()))
		return nil, nil
	}
	s.suspect = flaw != nil
	if !isArray {
		return s.take(parse(compact, marks, s.suspect, depth), nil)
	}
	if len(compact) == 2 {
		s.c.refuse(checkpoint.Errorf(checkpoint.KindInvalidRequest, "the batch is empty"))
		return nil, nil
	}
	if s.before != nil {
		select {
		case <-s.before.done:
		case <-s.c.closed:
			return nil, io.ErrUnexpectedEOF
		}
	}
	s.batch = &batch{open: 1, done: make(chan struct{})}
	s.before = s.batch
	s.rest = compact[1:]
	return nil, nil
}

// element hands out the next message of a batch.
func (s *stream) element() ([]byte, error) {
	value, rest, err := rawjson.Next(s.rest)
	if err != nil || value == nil {
		s.endBatch()
		return nil, nil
	}
	s.rest = rest
	e := parse(value, nil, s.suspect, s.c.limits.JSONDepth)
	if e.err != nil {
		s.batch.add()
		s.c.batchDone(s.batch, errorReply(nil, ToWire(e.err)))
		s.c.countError()
		return nil, nil
	}
	return s.take(e, s.batch)
}

// endBatch is after the last element.
func (s *stream) endBatch() {
	b := s.batch
	s.batch, s.rest = nil, nil
	s.c.batchDone(b)
	s.frame.release()
}

// take turns an envelope into the library's message.
func (s *stream) take(e envelope, b *batch) ([]byte, error) {
	switch {
	case e.err != nil:
		s.c.refuse(e.err)
		return nil, nil
	case e.resp != nil:
		return s.takeResponse(e.resp), nil
	}
	r := e.req
	r.batch, r.frame, r.received = b, s.frame, s.came
	if !s.c.enter() {
		return nil, io.ErrUnexpectedEOF
	}
	r.frame.refs.Add(1)
	if b != nil {
		b.add()
	}
	s.mu.Lock()
	s.last++
	r.id = s.last
	s.requests[r.id] = r
	s.mu.Unlock()
	msg := append(make([]byte, 0, 48), `{"method":"r","id":`...)
	return append(strconv.AppendUint(msg, r.id, 10), '}'), nil
}

func (s *stream) takeResponse(r *response) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, asked := s.results[r.id]; !asked {
		return nil // too late, or never asked
	}
	id := rawjson.AppendQuote(nil, r.id)
	if r.err != nil && string(r.err) != "null" {
		s.results[r.id] = nil
		var e jsonrpc2.Error
		if err := json.Unmarshal(r.err, &e); err != nil {
			e = jsonrpc2.Error{Code: -32603, Message: "the error in the reply is none"}
		}
		return append(append(append([]byte(`{"id":`), id...), `,"error":`...), append(mustJSON(e), '}')...)
	}
	s.results[r.id] = bytes.Clone(r.result)
	return append(append([]byte(`{"id":`), id...), `,"result":0}`...)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte("null")
	}
	return b
}

// request finds what the library's request stands for.
func (s *stream) request(id uint64) *request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[id]
}

// WriteObject queues what the library sends: a reply, whose real content is with us, or a
// call of ours. It never waits for the peer.
func (s *stream) WriteObject(v any) error {
	src, ok := v.(json.Marshaler)
	if !ok {
		return errors.New("rpc: the library writes a type that is not its message")
	}
	msg, err := src.MarshalJSON()
	if err != nil {
		return err
	}
	id, isReply := replyID(msg)
	if !isReply {
		return s.c.send([][]byte{msg}, nil)
	}
	s.mu.Lock()
	r := s.requests[id]
	delete(s.requests, id)
	s.mu.Unlock()
	if r == nil {
		return errors.New("rpc: a reply to nothing")
	}
	return s.c.reply(r)
}

// replyID reads the id of the library's `{"id":7,…`. Calls of ours have ids that are strings.
func replyID(msg []byte) (uint64, bool) {
	const head = `{"id":`
	if !bytes.HasPrefix(msg, []byte(head)) {
		return 0, false
	}
	n, digits := uint64(0), 0
	for _, c := range msg[len(head):] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
		digits++
	}
	return n, digits > 0
}

// Close ends the connection.
func (s *stream) Close() error { return s.c.close() }

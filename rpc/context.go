package rpc

import (
	"context"
	"fmt"
	"time"
)

// Peer is the program at the other end of a connection, as the kernel names it.
type Peer interface {
	// UID, GID and PID are the socket's peer credentials.
	UID() uint32
	GID() uint32
	PID() int
	// ConnID is unique in this process.
	ConnID() uint64
	// Call sends the peer a request and decodes its result.
	Call(ctx context.Context, method string, params, result any) error
	// Alive reports that the process PID still runs and is the one that connected: what
	// was read from /proc/PID before a true answer is that process's (SO_PEERPIDFD).
	Alive() bool
	// Notify queues a notification and never waits. It reports false, and queues nothing,
	// when the peer has not read enough of those before it.
	Notify(method string, params any) bool
	// NotifyWait is Notify that waits for room, until ctx or the connection ends.
	NotifyWait(ctx context.Context, method string, params any) error
	// Done is closed when the connection ends.
	Done() <-chan struct{}
}

type ctxKey int

const (
	peerKey ctxKey = iota
	admitKey
	receivedKey
	afterKey
	requestKey
)

// PeerFrom returns the caller.
func PeerFrom(ctx context.Context) Peer { p, _ := ctx.Value(peerKey).(Peer); return p }

// WithPeer is for servers and tests.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey, p)
}

// Admit says that the caller's place in the session's order is fixed: the connection's
// next request for the session may start. It may be called more than once, and need not be.
func Admit(ctx context.Context) {
	if f, ok := ctx.Value(admitKey).(func()); ok {
		f()
	}
}

// WithAdmit is for servers and tests.
func WithAdmit(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, admitKey, f)
}

// Received is when the request's last byte was read: while draining, creates received
// before the drain began are still made. Zero when the context is no request's.
func Received(ctx context.Context) time.Time {
	t, _ := ctx.Value(receivedKey).(time.Time)
	return t
}

// WithReceived is for servers and tests.
func WithReceived(ctx context.Context, t time.Time) context.Context {
	return context.WithValue(ctx, receivedKey, t)
}

// AfterReply runs f as soon as the reply to this request has its place in the connection's
// output, so that what f sends comes after it; not at all when the connection is gone.
// f must not block. Outside a server f runs at once.
func AfterReply(ctx context.Context, f func()) {
	if after, ok := ctx.Value(afterKey).(func(func())); ok {
		after(f)
		return
	}
	f()
}

// WithAfterReply is for servers and tests: after is handed each f.
func WithAfterReply(ctx context.Context, after func(f func())) context.Context {
	return context.WithValue(ctx, afterKey, after)
}

// requestID numbers a request: its connection, and its place among that one's requests.
type requestID struct{ conn, n uint64 }

func (r requestID) String() string { return fmt.Sprintf("%d-%d", r.conn, r.n) }

// MarshalText is for logs as JSON, which ask no String.
func (r requestID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// RequestID names the request that a context belongs to in the daemon's log, as
// CONNECTION-NUMBER; "" when it is none's.
func RequestID(ctx context.Context) string {
	if id, ok := ctx.Value(requestKey).(requestID); ok {
		return id.String()
	}
	return ""
}

package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/sourcegraph/jsonrpc2"
	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

var errNoRoom = errors.New("the peer has not read the notifications before this one")

func (c *conn) UID() uint32           { return c.creds.Uid }
func (c *conn) GID() uint32           { return c.creds.Gid }
func (c *conn) PID() int              { return int(c.creds.Pid) }
func (c *conn) ConnID() uint64        { return c.id }
func (c *conn) Done() <-chan struct{} { return c.closed }

// Alive asks the kernel anew each time: a descriptor that is kept for it would be a second
// one for each connection. It is false once the connection has ended.
func (c *conn) Alive() bool {
	alive := false
	err := c.raw.Control(func(fd uintptr) { alive = peerAlive(int(fd), int(c.creds.Pid)) })
	return err == nil && alive
}

// Notify queues a notification unless too many wait already.
func (c *conn) Notify(method string, params any) bool {
	b, err := notification(method, params)
	if err != nil {
		c.srv.log.Error("notification not made", "method", method, "err", err)
		return false
	}
	return c.out.add([][]byte{b}, nil, true) == nil
}

// NotifyWait queues a notification as soon as there is room for it.
func (c *conn) NotifyWait(ctx context.Context, method string, params any) error {
	b, err := notification(method, params)
	if err != nil {
		return err
	}
	for {
		if err := c.out.add([][]byte{b}, nil, true); !errors.Is(err, errNoRoom) {
			return err
		}
		if err := c.out.room(ctx); err != nil {
			return err
		}
	}
}

func notification(method string, params any) ([]byte, error) {
	p, err := marshal(params)
	if err != nil {
		return nil, err
	}
	b := rawjson.AppendQuote(append(make([]byte, 0, len(p)+64), `{"jsonrpc":"2.0","method":`...), method)
	return append(append(append(b, `,"params":`...), p...), '}'), nil
}

// Call asks the peer. The result's raw members are the peer's own bytes.
func (c *conn) Call(ctx context.Context, method string, params, result any) error {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if isClosed(c.readEnd) {
		return net.ErrClosed // a peer that sends no more cannot answer
	}
	id := "forge-cpd-" + strconv.FormatUint(c.calls.Add(1), 10)
	s := c.stream
	s.mu.Lock()
	s.results[id] = nil
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.results, id)
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.readEnd:
			cancel(net.ErrClosed)
		case <-ctx.Done():
		}
	}()
	call, err := c.jc.DispatchCall(ctx, method, params, jsonrpc2.PickID(jsonrpc2.ID{Str: id, IsString: true}))
	if err != nil {
		return err
	}
	err = call.Wait(ctx, nil)
	var refused *jsonrpc2.Error
	switch {
	case errors.As(err, &refused):
		return FromWire(refused)
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	s.mu.Lock()
	raw := s.results[id]
	s.mu.Unlock()
	return c.decodeReply(raw, result)
}

func (c *conn) decodeReply(raw []byte, result any) error {
	reply, ok := result.(*CaptureReply)
	if !ok {
		if result == nil {
			return nil
		}
		return json.Unmarshal(raw, result)
	}
	if len(raw) == 0 || raw[0] != '{' {
		return checkpoint.Invalid("result", "must be an object with a state")
	}
	reply.State = rawjson.Member(raw, "state")
	if len(reply.State) > c.limits.StateBytes {
		return checkpoint.Errorf(checkpoint.KindTooLarge, "the state is %d bytes long, over the limit of %d", len(reply.State), c.limits.StateBytes)
	}
	return nil
}

// creds say who is at the other end, as the kernel recorded it when the socket was connected.
type creds struct {
	unix.Ucred
	groups []uint32
}

// soPeerGroups and soPeerPIDFD are missing in x/sys on some platforms.
const (
	soPeerGroups = 0x3b
	soPeerPIDFD  = 0x4d
)

func peerOf(nc *net.UnixConn) (syscall.RawConn, creds, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, creds{}, err
	}
	var who creds
	var failed error
	err = raw.Control(func(fd uintptr) {
		u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			failed = fmt.Errorf("reading the peer's credentials: %w", err)
			return
		}
		who.Ucred = *u
		who.groups = peerGroups(int(fd))
	})
	return raw, who, errors.Join(err, failed)
}

// peerGroups are the supplementary groups; none where the kernel does not tell.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 256)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soPeerGroups,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil
		}
	}
}

// peerAlive says whether the process that connected still runs, whoever has its number now.
func peerAlive(sock, pid int) bool {
	pidfd, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, soPeerPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) { // an older kernel: the number is all there is
		return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
	}
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0 // it becomes readable when the process ends
}

// Access says who may connect beside root and the daemon's own uid.
type Access struct {
	UIDs []uint32
	GIDs []uint32
}

// overflowUID is what the kernel shows for uids that have no name here: those of another
// user namespace all look alike, so it is never let in.
var overflowUID = func() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			return uint32(n)
		}
	}
	return 65534
}()

func (a Access) allows(c creds, own uint32) bool {
	if c.Uid == overflowUID {
		return false
	}
	if c.Uid == own || c.Uid == 0 {
		return true
	}
	for _, uid := range a.UIDs {
		if uid == c.Uid {
			return true
		}
	}
	for _, gid := range a.GIDs {
		if gid == c.Gid {
			return true
		}
		for _, g := range c.groups {
			if gid == g {
				return true
			}
		}
	}
	return false
}

// setReadDeadline arms the deadline that belongs to what is awaited.
func (c *conn) setReadDeadline(begun time.Time, inFrame bool) {
	var at time.Time
	switch {
	case inFrame && !begun.IsZero() && c.limits.FrameTimeout > 0:
		at = begun.Add(c.limits.FrameTimeout)
	case !inFrame && c.limits.IdleTimeout > 0:
		at = time.Now().Add(c.limits.IdleTimeout)
	}
	if drain := c.drainAt.Load(); drain != 0 && (at.IsZero() || drain < at.UnixNano()) {
		at = time.Unix(0, drain)
	}
	if at.IsZero() && !c.timed {
		return // as it stands
	}
	c.timed = !at.IsZero()
	c.drop(c.nc.SetReadDeadline(at))
	if drain := c.drainAt.Load(); drain != 0 { // it may have come in between
		c.drop(c.nc.SetReadDeadline(time.Unix(0, drain)))
	}
}

// whyTimeout tells a deadline's reason; nil says that it has been put off meanwhile.
func (c *conn) whyTimeout(begun time.Time, inFrame bool) error {
	now := time.Now()
	if drain := c.drainAt.Load(); drain != 0 && now.UnixNano() >= drain {
		return errNoMore
	}
	if inFrame && c.limits.FrameTimeout > 0 && !now.Before(begun.Add(c.limits.FrameTimeout)) {
		return errFrameTime
	}
	if !inFrame && c.limits.IdleTimeout > 0 && len(c.slots) == 0 &&
		now.Sub(time.Unix(0, max(c.readAt.Load(), c.out.wroteAt.Load()))) >= c.limits.IdleTimeout {
		return errIdle
	}
	return nil
}

package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/forge-cpd/forge-cpd/rpc"
)

var (
	// ErrNotRunning: nothing listens on the socket.
	ErrNotRunning = errors.New("the daemon is not running")
	// ErrNoAnswer: something listens, and did not answer daemon.info in time.
	ErrNoAnswer = errors.New("the daemon does not answer")
	// ErrConnectionLost: the connection ended before the answer came; the call may or may
	// not have been carried out.
	ErrConnectionLost = errors.New("connection to the daemon lost")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the client is closed")
)

// NotRunningError is ErrNotRunning with the socket that was tried.
type NotRunningError struct {
	Socket string
	Err    error // what connect(2) said
}

func (e *NotRunningError) Error() string {
	return fmt.Sprintf("no daemon listens on %s (%v): start one with `forge-cpd serve`", e.Socket, e.Err)
}

// Unwrap gives ErrNotRunning and the cause.
func (e *NotRunningError) Unwrap() []error { return []error{ErrNotRunning, e.Err} }

// NoAnswerError is ErrNoAnswer with the socket and how long was waited.
type NoAnswerError struct {
	Socket string
	Waited time.Duration
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("the daemon on %s accepts connections and has not answered for %v: it is stopped, starting or overloaded; look at its log, or run `forge-cpd doctor`", e.Socket, e.Waited)
}

// Unwrap gives ErrNoAnswer.
func (e *NoAnswerError) Unwrap() error { return ErrNoAnswer }

// VersionError: the daemon speaks another major version of the wire.
type VersionError struct {
	Socket        string
	Client        rpc.API
	Daemon        rpc.API
	DaemonVersion string
	DaemonPID     int
}

func (e *VersionError) Error() string {
	if e.Daemon.Major < e.Client.Major {
		return fmt.Sprintf("the daemon on %s (version %s, API %d) is too old for this program, which speaks API %d: restart its service, or end it with `kill %d`; the next command starts this version's",
			e.Socket, e.DaemonVersion, e.Daemon.Major, e.Client.Major, e.DaemonPID)
	}
	return fmt.Sprintf("this program speaks API %d and is too old for the daemon on %s (version %s, API %d): upgrade this program",
		e.Client.Major, e.Socket, e.DaemonVersion, e.Daemon.Major)
}

// lostError is a connection's end as one call saw it.
type lostError struct {
	sent bool // some of the request was written
	err  error
}

func (e *lostError) Error() string {
	return fmt.Sprintf("%v: %v; whether the request was carried out is not known", ErrConnectionLost, e.err)
}

func (e *lostError) Unwrap() []error { return []error{ErrConnectionLost, e.err} }

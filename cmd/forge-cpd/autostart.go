package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

const (
	startTimeout = 60 * time.Second // a store that was not closed may have much to look at
	pollEvery    = 20 * time.Millisecond
)

// start brings up a daemon and returns when it answers c. Of many clients that come at
// once one starts it, chosen by a flock beside the socket, and the others wait for the
// socket to answer. The store's own lock decides in the end: a daemon that
// does not get it exits, which costs nothing.
func (a *app) start(ctx context.Context, c *client.Client, cfg *config.Config, paths config.Paths) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("the daemon was started and does not answer on %s after %v: look at %s", paths.Socket, startTimeout, logFile(paths)))
	defer cancel()
	if err := config.PrivateDir(filepath.Dir(paths.Socket), cfg.Socket.Shared()); err != nil {
		return err
	}
	slow := time.AfterFunc(time.Second, func() {
		if terminal(a.stderr) > 0 {
			a.say("starting the daemon …")
		}
	})
	defer slow.Stop()
	for {
		_, err := c.Info(ctx)
		if !errors.Is(err, client.ErrNotRunning) {
			return err
		}
		lock, err := tryLock(paths.Socket + ".start")
		if err != nil {
			return err
		}
		if lock == nil { // another client is at it
			if err := pause(ctx, pollEvery); err != nil {
				return err
			}
			continue
		}
		err = a.startLocked(ctx, c, paths)
		return errors.Join(err, lock.Close())
	}
}

// startLocked starts daemons until one answers.
func (a *app) startLocked(ctx context.Context, c *client.Client, paths config.Paths) error {
	for {
		_, err := c.Info(ctx)
		if !errors.Is(err, client.ErrNotRunning) { // another client was quicker
			return err
		}
		again := true
		p, err := spawn(ctx, paths)
		if err == nil {
			again, err = awaitAnswer(ctx, c, p)
		}
		if err != nil && !errors.Is(err, errUnitThere) || !again {
			return err
		}
		// Store or unit are still held, by a daemon that is on its way out.
		if err := pause(ctx, 5*pollEvery); err != nil {
			return err
		}
	}
}

// awaitAnswer waits until the daemon answers or the process ends. again means that the
// process found the store locked.
func awaitAnswer(ctx context.Context, c *client.Client, p *process) (again bool, err error) {
	for {
		_, err := c.Info(ctx)
		if !errors.Is(err, client.ErrNotRunning) {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case end := <-p.ended:
			if _, err := c.Info(ctx); !errors.Is(err, client.ErrNotRunning) {
				return false, err // it lost to another one, which answers
			}
			if end.code == exitBusy {
				return true, nil
			}
			return false, end.err
		case <-time.After(pollEvery):
		}
	}
}

// replace asks an older daemon to finish what it has and starts this version in its place.
// Other clients see a delay: their requests are answered before it ends, or told to come again.
func (a *app) replace(ctx context.Context, c *client.Client, cfg *config.Config, paths config.Paths, old *rpc.Info) error {
	err := c.Shutdown(ctx)
	if errors.Is(err, checkpoint.ErrPermissionDenied) {
		return nil // another user's: it speaks the same major version, which will do
	}
	if err != nil && !errors.Is(err, client.ErrConnectionLost) && !errors.Is(err, checkpoint.ErrInvalidState) {
		return fmt.Errorf("asking the older daemon (version %s) to stop: %w", old.Version, err)
	}
	if terminal(a.stderr) > 0 {
		a.say("replacing the daemon of version %s by %s", old.Version, version)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf(
		"the older daemon (version %s, pid %d) was asked to stop and is still there after %v", old.Version, old.PID, startTimeout))
	defer cancel()
	probe := &client.Client{Socket: paths.Socket, RetryFor: -1, Handshake: a.timeout}
	defer probe.Close()
	for {
		info, err := probe.Info(ctx)
		switch {
		case errors.Is(err, client.ErrNotRunning):
			fresh := &client.Client{Socket: paths.Socket, Handshake: a.timeout}
			defer fresh.Close()
			return a.start(ctx, fresh, cfg, paths)
		case err == nil && info.PID != old.PID:
			return nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// tryLock takes an flock without waiting; nil when another process has it.
func tryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeErr := f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, closeErr
		}
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return f, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

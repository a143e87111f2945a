package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
)

// The exit codes.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitNotFound   = 4
	exitDamaged    = 5
	exitBusy       = 75 // EX_TEMPFAIL of sysexits.h: try again
)

// exitError carries its own exit status. A nil err says nothing: the command has told already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is a mistake in how the command was called.
func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// notFoundf says that what an argument names is not there.
func notFoundf(format string, args ...any) error {
	return checkpoint.Errorf(checkpoint.KindNotFound, format, args...)
}

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var own *exitError
	var answer *checkpoint.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, context.Canceled):
		return 130 // as a shell tells an interrupt
	case errors.Is(err, client.ErrNotRunning):
		return exitNotRunning
	case errors.Is(err, client.ErrNoAnswer):
		return exitBusy
	}
	if !errors.As(err, &answer) {
		return exitFailed
	}
	switch answer.Kind {
	case checkpoint.KindNotFound:
		return exitNotFound
	case checkpoint.KindCorrupt:
		return exitDamaged
	case checkpoint.KindInvalidParams, checkpoint.KindMethodNotFound:
		return exitUsage
	case checkpoint.KindOverloaded:
		return exitBusy
	}
	if answer.Retry {
		return exitBusy
	}
	return exitFailed
}

// report says what went wrong and gives the exit status.
func (a *app) report(err error) int {
	code := exitCode(err)
	var own *exitError
	if err == nil || errors.As(err, &own) && own.err == nil || code == 130 {
		return code
	}
	fmt.Fprintf(a.stderr, "forge-cpd: %s\n", strings.TrimSpace(err.Error()))
	return code
}

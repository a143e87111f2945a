package main

import (
	"fmt"
	"time"
)

// progress shows on a terminal how long work goes on, from its second second.
type progress struct {
	a     *app
	width int
	begun time.Time
	last  time.Time
	shown bool
}

func (a *app) progress() *progress {
	return &progress{a: a, width: terminal(a.stderr), begun: time.Now()}
}

// tell replaces the line on the terminal, ten times a second at most.
func (p *progress) tell(format string, args ...any) {
	now := time.Now()
	if p.width == 0 || now.Sub(p.begun) < time.Second || now.Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.shown = now, true
	line := []rune(fmt.Sprintf(format, args...))
	if len(line) >= p.width {
		line = line[:p.width-1]
	}
	fmt.Fprintf(p.a.stderr, "\r\x1b[K%s", string(line))
}

// done takes the line away.
func (p *progress) done() {
	if p.shown {
		fmt.Fprint(p.a.stderr, "\r\x1b[K")
	}
}

package autotrigger

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// readOn takes the calls of all whole lines after the place.
func (f *follower) readOn(ctx context.Context, p *followed, file *os.File, info fs.FileInfo) error {
	if info.Size() <= p.Offset && len(p.pending) == 0 {
		return nil
	}
	if err := f.prime(p, file); err != nil {
		return err
	}
	whole := &prefix{file: file, info: info, limit: f.w.e.opts.FileBytes}
	if err := f.takePending(ctx, p, file, whole); err != nil {
		return err
	}
	lines := newLineReader(file, p.Offset, f.w.e.opts.LineBytes)
	for ctx.Err() == nil && !f.w.isClosed() {
		line, end, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.line++
		p.parsed = end
		if line != nil {
			p.pending = parse(p.parser, p.line, line)
		}
		if len(p.pending) > 0 && !whole.agrees(line, end) {
			f.mu.Lock()
			p.parser, p.pending = nil, nil
			f.mu.Unlock()
			return errRewritten
		}
		if err := f.takePending(ctx, p, file, whole); err != nil {
			return err
		}
		if end == p.Offset {
			continue
		}
		after, err := p.behind(file, end)
		if err != nil {
			return err
		}
		f.goTo(p, after)
	}
	return ctx.Err()
}

// prime gives the parser the lines before the place: later ones refer to them.
func (f *follower) prime(p *followed, file *os.File) error {
	if p.parser != nil {
		return nil
	}
	parser, err := f.w.e.opts.Parser(f.w.cfg.Format, f.w.cfg.Match)
	if err != nil {
		return err
	}
	p.line, p.pending = 0, nil
	lines := newLineReader(io.NewSectionReader(file, 0, p.Offset), 0, f.w.e.opts.LineBytes)
	for {
		line, _, err := lines.next()
		if errors.Is(err, io.EOF) {
			p.parser = parser
			return nil
		}
		if err != nil {
			return err
		}
		p.line++
		if line != nil {
			parse(parser, p.line, line)
		}
	}
}

// parse survives a parser's panic: a line of a new kind must not end the daemon.
func parse(p transcript.Parser, n int, line []byte) (calls []transcript.Call) {
	defer func() {
		if recover() != nil {
			calls = nil
		}
	}()
	return p.Line(n, line)
}

// takePending takes the calls of the line that ends at p.parsed, in their order.
func (f *follower) takePending(ctx context.Context, p *followed, file *os.File, whole *prefix) error {
	if len(p.pending) == 0 {
		return nil
	}
	after, err := p.behind(file, p.parsed)
	if err != nil {
		return err
	}
	for len(p.pending) > 0 {
		o := &origin{key: followKey(f.w.cfg), file: func() (File, string) { return whole.upTo(p.Path, p.parsed) }}
		if len(p.pending) == 1 {
			o.after = &after
		}
		saved, err := f.call(ctx, p, p.pending[0], o)
		if err != nil && (ctx.Err() != nil || tryAgain(err)) {
			return takeError{err}
		}
		f.loose = f.loose || !saved
		p.pending = p.pending[1:]
	}
	f.goTo(p, after)
	return nil
}

// goTo moves the place behind a line whose calls are all taken.
func (f *follower) goTo(p *followed, after savedFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.savedFile, p.grown = after, time.Now()
}

// call fires one finished call with the transcript as it was at the end of its line, and
// tells whether the place is saved with its checkpoint.
func (f *follower) call(ctx context.Context, p *followed, c transcript.Call, o *origin) (bool, error) {
	cause := c.Cause
	if cause == checkpoint.CauseError && !f.w.e.takesErrors(f.w.s) {
		if c.Plain {
			return true, nil
		}
		cause = checkpoint.CauseToolCall
	}
	message := "tool call: " + c.Tool
	switch {
	case c.Plain:
		message = "the agent met an error"
	case c.Cause == checkpoint.CauseError:
		message = "tool call failed: " + c.Tool
	}
	detail, err := json.Marshal(struct {
		Tool string `json:"tool,omitempty"`
		ID   string `json:"id,omitempty"`
		Line int    `json:"line"`
		Path string `json:"path"`
	}{c.Tool, c.ID, p.line, p.Path})
	if err != nil {
		return false, err
	}
	out, err := f.w.e.decide(ctx, f.w.s, Trigger{Session: f.w.s.id, Cause: cause, Message: message, Detail: detail}, o)
	return out.Saved, err
}

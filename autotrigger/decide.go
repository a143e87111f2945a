package autotrigger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// decide waits for the session to be free and decides about t, which is about a line of a
// followed file where o is not nil.
func (e *Engine) decide(ctx context.Context, s *session, t Trigger, o *origin) (Outcome, error) {
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
	defer func() { <-s.busy }()
	return e.decideHeld(ctx, s, t, o)
}

func (e *Engine) decideHeld(ctx context.Context, s *session, t Trigger, o *origin) (Outcome, error) {
	e.mu.Lock()
	p, fs := s.policy, s.files
	skipped := p.gate(t, wall(), s.newest, s.lastAuto, e.opts.DefaultWindow)
	tool := toolCallID(t)
	call, known := s.calls.find(tool)
	e.mu.Unlock()
	switch {
	case skipped != "":
		return e.account(s, t, tool, Outcome{Skipped: skipped}, nil)
	case known && tool != "":
		return Outcome{CheckpointID: call.id, Sequence: call.sequence, Existing: true}, nil
	}
	req := Request{
		Session: t.Session, Cause: t.Cause, Message: cmp.Or(t.Message, defaultMessage(t.Cause)), Detail: t.Detail, State: t.State, ToolCallID: tool,
		SkipUnchanged: p != nil && p.skipUnchanged && t.Cause.Trigger() == checkpoint.Scheduled,
	}
	req.Files, req.Problems = e.capture(fs, o)
	var touched uint64
	req.AutoState, touched = e.stateAfter(s, o)
	out, err := e.take(ctx, req)
	if err == nil && out.Saved {
		e.mu.Lock()
		e.savedWith(s, touched)
		e.mu.Unlock()
	}
	return e.account(s, t, tool, out, err)
}

// maxStateWith bounds the state that goes with each checkpoint. A larger one, of a glob
// that matches hundreds of transcripts, is saved by itself, a while after it changed.
const maxStateWith = 16 << 10

// stateAfter renders the state that a checkpoint taken now leaves behind, nil for none, and
// how often the session was touched until then.
func (e *Engine) stateAfter(s *session, o *origin) (json.RawMessage, uint64) {
	if e.opts.Save == nil {
		return nil, 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	raw, err := s.stateAfter(wall(), o)
	if err != nil || len(raw) > maxStateWith {
		return nil, 0 // touch has it saved, and an error told
	}
	return raw, s.touched
}

// take survives a panic: one bad checkpoint must not end the automation of all sessions.
func (e *Engine) take(ctx context.Context, r Request) (out Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.opts.Logger.Error("panic while taking a checkpoint", "session", r.Session, "cause", r.Cause, "panic", p, "stack", string(debug.Stack()))
			err = checkpoint.Errorf(checkpoint.KindInternal, "taking the checkpoint failed inside the daemon; its log has the details")
		}
	}()
	return e.opts.Take(ctx, r)
}

// account counts what became of a trigger.
func (e *Engine) account(s *session, t Trigger, tool string, out Outcome, err error) (Outcome, error) {
	if err != nil {
		e.failed(s, t, err)
		return Outcome{}, err
	}
	e.mu.Lock()
	now := wall()
	if out.Skipped == "" || out.Skipped == Unchanged {
		s.lastRun, s.lastError = now, ""
	}
	if out.Skipped != "" {
		s.skipped++
	} else {
		at := cmp.Or(out.Timestamp.Round(0), now)
		s.note(at)
		if at.After(s.lastAuto) {
			s.lastAuto = at
		}
		if tool != "" {
			s.remember(knownCall{tool: tool, id: out.CheckpointID, sequence: out.Sequence})
		}
		if !out.Existing {
			s.taken++
		}
	}
	switch {
	case out.Saved:
	case tool != "" && out.Skipped == "":
		e.touch(s, e.opts.SaveEvery)
	default:
		e.touch(s, e.opts.SaveCounts)
	}
	e.mu.Unlock()
	if e.opts.Report != nil {
		e.opts.Report(t, out, nil)
	}
	return out, nil
}

func (e *Engine) failed(s *session, t Trigger, err error) {
	if errors.Is(err, context.Canceled) {
		return // the engine or its caller stopped: nothing went wrong
	}
	e.mu.Lock()
	s.lastRun, s.lastError = wall(), err.Error()
	s.failed++
	e.touch(s, e.opts.SaveCounts)
	e.mu.Unlock()
	if e.opts.Report != nil {
		e.opts.Report(t, Outcome{}, err)
	}
}

// toolCallID is the member "id" of a tool call's detail. Without one it is the member
// "hook_event_id", of any cause: a hook that could not wait for the answer tells its event
// again later.
func toolCallID(t Trigger) string {
	if len(t.Detail) == 0 {
		return ""
	}
	var d struct {
		ID    string `json:"id"`
		Event string `json:"hook_event_id"`
	}
	if json.Unmarshal(t.Detail, &d) != nil {
		return "" // a detail of another shape names no call
	}
	if t.Cause == checkpoint.CauseToolCall || t.Cause == checkpoint.CauseError {
		return cmp.Or(d.ID, d.Event)
	}
	return d.Event
}

func (e *Engine) takesErrors(s *session) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return s.policy.enabled(checkpoint.CauseError)
}

func defaultMessage(c checkpoint.Cause) string {
	switch c {
	case checkpoint.CauseInterval, checkpoint.CauseCron:
		return fmt.Sprintf("scheduled (%s)", c)
	}
	return fmt.Sprintf("automatic (%s)", c)
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// hookReport is an event in the wire's terms. It is what the spool keeps, so a report that
// was taken in twice must make the same checkpoints once: ID is the event's own.
type hookReport struct {
	ID      string                  `json:"id"`
	At      time.Time               `json:"at"`
	Socket  string                  `json:"socket"`
	Session rpc.SessionCreateParams `json:"session"`
	// Watch are the session's transcripts; a session that is there already gets those it lacks.
	Watch []checkpoint.Watch `json:"watch,omitempty"`
	// Triggers without Followed are told at once. Those with it are seen in the transcript,
	// unless the daemon begins to follow it only now, when the result is there already.
	Triggers []hookTrigger `json:"triggers,omitempty"`
	Ends     bool          `json:"ends,omitempty"`
	// Event is the state of a checkpoint where the daemon may not read the transcript.
	Event json.RawMessage `json:"event"`
}

type hookTrigger struct {
	Cause    checkpoint.Cause `json:"cause"`
	Message  string           `json:"message"`
	Detail   hookDetail       `json:"detail"`
	State    json.RawMessage  `json:"state,omitempty"`
	Followed bool             `json:"followed,omitempty"`
	InFile   bool             `json:"in_file,omitempty"` // the result was in the transcript when the hook ran
}

// hookDetail becomes context.trigger_detail. ID is the tool call's. The daemon takes one
// checkpoint for an ID, or without one for an EventID, however often it is told.
type hookDetail struct {
	Event   string    `json:"event"`
	EventID string    `json:"hook_event_id"`
	ID      string    `json:"id,omitempty"`
	Tool    string    `json:"tool,omitempty"`
	Line    int       `json:"line,omitempty"`
	Path    string    `json:"path,omitempty"`
	CWD     string    `json:"cwd,omitempty"`
	At      time.Time `json:"at"`
}

// hookAuto is the partial AutoConfig of a session that a hook makes: the daemon puts it
// on the `auto:` of its configuration.
type hookAuto struct {
	OnToolCall bool               `json:"on_tool_call"`
	Watch      []checkpoint.Watch `json:"watch"`
	Capture    checkpoint.Capture `json:"capture"`
}

// plan makes the report of an event. base is the configuration's `auto:`, whose watches
// and captures stay beside the transcript's.
func (e *hookEvent) plan(id string, now time.Time, socket string, base checkpoint.AutoConfig) hookReport {
	r := hookReport{ID: id, At: now.UTC(), Socket: socket, Ends: e.kind == hookEnd}
	file := readTranscript(e)
	capture := base.Capture
	capture.Git = true
	capture.Env, capture.Files = orEmpty(capture.Env), orEmpty(capture.Files)
	if e.agent.format == "" && e.transcript != "" {
		capture.Files = append(slices.Clone(capture.Files), e.transcript)
	}
	r.Watch = e.watches(file)
	auto, err := json.Marshal(hookAuto{OnToolCall: true, Watch: append(orEmpty(slices.Clone(base.Watch)), r.Watch...), Capture: capture})
	if err != nil { // strings and numbers
		panic(err)
	}
	where := e.agent.name
	if e.cwd != "" {
		where += " in " + shortText(e.cwd, "")
	}
	r.Session = rpc.SessionCreateParams{Name: where, Key: e.key(), Labels: map[string]string{"agent": e.agent.name}, Auto: auto}
	if e.cwd != "" {
		r.Session.Labels["cwd"] = e.cwd
	}
	detail := hookDetail{Event: e.name, EventID: id, CWD: e.cwd, At: r.At}
	r.Event = e.state()
	var state json.RawMessage
	if !file.there {
		state = r.Event
	}
	if cause, message := e.trigger(); cause != "" {
		r.Triggers = append(r.Triggers, hookTrigger{Cause: cause, Message: message, Detail: detail, State: state})
	}
	if e.kind == hookTool || e.kind == hookBatch {
		for i, c := range e.calls {
			r.Triggers = append(r.Triggers, e.toolTrigger(c, i, file, detail, state))
		}
	}
	return r
}

func (e *hookEvent) toolTrigger(c hookCall, i int, file transcriptFile, detail hookDetail, state json.RawMessage) hookTrigger {
	t := hookTrigger{Cause: checkpoint.CauseToolCall, Message: shortText(c.tool, "a tool"), Detail: detail, State: state}
	t.Detail.Tool, t.Detail.ID = c.tool, c.id
	if i > 0 {
		t.Detail.EventID += "-" + strconv.Itoa(i)
	}
	failed := e.failed
	if seen, ok := file.results[c.id]; ok {
		t.InFile, failed, t.Detail.Line, t.Detail.Path = true, seen.failed, seen.line, e.transcript
	}
	if failed {
		t.Cause, t.Message = checkpoint.CauseError, shortText(c.tool+": "+e.words, "a tool failed")
	}
	t.Followed = file.there && e.agent.format != ""
	return t
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// watches are the transcripts to follow: the session's own, and those of its sub-agents,
// which Claude Code keeps in a folder beside it.
func (e *hookEvent) watches(file transcriptFile) []checkpoint.Watch {
	if e.transcript == "" || e.agent.format == "" {
		return nil
	}
	own := checkpoint.DefaultWatch()
	own.Path, own.Format = e.transcript, e.agent.format
	// What was called before anyone watched is history: a long one would make a checkpoint
	// of each of its calls, all with the same file.
	own.FromStart = e.startup || len(file.results) == 0
	watches := []checkpoint.Watch{own}
	if e.agent.format == transcript.ClaudeCode {
		sub := checkpoint.DefaultWatch()
		sub.Path = filepath.Join(strings.TrimSuffix(e.transcript, filepath.Ext(e.transcript)), "subagents", "*.jsonl")
		sub.Format, sub.FromStart = e.agent.format, own.FromStart
		watches = append(watches, sub)
	} else if e.subagent != "" {
		sub := own
		sub.Path = e.subagent
		watches = append(watches, sub)
	}
	return watches
}

// transcriptFile is what a hook looks up in the transcript.
type transcriptFile struct {
	there   bool
	results map[string]seenResult
}

type seenResult struct {
	failed bool
	line   int
}

// lookBytes is as much of a transcript as a hook reads, from its end: a few milliseconds' work.
const lookBytes = 2 << 20

// readTranscript looks for the results near the end of a transcript. Lines are numbered
// only when all of it was read.
func readTranscript(e *hookEvent) transcriptFile {
	if e.transcript == "" {
		return transcriptFile{}
	}
	f, err := os.Open(e.transcript)
	if err != nil {
		return transcriptFile{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return transcriptFile{}
	}
	found := transcriptFile{there: true, results: map[string]seenResult{}}
	parser, err := transcript.New(e.agent.format, nil)
	if err != nil || e.kind != hookTool && e.kind != hookBatch && info.Size() > lookBytes {
		return found
	}
	from := max(0, info.Size()-lookBytes)
	data, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, from, info.Size()-from), lookBytes))
	if err != nil {
		return found
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		for _, c := range parser.Line(n, bytes.TrimSuffix(line, []byte("\n"))) {
			s := seenResult{failed: c.Cause == checkpoint.CauseError}
			if from == 0 {
				s.line = n
			}
			found.results[c.ID] = s
		}
	}
	return found
}

// deliver tells the daemon. It may be told again: the daemon may have taken in what a hook
// gave up waiting for, and knows an event by its id.
func (r *hookReport) deliver(ctx context.Context, c *client.Client) error {
	s, unread, err := r.session(ctx, c)
	if err != nil {
		return err
	}
	followed := s.Existing
	if s.Existing && s.Auto != nil && !unread { // nil: somebody disabled it
		added, err := r.addWatches(ctx, c, &s.Session)
		if unread = errors.Is(err, checkpoint.ErrPermissionDenied); err != nil && !unread {
			return err
		}
		followed = !added
	}
	for i := range r.Triggers {
		t := r.Triggers[i]
		if t.Followed && !unread && (followed || !t.InFile) {
			continue
		}
		if unread {
			t.State = r.Event
		}
		if err := t.fire(ctx, c, &s.Session); err != nil {
			return err
		}
	}
	ref := client.ByID(s.ID)
	if r.Ends {
		if _, err := c.Call(ctx, "session.detach", rpc.SessionParams{SessionRef: ref}); err != nil && !errors.Is(err, checkpoint.ErrNotFound) && !errors.Is(err, checkpoint.ErrInvalidState) {
			return err
		}
	}
	return nil
}

// session opens the report's session. unread says that the daemon is another user's: it
// reads no files for this one, so all is told by hooks alone.
func (r *hookReport) session(ctx context.Context, c *client.Client) (s *rpc.SessionCreateResult, unread bool, err error) {
	s, err = c.CreateSession(ctx, &r.Session)
	if unread = errors.Is(err, checkpoint.ErrPermissionDenied); unread {
		plain := r.Session
		plain.Auto = json.RawMessage(`{"on_tool_call":true}`)
		s, err = c.CreateSession(ctx, &plain)
	}
	if err == nil && s.Status == checkpoint.Closed {
		_, err = c.ReopenSession(ctx, client.ByID(s.ID))
	}
	return s, unread, err
}

// addWatches makes the daemon follow what the session does not follow yet, such as the
// new file of a session that was resumed.
func (r *hookReport) addWatches(ctx context.Context, c *client.Client, s *checkpoint.Session) (bool, error) {
	auto, added := *s.Auto, false
	for _, w := range r.Watch {
		if !slices.ContainsFunc(auto.Watch, func(have checkpoint.Watch) bool { return have.Path == w.Path }) {
			auto.Watch, added = append(slices.Clone(auto.Watch), w), true
		}
	}
	if !added {
		return false, nil
	}
	config, err := json.Marshal(auto)
	if err != nil {
		return false, err
	}
	_, err = c.EnableAuto(ctx, client.ByID(s.ID), config)
	return true, err
}

func (t *hookTrigger) fire(ctx context.Context, c *client.Client, s *checkpoint.Session) error {
	detail, err := json.Marshal(t.Detail)
	if err != nil {
		return err
	}
	p := rpc.AutoTriggerParams{SessionRef: client.ByID(s.ID), Cause: t.Cause, Message: t.Message, Detail: detail, State: t.State}
	got, err := c.Trigger(ctx, &p)
	if err == nil && got.Skipped == "not_enabled" && t.Cause == checkpoint.CauseError && t.Detail.Tool != "" {
		p.Cause = checkpoint.CauseToolCall // on_error is off: a failed call is a call all the same
		_, err = c.Trigger(ctx, &p)
	}
	return err
}

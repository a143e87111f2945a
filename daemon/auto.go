package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// toolCallID gives a finished tool call its checkpoint's id, so that a hook that tells of
// a call and a transcript that shows it make one checkpoint, and a crash in between none
// twice. It is a version 5 UUID in the session's own name space.
func toolCallID(session checkpoint.ID, call string) checkpoint.ID {
	return checkpoint.ID(uuid.NewSHA1(uuid.UUID(session), []byte("tool_call:"+call)))
}

// take makes the checkpoint that the engine asks for. The state comes from where it can
// be had: the request, the attached agent, the last put_state, the files; else there is none.
func (s *service) take(ctx context.Context, r autotrigger.Request) (autotrigger.Outcome, error) {
	start := time.Now()
	sess, err := s.store.Session(ctx, storage.Ref{ID: r.Session})
	if err != nil {
		return autotrigger.Outcome{}, err
	}
	if sess.Status == checkpoint.Closed {
		return autotrigger.Outcome{}, checkpoint.Errorf(checkpoint.KindInvalidState, "session %s is closed: session.reopen opens it again", sess.ID)
	}
	c := &storage.NewCheckpoint{
		SessionID: sess.ID, Message: r.Message, Trigger: r.Cause.Trigger(), Cause: r.Cause, Tags: []string{},
	}
	if r.ToolCallID != "" {
		c.ID = toolCallID(sess.ID, r.ToolCallID)
		if sum, err := s.store.Summary(ctx, c.ID); err == nil {
			return autotrigger.Outcome{CheckpointID: sum.ID, Sequence: sum.Sequence, Timestamp: sum.Timestamp, Existing: true}, nil
		}
	}
	from, skip, err := s.stateOfTrigger(ctx, sess, r, c)
	if err != nil || skip {
		return autotrigger.Outcome{Skipped: autotrigger.Unchanged}, err
	}
	for _, f := range r.Files {
		c.Files = append(c.Files, storage.FileContent{Path: f.Path, Mode: f.Mode, ModifiedAt: f.ModifiedAt, Content: f.Content})
	}
	peer := rpc.PeerFrom(ctx)
	if ag, ok := s.agents.of(sess.ID); ok {
		peer = ag.peer
	}
	c.Context = s.contextOf(ctx, sess, peer, from.source)
	c.Context.Detail = r.Detail
	got, err := s.submitWith(ctx, c, from, r.AutoState)
	if err != nil {
		if r.ToolCallID != "" && errors.Is(err, checkpoint.ErrConflict) {
			// The same call was told of by hook and transcript at once: one of them was first.
			if sum, sumErr := s.store.Summary(ctx, toolCallID(sess.ID, r.ToolCallID)); sumErr == nil {
				return autotrigger.Outcome{CheckpointID: sum.ID, Sequence: sum.Sequence, Timestamp: sum.Timestamp, Existing: true}, nil
			}
		}
		return autotrigger.Outcome{}, err
	}
	if len(r.Problems) > 0 {
		s.store.LogEvent(checkpoint.Event{
			Type: checkpoint.EventAutoFailed, SessionID: sess.ID, CheckpointID: got.CheckpointID, Cause: r.Cause,
			Timestamp: time.Now().UTC(), Problem: strings.Join(r.Problems, "; "),
		})
	}
	s.metrics.createSeconds.observe(time.Since(start))
	s.retain(ctx, sess)
	return autotrigger.Outcome{CheckpointID: got.CheckpointID, Sequence: got.Sequence, Timestamp: got.Timestamp, Existing: got.Existing, Saved: c.AutoState != nil && !got.Existing}, nil
}

// stateOfTrigger finds the state and decides whether it is worth a checkpoint.
func (s *service) stateOfTrigger(ctx context.Context, sess checkpoint.Session, r autotrigger.Request, c *storage.NewCheckpoint) (stateFrom, bool, error) {
	from, rev, err := s.findState(ctx, r, c)
	if err != nil {
		return from, false, err
	}
	if r.SkipUnchanged && sess.Last != nil {
		same, err := s.unchanged(ctx, sess.ID, from.source, c.State, r)
		if err != nil {
			return from, false, err
		}
		if same {
			if from.source == checkpoint.StatePut && rev != 0 {
				// The newest checkpoint holds it already.
				s.pending.taken(sess.ID, sess.Last.ID)
				return from, true, s.pending.drop(sess.ID, rev)
			}
			return from, true, nil
		}
	}
	if from.source == checkpoint.StatePut && rev != 0 {
		from.taken, from.revision = c.State, rev
		return from, false, s.pending.drop(sess.ID, rev)
	}
	return from, false, nil
}

// findState tries the sources in their order; the revision is that of a waiting put_state.
func (s *service) findState(ctx context.Context, r autotrigger.Request, c *storage.NewCheckpoint) (stateFrom, uint64, error) {
	if r.State != nil {
		c.State = r.State
		return stateFrom{source: checkpoint.StateGiven, revision: s.pending.revision(r.Session)}, 0, nil
	}
	if state, ok := s.askAgent(ctx, r.Session, r.Cause); ok {
		c.State = state
		return stateFrom{source: checkpoint.StateAttached}, 0, nil
	}
	state, rev, ok, err := s.pending.peek(r.Session)
	if err != nil {
		return stateFrom{}, 0, err
	}
	if ok {
		c.State = state
		return stateFrom{source: checkpoint.StatePut}, rev, nil
	}
	if last := s.pending.lastTaken(r.Session); !last.IsZero() {
		// Nothing was put since the checkpoint that took it: it is the agent's state still.
		if st, err := s.store.Get(ctx, last); err == nil {
			c.State = st.State
			return stateFrom{source: checkpoint.StatePut}, 0, nil
		}
	}
	c.State = emptyState
	if len(r.Files) > 0 {
		return stateFrom{source: checkpoint.StateFiles}, 0, nil
	}
	return stateFrom{source: checkpoint.StateNone}, 0, nil
}

// unchanged compares what would be saved with the newest checkpoint, by content.
func (s *service) unchanged(ctx context.Context, id checkpoint.ID, source checkpoint.StateSource, state []byte, r autotrigger.Request) (bool, error) {
	newest, err := s.store.Latest(ctx, id)
	if errors.Is(err, checkpoint.ErrCorrupt) || err == nil && newest == nil {
		return false, nil // nothing sound to compare with
	}
	if err != nil {
		return false, err
	}
	if source == checkpoint.StateNone {
		return true, nil // no state and no files: nothing that the newest one lacks
	}
	// With files alone, the state of the newest checkpoint says nothing about them.
	if source != checkpoint.StateFiles && !bytes.Equal(newest.State, state) {
		return false, nil
	}
	return sameFiles(newest.Raw, r.Files)
}

// sameFiles compares captured files with those that a stored checkpoint names.
func sameFiles(raw []byte, files []autotrigger.File) (bool, error) {
	var old struct {
		Context struct {
			Files []checkpoint.File `json:"files"`
		} `json:"context"`
	}
	if err := json.Unmarshal(raw, &old); err != nil {
		return false, checkpoint.Errorf(checkpoint.KindInternal, "reading the newest checkpoint's files: %w", err)
	}
	if len(old.Context.Files) != len(files) {
		return false, nil
	}
	sums := map[string]string{}
	for _, f := range old.Context.Files {
		sums[f.Path] = f.SHA256
	}
	for _, f := range files {
		if sums[f.Path] != hexSHA256(f.Content) {
			return false, nil
		}
	}
	return true, nil
}

// automate hands a session to the engine. A watch that could not be armed is reported in
// an event and tried again by the engine; the session stands.
func (s *service) automate(ctx context.Context, sess checkpoint.Session) error {
	saved, err := s.loadAutoState(ctx, sess.ID)
	if err != nil {
		return err
	}
	if err := s.auto.Set(ctx, sess.ID, s.allowedAuto(sess), newestTime(sess), saved); err != nil {
		s.log.WarnContext(ctx, "a watch could not be armed and is tried again", "session", sess.ID, "err", err)
		s.store.LogEvent(checkpoint.Event{
			Type: checkpoint.EventAutoFailed, SessionID: sess.ID, Timestamp: time.Now().UTC(), Problem: err.Error(),
		})
	}
	return nil
}

// allowedAuto leaves out what makes the daemon read files where the session is another
// user's: an import may bring what auto.enable refuses.
func (s *service) allowedAuto(sess checkpoint.Session) *checkpoint.AutoConfig {
	if sess.Auto == nil || sess.OwnerUID == s.uid || sess.OwnerUID == 0 {
		return sess.Auto
	}
	cfg := *sess.Auto
	cfg.Watch, cfg.Capture.Files = nil, nil
	return &cfg
}

// newestTime is that of the session's newest checkpoint; zero for none.
func newestTime(sess checkpoint.Session) time.Time {
	if sess.Last == nil {
		return time.Time{}
	}
	return sess.Last.Timestamp
}

// report counts what the engine decided, and tells of failures.
func (s *service) report(t autotrigger.Trigger, out autotrigger.Outcome, err error) {
	switch {
	case err != nil:
		s.metrics.autoFailed.Add(1)
		s.log.Warn("an automatic checkpoint failed", "session", t.Session, "cause", t.Cause, "err", err)
		if !errors.Is(err, checkpoint.ErrNotFound) {
			s.store.LogEvent(checkpoint.Event{
				Type: checkpoint.EventAutoFailed, SessionID: t.Session, Cause: t.Cause, Timestamp: time.Now().UTC(), Problem: err.Error(),
			})
		}
	case out.Skipped != "":
		s.metrics.autoSkipped.Add(1)
	case !out.Existing:
		s.metrics.autoTaken.Add(1)
	}
}

// AutoEnable starts or changes a session's automation.
func (s *service) AutoEnable(ctx context.Context, p *rpc.AutoEnableParams) (*checkpoint.AutoConfig, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, sess); err != nil {
		return nil, err
	}
	cfg, err := s.decodeAuto(ctx, "config", p.Config)
	if err != nil {
		return nil, err
	}
	sess, err = s.store.ChangeSession(context.WithoutCancel(ctx), sess.ID, storage.SessionChange{Auto: &cfg})
	if err != nil {
		return nil, err
	}
	if err := s.automate(ctx, sess); err != nil {
		return nil, err
	}
	return s.whole(cfg), nil
}

// AutoDisable ends a session's automation and keeps its counts.
func (s *service) AutoDisable(ctx context.Context, p *rpc.SessionParams) (*rpc.AutoDisableResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	sess, err = s.store.ChangeSession(context.WithoutCancel(ctx), sess.ID, storage.SessionChange{Auto: ptr[*checkpoint.AutoConfig](nil)})
	if err != nil {
		return nil, err
	}
	return &rpc.AutoDisableResult{Disabled: true}, s.automate(ctx, sess)
}

// AutoGet tells how a session's automation stands.
func (s *service) AutoGet(ctx context.Context, p *rpc.SessionParams) (*rpc.AutoGetResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	st := s.auto.Status(sess.ID)
	r := &rpc.AutoGetResult{
		Config: s.whole(sess.Auto), NextRuns: append([]time.Time{}, st.NextRuns...), LastError: st.LastError, Taken: st.Taken, Skipped: st.Skipped,
	}
	if len(r.NextRuns) > 0 {
		r.NextRun = &r.NextRuns[0]
	}
	if !st.LastRun.IsZero() {
		r.LastRun = &st.LastRun
	}
	return r, nil
}

// AutoTrigger tells the session's automation that something happened.
func (s *service) AutoTrigger(ctx context.Context, p *rpc.AutoTriggerParams) (*rpc.AutoTriggerResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, sess); err != nil {
		return nil, err
	}
	if !slices.Contains(checkpoint.Causes, p.Cause) {
		return nil, checkpoint.Invalid("cause", "%.64q is no cause: rpc.discover lists them", string(p.Cause))
	}
	if err := s.checkState("state", p.State); err != nil {
		return nil, err
	}
	if len(p.Detail) > 0 {
		if limit := s.config().Limits.MetadataBytes; int64(len(p.Detail)) > limit {
			return nil, tooLarge("detail", len(p.Detail), limit, "limits.metadata_bytes")
		}
	}
	if err := s.ensureAutomated(ctx, sess); err != nil {
		return nil, err
	}
	out, err := s.auto.Trigger(context.WithoutCancel(ctx), autotrigger.Trigger{
		Session: sess.ID, Cause: p.Cause, Message: p.Message, Detail: p.Detail, State: p.State, Newest: newestTime(sess),
	})
	if err != nil {
		return nil, err
	}
	return &rpc.AutoTriggerResult{CheckpointID: out.CheckpointID, Sequence: out.Sequence, Skipped: string(out.Skipped)}, nil
}

// ensureAutomated is for a session that another connection made a moment ago and is about
// to hand to the engine: what is told of it now counts already. Two hooks of one agent
// that run at once do that.
func (s *service) ensureAutomated(ctx context.Context, sess checkpoint.Session) error {
	if sess.Auto == nil || sess.Status != checkpoint.Active || s.auto.Automated(sess.ID) {
		return nil
	}
	if err := s.automate(ctx, sess); err != nil {
		return err
	}
	now, err := s.store.Session(ctx, storage.Ref{ID: sess.ID})
	if err != nil || now.Auto != nil {
		return err
	}
	return s.automate(ctx, now) // disabled in between
}

// rawMember says that a JSON object has a member, at a path of names.
func rawMember(obj []byte, path ...string) bool {
	for _, name := range path {
		if len(obj) == 0 || obj[0] != '{' {
			return false
		}
		if obj = rawjson.Member(obj, name); obj == nil {
			return false
		}
	}
	return true
}

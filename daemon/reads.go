package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

func wireStored(st *storage.Stored) rpc.Stored {
	if st == nil {
		return nil
	}
	return &rpc.StoredCheckpoint{Raw: st.Raw, State: st.State, Checksum: st.Summary.Checksum, Annotations: st.Annotations}
}

// get reads a checkpoint that the caller may see.
func (s *service) get(ctx context.Context, id checkpoint.ID) (*storage.Stored, error) {
	if _, err := s.summary(ctx, id); err != nil {
		return nil, err
	}
	st, err := s.store.Get(ctx, id)
	s.noteDamage(ctx, err)
	return st, err
}

// CheckpointGet returns a checkpoint with its annotations.
func (s *service) CheckpointGet(ctx context.Context, p *rpc.CheckpointParams) (rpc.Stored, error) {
	st, err := s.get(ctx, p.CheckpointID)
	if err != nil {
		return nil, err
	}
	return wireStored(st), nil
}

// CheckpointFile returns one captured file.
func (s *service) CheckpointFile(ctx context.Context, p *rpc.CheckpointFileParams) (*rpc.CheckpointFileResult, error) {
	if _, err := s.summary(ctx, p.CheckpointID); err != nil {
		return nil, err
	}
	f, content, err := s.store.ReadFile(ctx, p.CheckpointID, p.Path)
	if err != nil {
		return nil, err
	}
	r := &rpc.CheckpointFileResult{Path: f.Path, Mode: f.Mode, Bytes: f.Bytes, SHA256: f.SHA256}
	if utf8.Valid(content) {
		r.Content = ptr(string(content))
	} else {
		r.ContentBase64 = &content
	}
	return r, nil
}

// CheckpointLatest returns the session's newest checkpoint, or null.
func (s *service) CheckpointLatest(ctx context.Context, p *rpc.SessionParams) (rpc.Stored, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	st, err := s.store.Latest(ctx, sess.ID)
	if err != nil {
		s.noteDamage(ctx, err)
		return nil, err
	}
	return wireStored(st), nil
}

// CheckpointAt returns the checkpoint that was the newest at a time or number.
func (s *service) CheckpointAt(ctx context.Context, p *rpc.CheckpointAtParams) (rpc.Stored, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	var point storage.Point
	switch {
	case (p.Time == nil) == (p.Sequence == nil):
		return nil, checkpoint.Invalid("time", "give exactly one of time and sequence_number")
	case p.Time != nil && p.Time.IsZero():
		return nil, nil // nothing was made before the first instant there is
	case p.Time != nil:
		point.Time = *p.Time
	default:
		point.Sequence = *p.Sequence
	}
	st, err := s.store.At(ctx, sess.ID, point)
	if err != nil {
		s.noteDamage(ctx, err)
		return nil, err
	}
	return wireStored(st), nil
}

// CheckpointList lists summaries.
func (s *service) CheckpointList(ctx context.Context, p *rpc.CheckpointListParams) (*rpc.CheckpointListResult, error) {
	limit, err := pageLimit(p.Limit)
	if err != nil {
		return nil, err
	}
	id, err := s.optionalSession(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	q := storage.Query{
		SessionID: id, Owner: s.owner(ctx), Tags: p.Tags, AnyTag: p.AnyTag, Trigger: p.Trigger, Cause: p.Cause,
		Text: p.Text, Metadata: p.Metadata, Descending: p.Order == "desc", Limit: limit, Cursor: p.Cursor,
	}
	if p.Order != "" && p.Order != "asc" && p.Order != "desc" {
		return nil, checkpoint.Invalid("order", "must be asc or desc")
	}
	empty := p.ToSequence != nil && *p.ToSequence == 0 || p.Until != nil && p.Until.IsZero()
	if p.FromSequence != nil {
		q.From = *p.FromSequence
	}
	if p.ToSequence != nil {
		q.To = *p.ToSequence
	}
	if p.Since != nil {
		q.Since = *p.Since
	}
	if p.Until != nil {
		q.Until = *p.Until
	}
	r := &rpc.CheckpointListResult{Checkpoints: []json.RawMessage{}}
	if empty {
		return r, nil // numbers begin at 1: the store takes zero for no bound
	}
	page, err := s.store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	if page.Summaries != nil {
		r.Checkpoints = page.Summaries
	}
	r.NextCursor = page.Next
	return r, nil
}

// CheckpointRestore verifies a checkpoint and makes it what the session grows from.
func (s *service) CheckpointRestore(ctx context.Context, p *rpc.RestoreParams) (rpc.Stored, error) {
	start := time.Now()
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	move := p.MoveHead == nil || *p.MoveHead
	if move {
		if err := s.notDraining(ctx); err != nil {
			return nil, err
		}
	}
	st, err := s.store.Restore(context.WithoutCancel(ctx), sess.ID, p.CheckpointID, move)
	if err != nil {
		s.noteDamage(ctx, err)
		return nil, err
	}
	if move {
		if _, err := s.pending.put(sess.ID, append([]byte(nil), st.State...)); err != nil {
			return nil, err
		}
	}
	s.metrics.restores.Add(1)
	s.metrics.restoreSeconds.observe(time.Since(start))
	return wireStored(st), nil
}

// CheckpointFork makes a session that begins with a copy.
func (s *service) CheckpointFork(ctx context.Context, p *rpc.ForkParams) (*checkpoint.Session, error) {
	if err := s.notDraining(ctx); err != nil {
		return nil, err
	}
	if _, err := s.summary(ctx, p.CheckpointID); err != nil {
		return nil, err
	}
	n := storage.NewSession{Key: p.Key, Name: p.Name, OwnerUID: s.uid}
	if peer := rpc.PeerFrom(ctx); peer != nil {
		n.OwnerUID = peer.UID()
	}
	sess, err := s.store.Fork(context.WithoutCancel(ctx), p.CheckpointID, n)
	if err != nil {
		s.noteDamage(ctx, err)
		return nil, err
	}
	s.metrics.sessionsCreated.Add(1)
	s.metrics.creates.Add(1)
	return &sess, nil
}

// CheckpointDelete removes one checkpoint.
func (s *service) CheckpointDelete(ctx context.Context, p *rpc.CheckpointParams) (*rpc.DeleteResult, error) {
	if _, err := s.summary(ctx, p.CheckpointID); err != nil {
		return nil, err
	}
	if err := s.store.Delete(context.WithoutCancel(ctx), p.CheckpointID); err != nil {
		return nil, err
	}
	return &rpc.DeleteResult{Deleted: true}, nil
}

// CheckpointCompact removes what no rule keeps.
func (s *service) CheckpointCompact(ctx context.Context, p *rpc.CompactParams) (*rpc.CompactResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if p.Retention.IsZero() {
		return nil, checkpoint.Invalid("keep_recent", "give at least one rule: keep_recent, preserve_tags, keep_manual, keep_tagged, max_age_seconds, keep_hourly or keep_daily")
	}
	c, err := s.store.Compact(context.WithoutCancel(ctx), sess.ID, p.Retention, storage.CompactOptions{DryRun: p.DryRun, Now: time.Now()})
	if err != nil {
		return nil, err
	}
	if c.DeletedIDs == nil {
		c.DeletedIDs = []checkpoint.ID{}
	}
	return &rpc.CompactResult{Deleted: c.Deleted, Remaining: c.Remaining, DeletedIDs: c.DeletedIDs}, nil
}

// CheckpointAnnotate adds a note.
func (s *service) CheckpointAnnotate(ctx context.Context, p *rpc.AnnotateParams) (*checkpoint.Annotation, error) {
	if _, err := s.summary(ctx, p.CheckpointID); err != nil {
		return nil, err
	}
	severity := p.Severity
	switch severity {
	case "":
		severity = checkpoint.Info
	case checkpoint.Info, checkpoint.Warning, checkpoint.Critical:
	default:
		return nil, checkpoint.Invalid("severity", "must be info, warning or critical")
	}
	a, err := s.store.Annotate(context.WithoutCancel(ctx), p.CheckpointID, p.Note, severity)
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// CheckpointHypothesisState returns one member of the state, or null.
func (s *service) CheckpointHypothesisState(ctx context.Context, p *rpc.CheckpointParams) (*rpc.HypothesisStateResult, error) {
	st, err := s.get(ctx, p.CheckpointID)
	if err != nil {
		return nil, err
	}
	v := []byte("null")
	if len(st.State) > 0 && st.State[0] == '{' {
		if got := rawjson.Member(st.State, "hypothesis_state"); got != nil {
			v = got
		}
	}
	return &rpc.HypothesisStateResult{HypothesisState: v}, nil
}

// noteDamage counts damage that a read found; the store has told of it in an event.
func (s *service) noteDamage(ctx context.Context, err error) {
	if errors.Is(err, checkpoint.ErrCorrupt) {
		s.metrics.corrupt.Add(1)
		s.log.ErrorContext(ctx, "damage was found: daemon.health and checkpoint.validate_all tell more", "err", err)
	}
}

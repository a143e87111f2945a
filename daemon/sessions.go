package daemon

import (
	"context"
	"encoding/json"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// SessionCreate makes a session or returns the one that is there.
func (s *service) SessionCreate(ctx context.Context, p *rpc.SessionCreateParams) (*rpc.SessionCreateResult, error) {
	if err := s.notDraining(ctx); err != nil {
		return nil, err
	}
	n := storage.NewSession{ID: p.SessionID, Key: p.Key, Name: p.Name, Labels: p.Labels, OwnerUID: s.uid}
	if peer := rpc.PeerFrom(ctx); peer != nil {
		n.OwnerUID = peer.UID()
	}
	if len(p.Auto) > 0 && string(p.Auto) != "null" {
		cfg, err := s.decodeAuto(ctx, "auto", p.Auto)
		if err != nil {
			return nil, err
		}
		n.Auto = cfg
	}
	sess, existing, err := s.store.CreateSession(context.WithoutCancel(ctx), n)
	if err != nil {
		return nil, err
	}
	if existing {
		if o := s.owner(ctx); o != nil && sess.OwnerUID != *o {
			return nil, checkpoint.Errorf(checkpoint.KindConflict, "that key or session_id is taken: choose another")
		}
	} else {
		s.metrics.sessionsCreated.Add(1)
		if n.Auto != nil {
			if err := s.automate(ctx, sess); err != nil {
				return nil, err
			}
		}
	}
	return &rpc.SessionCreateResult{Session: s.shown(sess), Existing: existing}, nil
}

// decodeAuto reads a partial AutoConfig onto the configuration file's own. watch and
// capture.files make the daemon read files, so only who may write its configuration may
// give them.
func (s *service) decodeAuto(ctx context.Context, field string, raw json.RawMessage) (*checkpoint.AutoConfig, error) {
	base := s.config().Auto
	cfg, err := autotrigger.Decode(base, raw, field+".")
	if err != nil {
		return nil, err
	}
	if !s.isOwn(ctx) {
		for _, f := range []struct {
			name  string
			given bool
		}{{"watch", rawMember(raw, "watch")}, {"capture.files", rawMember(raw, "capture", "files")}} {
			if f.given {
				e := checkpoint.Errorf(checkpoint.KindPermissionDenied,
					"%s makes the daemon read files: only the daemon's own user or its configuration file may set it", f.name)
				e.Field = field + "." + f.name
				return nil, e
			}
		}
		cfg.Watch, cfg.Capture.Files = []checkpoint.Watch{}, []string{}
	}
	if err := s.auto.CheckPaths(cfg, field+"."); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// SessionGet returns a session.
func (s *service) SessionGet(ctx context.Context, p *rpc.SessionParams) (*checkpoint.Session, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	return ptr(s.shown(sess)), nil
}

// SessionList lists the caller's sessions.
func (s *service) SessionList(ctx context.Context, p *rpc.SessionListParams) (*rpc.SessionListResult, error) {
	limit, err := pageLimit(p.Limit)
	if err != nil {
		return nil, err
	}
	page, err := s.store.Sessions(ctx, storage.SessionQuery{
		Status: p.Status, Labels: p.Labels, Owner: s.owner(ctx), Limit: limit, Cursor: p.Cursor,
	})
	if err != nil {
		return nil, err
	}
	list := make([]checkpoint.Session, 0, len(page.Sessions))
	for _, sess := range page.Sessions {
		list = append(list, s.shown(sess))
	}
	return &rpc.SessionListResult{Sessions: list, NextCursor: page.Next}, nil
}

// pageLimit checks a limit; 0 was left out.
func pageLimit(limit int) (int, error) {
	if limit == 0 {
		return 100, nil
	}
	if limit < 1 || limit > 1000 {
		return 0, checkpoint.Invalid("limit", "%d is not between 1 and 1000", limit)
	}
	return limit, nil
}

// SessionClose ends a session's automation and refuses creates from now on.
func (s *service) SessionClose(ctx context.Context, p *rpc.SessionParams) (*checkpoint.Session, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	s.agents.detach(sess.ID)
	sess, err = s.store.ChangeSession(context.WithoutCancel(ctx), sess.ID, storage.SessionChange{Status: ptr(checkpoint.Closed)})
	if err != nil {
		return nil, err
	}
	s.auto.Remove(sess.ID)
	return ptr(s.shown(sess)), nil
}

// SessionReopen makes a closed session active again, its automation too.
func (s *service) SessionReopen(ctx context.Context, p *rpc.SessionParams) (*checkpoint.Session, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if err := s.notDraining(ctx); err != nil {
		return nil, err
	}
	was := sess.Status
	sess, err = s.store.ChangeSession(context.WithoutCancel(ctx), sess.ID, storage.SessionChange{Status: ptr(checkpoint.Active)})
	if err != nil {
		return nil, err
	}
	if was != checkpoint.Active && sess.Auto != nil {
		if err := s.automate(ctx, sess); err != nil {
			return nil, err
		}
	}
	return ptr(s.shown(sess)), nil
}

// SessionDelete removes a session and its checkpoints.
func (s *service) SessionDelete(ctx context.Context, p *rpc.SessionParams) (*rpc.SessionDeleteResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	s.agents.detach(sess.ID)
	s.auto.Remove(sess.ID)
	n, err := s.store.DeleteSession(context.WithoutCancel(ctx), sess.ID)
	if err != nil {
		return nil, err
	}
	if err := s.pending.forget(sess.ID); err != nil {
		s.log.WarnContext(ctx, "a state kept aside was not removed", "session", sess.ID, "err", err)
	}
	return &rpc.SessionDeleteResult{Deleted: n}, nil
}

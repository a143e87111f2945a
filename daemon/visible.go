package daemon

import (
	"context"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// owner is the uid whose sessions the caller sees; nil sees all (root, the daemon's own
// uid, and the daemon itself).
func (s *service) owner(ctx context.Context) *uint32 {
	p := rpc.PeerFrom(ctx)
	if p == nil {
		return nil
	}
	uid := p.UID()
	if uid == 0 || uid == s.uid {
		return nil
	}
	return &uid
}

// isOwn says that the caller may do what the configuration file may: its uid is the
// daemon's. Root may too; it could write the file.
func (s *service) isOwn(ctx context.Context) bool { return s.owner(ctx) == nil }

func noSession(ref rpc.SessionRef) error {
	if ref.Key != "" {
		return checkpoint.Errorf(checkpoint.KindNotFound, "there is no session with the key %.128q: session.list shows those there are", ref.Key)
	}
	return checkpoint.Errorf(checkpoint.KindNotFound, "there is no session %s: session.list shows those there are", ref.SessionID)
}

func noCheckpoint(id checkpoint.ID) error {
	return checkpoint.Errorf(checkpoint.KindNotFound, "there is no checkpoint %s: checkpoint.list shows those there are", id)
}

// session finds the session that ref names, if the caller may see it.
func (s *service) session(ctx context.Context, ref rpc.SessionRef) (checkpoint.Session, error) {
	switch {
	case ref.SessionID.IsZero() && ref.Key == "":
		return checkpoint.Session{}, checkpoint.Invalid("session_id", "name the session by session_id or by key")
	case !ref.SessionID.IsZero() && ref.Key != "":
		return checkpoint.Session{}, checkpoint.Invalid("key", "give session_id or key, not both")
	}
	sess, err := s.store.Session(ctx, storage.Ref{ID: ref.SessionID, Key: ref.Key})
	if err != nil {
		return checkpoint.Session{}, err
	}
	if o := s.owner(ctx); o != nil && sess.OwnerUID != *o {
		return checkpoint.Session{}, noSession(ref)
	}
	return sess, nil
}

// optionalSession is session for methods where no name means all of them: the zero id.
func (s *service) optionalSession(ctx context.Context, ref rpc.SessionRef) (checkpoint.ID, error) {
	if ref == (rpc.SessionRef{}) {
		return checkpoint.ID{}, nil
	}
	sess, err := s.session(ctx, ref)
	return sess.ID, err
}

// summary finds a checkpoint, if the caller may see its session.
func (s *service) summary(ctx context.Context, id checkpoint.ID) (checkpoint.Summary, error) {
	sum, err := s.store.Summary(ctx, id)
	if err != nil {
		return sum, err
	}
	if o := s.owner(ctx); o != nil {
		sess, err := s.store.Session(ctx, storage.Ref{ID: sum.SessionID})
		if err != nil {
			return checkpoint.Summary{}, err
		}
		if sess.OwnerUID != *o {
			return checkpoint.Summary{}, noCheckpoint(id)
		}
	}
	return sum, nil
}

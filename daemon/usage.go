package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

const (
	shownSessions = 20          // whose cost daemon.metrics tells
	usageWithin   = time.Second // to count what changed since the last time
)

// usages remembers what sessions cost: counting reads their checkpoints.
type usages struct {
	mu    sync.Mutex // guards what follows
	known map[checkpoint.ID]knownUsage
}

type knownUsage struct {
	at    time.Time // the session's last change
	count int
	storage.Usage
}

// usage of the sessions with the newest activity that the caller may see.
// settled says that all files are written: what is counted then is worth remembering.
func (s *service) usage(ctx context.Context, settled bool) ([]rpc.SessionUsage, error) {
	page, err := s.store.Sessions(ctx, storage.SessionQuery{Owner: s.owner(ctx), Limit: shownSessions})
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, usageWithin)
	defer cancel()
	out := make([]rpc.SessionUsage, 0, len(page.Sessions))
	for _, sess := range page.Sessions {
		u, err := s.usageOf(within, sess, settled)
		if isNotFound(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, rpc.SessionUsage{
			SessionID: sess.ID, Key: sess.Key, Name: sess.Name, Checkpoints: u.Checkpoints,
			Bytes: u.Bytes + u.BlobBytes, BlobBytes: u.BlobBytes, Partial: u.Partial,
		})
	}
	return out, nil
}

func (s *service) usageOf(ctx context.Context, sess checkpoint.Session, settled bool) (storage.Usage, error) {
	s.usages.mu.Lock()
	k, known := s.usages.known[sess.ID]
	s.usages.mu.Unlock()
	if known && k.at.Equal(sess.UpdatedAt) && k.count == sess.CheckpointCount {
		return k.Usage, nil
	}
	u, err := s.store.Usage(ctx, sess.ID)
	if err != nil || u.Partial || !settled {
		return u, err
	}
	s.usages.mu.Lock()
	defer s.usages.mu.Unlock()
	if len(s.usages.known) >= 4*shownSessions || s.usages.known == nil {
		s.usages.known = map[checkpoint.ID]knownUsage{}
	}
	s.usages.known[sess.ID] = knownUsage{sess.UpdatedAt, sess.CheckpointCount, u}
	return u, nil
}

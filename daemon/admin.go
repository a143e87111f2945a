package daemon

import (
	"context"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// Info says who answers.
func (s *service) Info(context.Context, rpc.NoParams) (*rpc.Info, error) {
	info := s.info
	return &info, nil
}

// Sync waits until everything acknowledged is durable and published.
func (s *service) Sync(ctx context.Context, _ rpc.NoParams) (*rpc.SyncResult, error) {
	n, err := s.store.Sync(ctx)
	if err != nil {
		return nil, err
	}
	return &rpc.SyncResult{Sequence: n}, nil
}

// onlyOwn refuses other users what could stop or change the daemon for all.
func (s *service) onlyOwn(ctx context.Context, what string) error {
	if s.isOwn(ctx) {
		return nil
	}
	return checkpoint.Errorf(checkpoint.KindPermissionDenied, "only root and the daemon's own user may %s", what)
}

// Reload reads the configuration again.
func (s *service) Reload(ctx context.Context, _ rpc.NoParams) (*rpc.ReloadResult, error) {
	if err := s.onlyOwn(ctx, "reload its configuration"); err != nil {
		return nil, err
	}
	return s.reload(ctx)
}

// Shutdown begins the drain, after its own reply has its place.
func (s *service) Shutdown(ctx context.Context, _ rpc.NoParams) (*rpc.ShutdownResult, error) {
	if err := s.onlyOwn(ctx, "stop it"); err != nil {
		return nil, err
	}
	rpc.AfterReply(ctx, s.shutdown)
	return &rpc.ShutdownResult{Draining: true}, nil
}

// StoreExport renders one page.
func (s *service) StoreExport(ctx context.Context, p *rpc.ExportParams) (rpc.RawResult, error) {
	id, err := s.optionalSession(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	limit := p.MaxBytes
	most := int(s.config().Limits.FrameBytes)
	switch {
	case limit == 0:
		limit = min(8<<20, most)
	case limit < 1:
		return nil, checkpoint.Invalid("max_bytes", "%d is not a size: give at least 1", limit)
	}
	page, err := s.store.Export(ctx, storage.ExportQuery{SessionID: id, Owner: s.owner(ctx), Cursor: p.Cursor, MaxBytes: limit})
	if err != nil {
		s.noteDamage(ctx, err)
		return nil, err
	}
	return page.JSON, nil
}

package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func isNotFound(err error) bool { return errors.Is(err, checkpoint.ErrNotFound) }

func decodeSummary(raw []byte) (checkpoint.Summary, error) {
	var sum checkpoint.Summary
	if err := json.Unmarshal(raw, &sum); err != nil {
		return sum, checkpoint.Errorf(checkpoint.KindInternal, "reading a summary: %w", err)
	}
	return sum, nil
}

// newest lists the session's newest n checkpoints.
func (s *service) newest(ctx context.Context, id checkpoint.ID, n int) ([]checkpoint.ID, error) {
	page, err := s.store.List(ctx, storage.Query{SessionID: id, Descending: true, Limit: n})
	if err != nil {
		return nil, err
	}
	var ids []checkpoint.ID
	for _, raw := range page.Summaries {
		sum, err := decodeSummary(raw)
		if err != nil {
			return nil, err
		}
		ids = append(ids, sum.ID)
	}
	return ids, nil
}

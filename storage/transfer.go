package storage

import (
	"context"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func (s *dirStore) Export(ctx context.Context, q ExportQuery) (ExportPage, error) {
	return ExportPage{}, checkpoint.ErrInternal
}
func (s *dirStore) Import(ctx context.Context, page []byte, owner uint32) (ImportResult, error) {
	return ImportResult{}, checkpoint.ErrInternal
}

package storage

import (
	"context"
	"errors"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

func (s *dirStore) Usage(ctx context.Context, id checkpoint.ID) (Usage, error) {
	s.mu.RLock()
	sess := s.index.bySess[id]
	if sess == nil {
		s.mu.RUnlock()
		return Usage{}, noSession(id)
	}
	u := Usage{Checkpoints: len(sess.rows)}
	var with []location
	own := []string{sessionDir(id) + "/session.json", sessionDir(id) + "/manifest.jsonl"}
	for _, r := range sess.rows {
		row := s.index.row(r)
		u.Bytes += int64(row.bytes)
		if row.flags&rowFiles != 0 && row.flags&rowCorrupt == 0 {
			with = append(with, s.locate(r))
		}
		if row.notes > 0 {
			own = append(own, notesPath(id, row.id))
		}
	}
	s.mu.RUnlock()
	for _, path := range own {
		n, err := s.length(path)
		if err != nil {
			return u, s.storageError("counting "+path, err)
		}
		u.Bytes += n
	}
	parts := map[string]bool{}
	for _, l := range with {
		if ctx.Err() != nil {
			u.Partial = true
			break
		}
		err := s.rootsOf(l, func(sum blob.Sum) error {
			names, err := s.blobs.Parts(sum)
			for _, name := range names {
				parts[name] = true
			}
			return err
		})
		if err != nil {
			continue // damage is told elsewhere; what is known of it counts
		}
	}
	for path := range parts {
		n, err := s.length(path)
		if err != nil {
			return u, s.storageError("counting "+path, err)
		}
		u.BlobBytes += n
	}
	return u, nil
}

// length of a file; 0 for one that is not there (yet, or any more).
func (s *dirStore) length(path string) (int64, error) {
	info, err := s.fs.Lstat(path)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return 0, nil
	}
	return info.Size, err
}

package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

func (p *parsed) files() ([]checkpoint.File, error) {
	var c checkpoint.Context
	err := decodeContext(p.context, &c)
	return c.Files, err
}

// keepFiles puts captured files into blobs/ before the record that names them. What it
// returns lets them go again, when the create is answered.
func (s *dirStore) keepFiles(c *NewCheckpoint) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	if len(c.Files) == 0 {
		return release, nil
	}
	c.Context.Files = make([]checkpoint.File, len(c.Files))
	for i, f := range c.Files {
		sum, let, err := s.blobs.Put(f.Content)
		if err != nil {
			release()
			return nil, s.storageError("keeping "+f.Path, err)
		}
		held = append(held, let)
		c.Context.Files[i] = checkpoint.File{
			Path: f.Path, Mode: fmt.Sprintf("%04o", f.Mode), Bytes: int64(len(f.Content)), SHA256: sum.String(), ModifiedAt: f.ModifiedAt.UTC(),
		}
	}
	return release, nil
}

func (s *dirStore) ReadFile(_ context.Context, id checkpoint.ID, path string) (checkpoint.File, []byte, error) {
	p, err := s.readParsed(id)
	if err != nil {
		return checkpoint.File{}, nil, err
	}
	files, err := p.files()
	if err != nil {
		return checkpoint.File{}, nil, checkpoint.Errorf(checkpoint.KindInternal, "context of %s: %w", id, err)
	}
	for _, f := range files {
		if f.Path != path {
			continue
		}
		sum, err := blob.ParseSum(f.SHA256)
		if err != nil {
			return f, nil, corruptError(id)
		}
		b, err := s.blobs.Get(sum)
		var damage *blob.Damage
		if errors.As(err, &damage) {
			return f, nil, checkpoint.Errorf(checkpoint.KindCorrupt, "the content of %.200q is damaged (%s): %s", path, damage.Path, damage.Problem)
		}
		if err != nil {
			return f, nil, s.storageError("reading a captured file", err)
		}
		return f, b, nil
	}
	return checkpoint.File{}, nil, checkpoint.Errorf(checkpoint.KindNotFound, "checkpoint %s captured no file %.200q", id, path)
}

// roots tells of every captured file that a checkpoint names; one whose row is not whole yet
// may name some. When it must be complete, a damaged checkpoint is an error: what that one
// names is not known, and must stay.
func (s *dirStore) roots(complete bool) blob.Roots {
	return func(yield func(blob.Sum) error) error {
		s.mu.RLock()
		var list []location
		damaged := false
		for _, r := range s.index.order {
			f := s.index.row(r).flags
			damaged = damaged || f&rowCorrupt != 0
			if f&(rowFiles|rowUnread) != 0 && f&rowCorrupt == 0 {
				list = append(list, s.locate(r))
			}
		}
		s.mu.RUnlock()
		if complete && damaged {
			return errDamagedRoots
		}
		for _, l := range list {
			if err := s.rootsOf(l, yield); err != nil {
				return err
			}
		}
		return nil
	}
}

var errDamagedRoots = errors.New("what damaged checkpoints name is not known: no captured file is removed")

func (s *dirStore) rootsOf(l location, yield func(blob.Sum) error) error {
	_, p, err := s.loadParsed(l)
	if err != nil {
		if _, gone := s.find(l.id); gone != nil {
			return nil // deleted meanwhile
		}
		return err
	}
	files, err := p.files()
	if err != nil {
		return checkpoint.Errorf(checkpoint.KindInternal, "%w", err)
	}
	for _, f := range files {
		sum, err := blob.ParseSum(f.SHA256)
		if err != nil {
			return err
		}
		if err := yield(sum); err != nil {
			return err
		}
	}
	return nil
}

// sweepFiles removes captured files that nothing names any more, if anything was deleted
// since the last time. While the index is rebuilt it waits: all bodies are being read already.
func (s *dirStore) sweepFiles(ctx context.Context) {
	if !s.allLoaded() {
		return
	}
	n := s.sweepDue.Swap(0)
	if n == 0 {
		return
	}
	if bytes, err := s.blobs.Bytes(); err == nil && bytes == 0 {
		return
	}
	if _, err := s.blobs.Sweep(ctx, s.roots(true)); err != nil {
		s.sweepDue.Add(n)
		s.opts.Logger.Warn("captured files were not collected; it is tried again", "error", err)
	}
}

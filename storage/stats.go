package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

func (s *dirStore) Stats(context.Context) (Stats, error) {
	s.mu.RLock()
	st := Stats{
		Checkpoints: len(s.index.byID), Sessions: len(s.index.bySess), SessionsCreated: s.sessionsCreated,
		Sequence: s.sequence, Bytes: s.index.bytes, Unpublished: s.unpublished, Quarantined: len(s.problems),
	}
	for _, sess := range s.index.bySess {
		if sess.meta.Status == checkpoint.Active {
			st.ActiveSessions++
		}
	}
	s.mu.RUnlock()
	s.qmu.Lock()
	st.JournalBytes = s.backlog
	s.qmu.Unlock()
	var err error
	if st.BlobBytes, err = s.blobs.Bytes(); err != nil {
		return st, s.storageError("counting captured files", err)
	}
	st.Bytes += st.BlobBytes
	return st, nil
}

func (s *dirStore) Health() Health {
	s.stateMu.Lock()
	fatal, publishErr := s.fatal, s.publishErr
	s.stateMu.Unlock()
	check := func(name string, err error, good string) Check {
		if err != nil {
			return Check{Name: name, Message: err.Error()}
		}
		return Check{Name: name, OK: true, Message: good}
	}
	info, err := s.fs.Statfs()
	if err == nil && info.ReadOnly {
		err = fmt.Errorf("the file system is mounted read-only: mount it for writing")
	}
	s.mu.RLock()
	problems := len(s.problems)
	s.mu.RUnlock()
	var damage error
	if problems > 0 {
		damage = fmt.Errorf("%d damaged files are in quarantine: run forge-cpd fsck", problems)
	}
	return Health{
		ReadOnly: fatal != nil || err != nil,
		Checks: []Check{
			check("journal", fatal, "writes are durable"), check("publisher", publishErr, "files follow the journal"),
			check("file_system", err, "writable"), check("integrity", damage, "no damage known"),
		},
	}
}

func (s *dirStore) Usage(_ context.Context, id checkpoint.ID) (Usage, error) {
	s.mu.RLock()
	sess := s.index.bySess[id]
	if sess == nil {
		s.mu.RUnlock()
		return Usage{}, noSession(id)
	}
	u := Usage{Checkpoints: len(sess.rows)}
	locations := make([]location, 0, len(sess.rows))
	for _, r := range sess.rows {
		u.Bytes += int64(s.index.row(r).bytes)
		if s.index.row(r).flags&rowFiles != 0 {
			locations = append(locations, s.locate(r))
		}
	}
	s.mu.RUnlock()
	seen := map[string]bool{}
	for _, l := range locations {
		p, err := s.readAt(l)
		if err != nil {
			continue // damage is counted elsewhere
		}
		files, err := p.files()
		if err != nil {
			return u, checkpoint.Errorf(checkpoint.KindInternal, "context of %s: %w", l.id, err)
		}
		for _, f := range files {
			if !seen[f.SHA256] {
				seen[f.SHA256] = true
				u.FileBytes += f.Bytes
			}
		}
	}
	return u, nil
}

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

package storage

import (
	"context"
	"fmt"

	"github.com/forge-cpd/forge-cpd/checkpoint"
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
		damage = fmt.Errorf("damaged files known or in quarantine: %d; run forge-cpd fsck", problems)
	}
	return Health{
		ReadOnly: fatal != nil || err != nil,
		Checks: []Check{
			check("journal", fatal, "writes are durable"), check("publisher", publishErr, "files follow the journal"),
			check("file_system", err, "writable"), check("integrity", damage, "no damage known"),
		},
	}
}

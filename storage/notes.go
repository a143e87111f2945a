package storage

import (
	"errors"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// parseNotes gives the notes of a file that verify; whole says that there is nothing else in it.
func parseNotes(b []byte, session, id checkpoint.ID) (notes []checkpoint.Annotation, whole bool) {
	whole = true
	for _, l := range splitLines(b) {
		r, err := parseRecord(l)
		if err != nil || r.Type != recAnnotate || r.Annotation == nil || r.CheckpointID != id || r.SessionID != session || r.Number != uint64(len(notes)+1) {
			whole = false
			continue
		}
		notes = append(notes, *r.Annotation)
	}
	return notes, whole
}

// readNotes reads the first want notes of a file. Damage is named, and what verifies is
// given; more notes than wanted are those of a round that is not ended.
func (s *dirStore) readNotes(session, id checkpoint.ID, want int) ([]checkpoint.Annotation, error) {
	if want == 0 {
		return nil, nil
	}
	path := notesPath(session, id)
	b, err := s.readAll(path)
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, errStrange):
		b = nil
	default:
		return nil, err
	}
	notes, whole := parseNotes(b, session, id)
	if whole && len(notes) >= want {
		return notes[:want:want], nil
	}
	problem := "notes are missing"
	if !whole {
		problem = "it is damaged"
	}
	s.mu.RLock()
	_, there := s.index.byID[id]
	named := false
	for _, p := range s.problems {
		named = named || p.Path == path
	}
	s.mu.RUnlock()
	if there && !named {
		if err := s.quarantineCopy(path, b, problem); err != nil {
			s.opts.Logger.Error("damaged notes cannot be kept in quarantine", "path", path, "error", err)
		}
	}
	return notes[:min(want, len(notes))], nil
}

// noteFile is what a file of notes holds, if anything.
func (s *dirStore) noteFile(id rowID) []byte {
	r := s.index.row(id)
	if r.notes == 0 {
		return nil
	}
	b, err := s.readAll(notesPath(s.index.sessions[r.session].meta.ID, r.id))
	if err != nil {
		return nil // damage is found when it is read for its notes
	}
	return b
}

// notesOf gives a checkpoint's annotations: those of its file, then those that are only in
// the journal yet.
func (s *dirStore) notesOf(l location) ([]checkpoint.Annotation, error) {
	if l.noteCount == 0 {
		return nil, nil
	}
	notes, err := s.readNotes(l.session, l.id, l.noteCount-len(l.notes))
	if err != nil {
		return nil, s.storageError("reading the notes of "+l.id.String(), err)
	}
	return append(notes, l.notes...), nil
}

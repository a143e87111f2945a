package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func quarantineName(from string) string {
	return fmt.Sprintf("quarantine/%s-%s", checkpoint.NewID(), path.Base(from))
}

// quarantine moves a damaged file out of the way and keeps a note of why. It may be gone.
func (s *dirStore) quarantine(id checkpoint.ID, from, problem string, summary []byte) error {
	name := quarantineName(from)
	note := record{Type: recQuarantine, CheckpointID: id, Path: from, Problem: problem, At: s.opts.Now().UTC()}
	if summary != nil {
		note.Summary = json.RawMessage(append(append([]byte(nil), summary...), '}'))
	}
	b, err := s.readAll(from)
	if err == nil {
		note.File, note.Bytes, note.Sum = name, int64(len(b)), hexSum(b)
	} else if errors.Is(err, errStrange) {
		note.File = name
	}
	if err := s.writeNote(name, note); err != nil {
		return s.unlessReadOnly(note, err)
	}
	if note.File != "" {
		if err := s.fs.RenameNew(from, name); err != nil {
			return err
		}
		if err := s.fs.SyncDir(path.Dir(from)); err != nil {
			return err
		}
		if err := s.fs.SyncDir("quarantine"); err != nil {
			return err
		}
	}
	s.remember(note)
	return nil
}

// noteGone keeps a note of a file that was gone.
func (s *dirStore) noteGone(from string) error {
	note := record{Type: recQuarantine, Path: from, Problem: "the file is gone", At: s.opts.Now().UTC()}
	if err := s.writeNote(quarantineName(from), note); err != nil {
		return s.unlessReadOnly(note, err)
	}
	s.remember(note)
	return nil
}

// quarantineCopy keeps the bytes of a file that stays in use.
func (s *dirStore) quarantineCopy(from string, b []byte, problem string) error {
	name := quarantineName(from)
	note := record{
		Type: recQuarantine, Path: from, Problem: problem, At: s.opts.Now().UTC(), File: name, Bytes: int64(len(b)), Sum: hexSum(b),
	}
	if err := s.createFile(name, b); err != nil {
		return s.unlessReadOnly(note, err)
	}
	if err := s.writeNote(name, note); err != nil {
		return err
	}
	s.remember(note)
	return nil
}

// unlessReadOnly lets damage on a medium that cannot be written stay where it is; it is
// known as long as the store is open.
func (s *dirStore) unlessReadOnly(note record, err error) error {
	if !errors.Is(err, syscall.EROFS) {
		return err
	}
	note.File = ""
	s.remember(note)
	return nil
}

func (s *dirStore) writeNote(name string, note record) error {
	b, _, err := encodeRecord(note)
	if err != nil {
		return err
	}
	if err := s.createFile(name+".note", b); err != nil {
		return err
	}
	return s.fs.SyncDir("quarantine")
}

func (s *dirStore) remember(note record) {
	s.opts.Logger.Error("damage was found and put away", "path", note.Path, "problem", note.Problem, "quarantine", note.File)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.know(note)
}

// know is remember with the lock held.
func (s *dirStore) know(note record) {
	p := Problem{CheckpointID: note.CheckpointID, Path: note.Path, Problem: note.Problem}
	s.problems = append(s.problems, p)
	if id := note.CheckpointID; !id.IsZero() {
		s.damaged[id] = p
		if n := len(note.Summary); n > 1 {
			s.damagedSums[id] = note.Summary[: n-1 : n-1]
		}
	}
}

// loadQuarantine reads the notes: what was found damaged stays named.
func (s *dirStore) loadQuarantine() error {
	entries, err := s.fs.ReadDir("quarantine")
	if err != nil {
		return s.storageError("reading quarantine", err)
	}
	for _, e := range entries {
		if len(e.Name) > 37 {
			if number, _, ok := parseCheckpointName(e.Name[37:]); ok {
				s.raise(number)
			}
		}
		if !strings.HasSuffix(e.Name, ".note") {
			continue
		}
		b, err := s.readAll("quarantine/" + e.Name)
		if err != nil {
			s.opts.Logger.Warn("a note of damage cannot be read", "path", e.Name, "error", err)
			continue
		}
		note, err := parseRecord(b)
		if err != nil || note.Type != recQuarantine {
			s.problems = append(s.problems, Problem{Path: "quarantine/" + e.Name, Problem: "the note is damaged"})
			continue
		}
		s.know(note)
	}
	s.knownBefore = append([]Problem(nil), s.problems...)
	return nil
}

// foundDamage puts a checkpoint's file away, marks its row and tells subscribers.
func (s *dirStore) foundDamage(l location, problem string) {
	s.mu.Lock()
	row, ok := s.index.byID[l.id]
	if !ok || s.index.row(row).flags&rowCorrupt != 0 {
		s.mu.Unlock()
		return
	}
	s.index.row(row).flags |= rowCorrupt
	from := l.path()
	if l.p != nil {
		from = l.p.large
		if from == "" {
			from = l.p.seg.path
		}
	}
	s.damaged[l.id] = Problem{CheckpointID: l.id, Path: from, Problem: problem}
	s.mu.Unlock()
	if l.p == nil {
		err := s.quarantine(l.id, from, problem, s.summaryBytes(l))
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			s.opts.Logger.Error("a damaged file cannot be put away", "path", from, "error", err)
		}
	}
	s.LogEvent(checkpoint.Event{Type: checkpoint.EventCorrupt, SessionID: l.session, CheckpointID: l.id, Sequence: l.sequence, Path: from, Problem: problem})
}

func (s *dirStore) summaryBytes(l location) []byte {
	refs := []summaryRef{l.summary}
	if err := s.loadSummaries(refs); err != nil {
		return nil
	}
	return refs[0].open
}

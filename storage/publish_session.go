package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strconv"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// describe brings a session's manifest and session.json up to date.
func (s *dirStore) describe(j *sessionJob) error {
	if j.deleted {
		return nil
	}
	dir := sessionDir(j.meta.ID)
	if j.newFiles && !s.opts.SyncFS {
		if err := s.fs.SyncDir(dir + "/checkpoints"); err != nil {
			return err
		}
	}
	if len(j.notes) > 0 {
		if err := s.makeNotesDir(dir); err != nil {
			return err
		}
	}
	for id, fresh := range j.notes {
		s.mu.RLock()
		count := 0
		if row, ok := s.index.byID[id]; ok {
			count = int(s.index.row(row).notes) - len(s.notes[id])
		}
		s.mu.RUnlock()
		notes, err := s.readNotes(j.meta.ID, id, count)
		if err != nil {
			return err
		}
		notes = append(notes, fresh...)
		j.noted[id], j.wrote[id] = len(notes), len(fresh)
		r, err := s.writeNotes(j.meta.ID, id, notes)
		if err != nil {
			return err
		}
		j.lines = append(j.lines, r)
	}
	if len(j.notes) > 0 {
		if err := s.fs.SyncDir(dir + "/annotations"); err != nil {
			return err
		}
	}
	return s.writeManifest(j)
}

func (s *dirStore) makeNotesDir(session string) error {
	err := s.fs.Mkdir(session + "/annotations")
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.fs.SyncDir(session)
}

func (s *dirStore) writeNotes(session, id checkpoint.ID, notes []checkpoint.Annotation) (record, error) {
	var body []byte
	for i := range notes {
		b, _, err := encodeRecord(record{Type: recAnnotate, SessionID: session, CheckpointID: id, Number: uint64(i + 1), Annotation: &notes[i]})
		if err != nil {
			return record{}, err
		}
		body = append(body, b...)
	}
	r := record{Type: recAnnotations, CheckpointID: id, Count: len(notes), Bytes: int64(len(body)), Sum: hexSum(body)}
	return r, s.replaceFile(notesPath(session, id), body)
}

// writeManifest appends what changed and a line that pins session.json, which in turn
// pins the manifest up to that line: neither can be changed or put back alone.
func (s *dirStore) writeManifest(j *sessionJob) error {
	dir := sessionDir(j.meta.ID)
	d := &j.s.disk
	if d.manifest == nil {
		d.manifest, d.bytes = sha256.New(), 0
	}
	h := clone(d.manifest)
	var body []byte
	for _, r := range j.lines {
		b, _, err := encodeRecord(r)
		if err != nil {
			return err
		}
		body = append(body, b...)
	}
	h.Write(body)
	meta := j.meta
	described, sum, err := encodeRecord(record{
		Type: recSession, Session: &meta, Bytes: d.bytes + int64(len(body)), Sum: hex.EncodeToString(h.Sum(nil)),
	})
	if err != nil {
		return err
	}
	pinned := record{Type: recDescribed, Sum: sum}
	settings := meta
	// What changes with every checkpoint is in session.json only: the manifest grows by it.
	settings.HeadID, settings.UpdatedAt, settings.AutoState = checkpoint.ID{}, settings.CreatedAt, nil
	raw, err := encode(&settings)
	if err != nil {
		return err
	}
	settingsSum := sha256.Sum256(raw)
	if settingsSum != d.settings {
		pinned.Session = &settings
	}
	pin, _, err := encodeRecord(pinned)
	if err != nil {
		return err
	}
	h.Write(pin)
	body = append(body, pin...)
	f, err := s.fs.Open(dir+"/manifest.jsonl", os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return err
	}
	d.beyond = true
	_, err = f.WriteAt(d.bytes, body)
	if err == nil {
		err = f.Truncate(d.bytes + int64(len(body))) // what an interrupted round has left
	}
	if err == nil && !s.opts.SyncFS {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && d.bytes == 0 && !s.opts.SyncFS { // its name before that of what pins it
		err = s.fs.SyncDir(dir)
	}
	if err != nil {
		return err
	}
	if err := s.writeDescription(j, described); err != nil {
		return err
	}
	d.manifest, d.bytes, d.settings = h, d.bytes+int64(len(body)), settingsSum
	_, _ = hex.Decode(d.sum[:], []byte(sum)) // sum is what hex gave
	j.lines, j.notes = nil, nil              // a later step that fails does not write them twice
	return nil
}

func (s *dirStore) writeDescription(j *sessionJob, line []byte) error {
	dir := sessionDir(j.meta.ID)
	if s.opts.SyncFS {
		tmp := "tmp/" + checkpoint.NewID().String()
		if err := s.create(tmp, line, false); err != nil {
			return err
		}
		j.described = tmp
		return nil
	}
	if err := s.replaceFile(dir+"/session.json", line); err != nil {
		return err
	}
	j.s.disk.beyond = false
	return s.fs.SyncDir(dir)
}

// flushAll makes a round's files durable with two flushes of the whole file system in
// place of several a session: what session.json pins comes before its new name.
func (s *dirStore) flushAll(b *batch) error {
	if err := s.syncFS(); err != nil {
		return err
	}
	for _, j := range b.sessions {
		if j.described == "" {
			continue
		}
		if err := s.fs.Rename(j.described, sessionDir(j.meta.ID)+"/session.json"); err != nil {
			return err
		}
		j.described, j.s.disk.beyond = "", false
	}
	return s.syncFS()
}

// syncFS is not tried again when it has failed, like any flush: what is on the disk is not
// known then. The journal stays, and the next start writes what it holds once more.
func (s *dirStore) syncFS() error {
	if s.flushLost == nil {
		if err := s.fs.SyncFS(); err != nil {
			s.flushLost = errors.Join(errUnknown, err)
			s.poison(s.flushLost)
		}
	}
	return s.flushLost
}

// dropDescriptions removes what a round that failed has left in tmp/.
func (s *dirStore) dropDescriptions(b *batch) error {
	var errs []error
	for _, j := range b.sessions {
		if j.described != "" {
			errs = append(errs, ignoreMissing(s.fs.Remove(j.described)))
		}
	}
	return errors.Join(errs...)
}

// sweep removes files whose going is known to the manifest, and deleted sessions.
func (s *dirStore) sweep(j *sessionJob) error {
	for _, path := range j.unlink {
		s.mu.RLock()
		keep := s.livePath(path)
		s.mu.RUnlock()
		if keep {
			continue
		}
		if err := ignoreMissing(s.fs.Remove(path)); err != nil {
			return err
		}
	}
	if !j.deleted && len(j.unlink) > 0 { // or they are back after a power cut, and nobody's
		dir := sessionDir(j.meta.ID)
		if err := errors.Join(s.fs.SyncDir(dir+"/checkpoints"), ignoreMissing(s.fs.SyncDir(dir+"/annotations"))); err != nil {
			return err
		}
	}
	if !j.deleted {
		return nil
	}
	s.mu.RLock()
	again := s.index.bySess[j.s.meta.ID]
	s.mu.RUnlock()
	if again != nil && again.disk.made { // one of the same id has files of its own
		return nil
	}
	return s.removeSessionDir(j.s.meta.ID)
}

// livePath says that an annotations file belongs to a checkpoint again: ids may be used anew.
func (s *dirStore) livePath(path string) bool {
	if len(path) < 42 || path[len(path)-6:] != ".jsonl" {
		return false
	}
	id, err := checkpoint.ParseID(path[len(path)-42 : len(path)-6])
	if err != nil {
		return false
	}
	_, ok := s.index.byID[id]
	return ok
}

// removeSessionDir takes session.json first: a directory without it, of a session that
// the journal says is gone, is finished at the next start.
func (s *dirStore) removeSessionDir(id checkpoint.ID) error {
	dir := sessionDir(id)
	for _, name := range []string{"/session.json", "/manifest.jsonl"} {
		if err := ignoreMissing(s.fs.Remove(dir + name)); err != nil {
			return err
		}
	}
	for _, sub := range []string{"/checkpoints", "/annotations", ""} {
		entries, err := s.fs.ReadDir(dir + sub)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := ignoreMissing(s.fs.Remove(dir + sub + "/" + e.Name)); err != nil {
				return err
			}
		}
		if err := ignoreMissing(s.fs.Remove(dir + sub)); err != nil {
			return err
		}
	}
	return s.fs.SyncDir("sessions")
}

// sessionDisk is what the publisher knows of a session's directory.
type sessionDisk struct {
	made     bool
	manifest hash.Hash // over the whole manifest; nil: read it first
	bytes    int64
	// settings is what the manifest says of the session, to mend session.json with.
	settings [sha256.Size]byte
	sum      [sha256.Size]byte // of session.json's line
	// beyond: the manifest may go on after what session.json says of it; a round was cut there.
	beyond bool
}

func sessionDir(id checkpoint.ID) string { return "sessions/" + id.String() }

func checkpointPath(session checkpoint.ID, sequence uint64, id checkpoint.ID) string {
	var number [20]byte
	digits := strconv.AppendUint(number[:0], sequence, 10)
	b := make([]byte, 0, 128)
	b = append(append(append(b, "sessions/"...), session.String()...), "/checkpoints/"...)
	b = append(append(b, "00000000000000000000"[len(digits):]...), digits...)
	b = append(append(append(b, '-'), id.String()...), ".json"...)
	return string(b)
}

func notesPath(session, id checkpoint.ID) string {
	return fmt.Sprintf("%s/annotations/%s.jsonl", sessionDir(session), id)
}

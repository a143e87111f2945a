package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// readHead learns how far the files go. One that is damaged is put away; the journal then
// is applied from its start, which changes nothing that is there already.
func (s *dirStore) readHead() error {
	b, err := s.readAll(headPath)
	if err == nil || errors.Is(err, errStrange) {
		r, parseErr := parseRecord(b)
		if parseErr == nil && r.Type == recHead {
			s.headState, s.storeID = r, r.Store
			s.nextEvent, s.sessionsCreated = r.FirstEvent, r.Created
		} else {
			if err := s.quarantine(checkpoint.ID{}, headPath, fmt.Sprint("damaged: ", parseErr), nil); err != nil {
				return s.storageError("putting "+headPath+" away", err)
			}
			s.headLost = true
		}
	} else if !errors.Is(err, syscall.ENOENT) {
		return s.storageError("reading "+headPath, err)
	}
	if s.storeID.IsZero() {
		s.storeID = checkpoint.NewID()
	}
	s.headState.FirstEvent = max(s.headState.FirstEvent, 1)
	s.nextEvent = max(s.nextEvent, 1)
	s.journal.group = s.headState.Group + 1
	s.committed, s.published = s.headState.Group, s.headState.Group
	return nil
}

// checkChain looks for segments that are missing: before the first, between two, and,
// told by the markers, after the last. A segment goes only after head.json says so.
func (s *dirStore) checkChain(reads []*segmentRead) error {
	first := func(r *segmentRead) uint64 { return r.first.Group }
	if s.headState.Type != "" && s.oldHead(reads) {
		if err := s.quarantine(checkpoint.ID{}, headPath, "it is older than the events", nil); err != nil {
			return s.storageError("putting "+headPath+" away", err)
		}
		if s.journal.marked > s.headState.Segment { // or it is no older, and a segment is gone
			if err := s.missing("journal/" + segmentName(s.journal.marked, s.journal.ceiling)); err != nil {
				return err
			}
		}
		s.headState, s.headLost = record{Group: s.headState.Group}, true
	}
	if s.headState.Type == "" {
		if i := slices.IndexFunc(reads, func(r *segmentRead) bool { return !r.first.Store.IsZero() }); i >= 0 {
			s.storeID = reads[i].first.Store // cursors given before the first publication stay good
		}
		whole := len(reads) > 0 && (first(reads[0]) == 1 || reads[0].problem != "")
		if s.journal.marked > 0 && !whole && !s.headLost {
			if err := s.missing(headPath); err != nil {
				return err
			}
			s.headLost = true
		}
		if len(reads) > 0 && first(reads[0]) > 0 {
			s.headState.Group = first(reads[0]) - 1
			s.committed, s.published = s.headState.Group, s.headState.Group
		}
	}
	newest := s.headState.Segment
	for i, r := range reads {
		gap := r.seg.number > newest+1 && (i > 0 || s.headState.Type != "")
		newest = max(newest, r.seg.number)
		if !gap {
			continue
		}
		path := r.first.File // of the one before
		if path == "" || i > 0 && path == reads[i-1].seg.path {
			path = fmt.Sprintf("journal/%020d", r.seg.number-1)
		}
		if err := s.missing(path); err != nil {
			return err
		}
	}
	j := &s.journal
	if s.headState.Type != "" && j.marked > s.headState.Segment && (len(reads) == 0 || reads[len(reads)-1].seg.number < j.marked) {
		s.headLost = true // written anew, so that this is told once
		return s.missing("journal/" + segmentName(j.marked, j.ceiling))
	}
	return nil
}

// checkMarkers makes one of the newest pair again that is gone. That is damage unless the
// pair was just being made: both are durable before a group of their segment is, and go
// after those of another ceiling are.
func (s *dirStore) checkMarkers(reads []*segmentRead) error {
	j := &s.journal
	made, used := false, j.marked <= s.headState.Segment
	for _, r := range reads {
		made = made || r.seg.number == j.marked
		used = used || r.seg.number == j.marked && len(r.entries) > 0
	}
	var single []string
	for m, ext := range j.pairs {
		names := markerNames(m[0], m[1])
		switch {
		case m[0] != j.marked:
		case len(ext) > 1:
			return nil
		case ext == "a":
			single = append(single, names[1])
		default:
			single = append(single, names[0])
		}
	}
	if !made && !used {
		return nil
	}
	for _, path := range single {
		if used {
			if err := s.missing(path); err != nil {
				return err
			}
		}
		s.unmade = append(s.unmade, path)
	}
	if err := s.makeMarkers(); err != nil && !errors.Is(err, syscall.EROFS) {
		return s.storageError("making a marker of the journal again", err)
	}
	return nil
}

// makeMarkers makes those again that are gone. On a medium that takes no writes it is the
// publisher who does it later, before head.json says that their segment may be gone.
func (s *dirStore) makeMarkers() error {
	for _, path := range s.unmade {
		if err := s.createFile(path, nil); err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
	}
	if len(s.unmade) > 0 {
		if err := s.fs.SyncDir("journal"); err != nil {
			return err
		}
	}
	s.unmade = nil
	return nil
}

// missing notes a file that is gone, once. It moves nothing: what bears the name after all
// may be in use.
func (s *dirStore) missing(path string) error {
	for _, p := range s.problems {
		if p.Path == path {
			return nil
		}
	}
	note := record{Type: recQuarantine, Path: path, Problem: "the file is gone", At: s.opts.Now().UTC()}
	err := s.writeNote(quarantineName(path), note)
	if err == nil {
		s.remember(note)
	} else {
		err = s.unlessReadOnly(note, err)
	}
	if err != nil {
		return s.storageError("noting that "+path+" is gone", err)
	}
	return nil
}

// openEvents goes on with the file that head.json pins; lines beyond it are the journal's to
// add again. It is hashed beside what else a start reads: done waits for it.
func (s *dirStore) openEvents(reads []*segmentRead) (done func() error) {
	if s.headState.Type == "" {
		return func() error { return s.resumeEvents(reads) }
	}
	if s.headState.File == "" || s.headState.Count == 0 {
		return func() error { return nil }
	}
	b, err := s.readAll(s.headState.File)
	h := sha256.New()
	var hashing sync.WaitGroup
	if int64(len(b)) >= s.headState.Bytes {
		hashing.Go(func() { h.Write(b[:s.headState.Bytes]) })
	}
	return func() error {
		hashing.Wait()
		return s.checkEvents(reads, b, err, h)
	}
}

func (s *dirStore) checkEvents(reads []*segmentRead, b []byte, err error, h hash.Hash) error {
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errStrange) {
		return s.storageError("reading events", err)
	}
	beyond := b[min(int64(len(b)), s.headState.Bytes):]
	if err != nil || hex.EncodeToString(h.Sum(nil)) != s.headState.Sum {
		problem := "it is not what head.json says"
		if err != nil {
			problem = "the file is gone"
		}
		return s.quarantine(checkpoint.ID{}, s.headState.File, problem, nil)
	}
	var n uint64
	if _, err := fmt.Sscanf(s.headState.File, "events/%020d.jsonl", &n); err != nil {
		return s.storageError("reading "+headPath, err)
	}
	s.eventFile = eventFile{first: n, count: s.headState.Count, bytes: s.headState.Bytes, hash: h}
	// What a round that did not end has left, torn or not: the journal adds it again.
	s.eventsBeyond = len(beyond) > 0
	cut := journalView(reads, s.headState.Group).any
	next := n + uint64(s.headState.Count)
	for _, l := range splitLines(beyond) {
		r, err := parseRecord(l)
		if !cut || err == nil && r.Number < next {
			return s.quarantineCopy(s.headState.File, b, "it goes on after what head.json says")
		}
		next = max(next, r.Number+1)
	}
	return nil
}

// oldHead says that head.json is from before what events/ holds, though nothing is in the
// journal that could have been added since.
func (s *dirStore) oldHead(reads []*segmentRead) bool {
	firsts, err := s.eventFiles()
	if err != nil || len(reads) > 0 || len(firsts) == 0 {
		return false
	}
	newest := eventPath(firsts[len(firsts)-1])
	if info, err := s.fs.Lstat(newest); newest == s.headState.File && (err != nil || info.Size <= s.headState.Bytes) {
		return false
	}
	list, sound, err := s.readEventFile(firsts[len(firsts)-1])
	return err == nil && sound && len(list) > 0 && list[len(list)-1].number >= s.headState.FirstEvent
}

// resumeEvents numbers events without head.json, which is not there yet or lost: from where
// the journal starts, or else after what the files hold.
func (s *dirStore) resumeEvents(reads []*segmentRead) error {
	next := uint64(0)
	for _, r := range reads {
		if next == 0 {
			next = r.event
		}
	}
	firsts, err := s.eventFiles()
	if err != nil {
		return s.storageError("reading events", err)
	}
	if next == 0 && len(firsts) > 0 {
		last := firsts[len(firsts)-1]
		list, sound, err := s.readEventFile(last)
		if err != nil && !errors.Is(err, errStrange) {
			return s.storageError("reading events", err)
		}
		if next = last + uint64(len(list)); !sound {
			next += eventsPerFile // what the damaged lines were numbered is not given again
		}
	}
	s.nextEvent = max(next, 1)
	s.headState.FirstEvent = s.nextEvent
	i, found := slices.BinarySearch(firsts, s.nextEvent)
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	b, err := s.readAll(eventPath(firsts[i]))
	if err != nil {
		return nil // validation names it; a new file is begun
	}
	keep := int(s.nextEvent - firsts[i])
	lines := splitLines(b)
	if keep > len(lines) {
		return nil
	}
	f := eventFile{first: firsts[i], count: keep, hash: sha256.New()}
	for _, l := range lines[:keep] {
		f.hash.Write(l)
		f.bytes += int64(len(l))
	}
	s.eventFile = f
	return nil
}

// mendHead writes a lost head.json anew; before that nothing of the journal may go.
func (s *dirStore) mendHead() {
	s.sessionsCreated = max(s.sessionsCreated, uint64(len(s.index.bySess)))
	if !s.headLost {
		return
	}
	segment := s.headState.Segment
	if len(s.segments) == 0 {
		segment = s.journal.number
	}
	b := &batch{group: s.headState.Group, next: s.headState.FirstEvent, created: max(s.headState.Created, s.sessionsCreated), segment: segment}
	if err := s.writeHead(b); err != nil {
		s.opts.Logger.Error("a lost events/head.json cannot be written anew; it is tried with the next change", "error", err)
	}
}

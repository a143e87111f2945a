package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

// recover brings memory to what was acknowledged: the files, then the journal's groups
// that are not files yet. It may be cut anywhere and run again.
func (s *dirStore) recover() error {
	s.journal = journal{fs: s.fs, opts: &s.opts, group: 1}
	if err := s.loadQuarantine(); err != nil {
		return err
	}
	if err := s.noteLock(); err != nil {
		return err
	}
	if err := s.readHead(); err != nil {
		return err
	}
	reads, err := s.readJournal()
	if err != nil {
		return s.storageError("reading the journal", err)
	}
	if err := s.checkChain(reads); err != nil {
		return err
	}
	if err := s.checkMarkers(reads); err != nil {
		return err
	}
	image, wait, err := s.readIndex()
	if err != nil {
		return s.storageError("reading the index", err)
	}
	events := s.openEvents(reads)
	wait()
	if err := s.openIndex(image); err != nil {
		return s.storageError("opening the index", err)
	}
	pending := journalView(reads, s.headState.Group)
	unread, err := s.loadSessions(pending, image)
	if err == nil {
		err = unread.first()
	}
	if err != nil {
		return s.storageError("reading the sessions", err)
	}
	if err := events(); err != nil {
		return err
	}
	s.mendManifests()
	if len(unread.jobs) == 0 {
		unread.finish()
	} else {
		s.loaded, s.unread = make(chan struct{}), unread
	}
	s.replaying = true
	s.replay(reads)
	s.replaying = false
	if err := s.retireRead(reads); err != nil {
		return s.storageError("closing the journal", err)
	}
	s.mendHead()
	s.cleanTmp(pending)
	s.takeReserve()
	s.blobs, err = blob.Open(s.fs, blob.Options{Dir: "blobs", Tmp: "tmp", Quarantine: func(path, problem string) error {
		return s.quarantine(checkpoint.ID{}, path, problem, nil)
	}})
	if err != nil {
		return s.storageError("opening the captured files", err)
	}
	return nil
}

// readJournal reads the segments in order and puts the counters where they must be.
func (s *dirStore) readJournal() ([]*segmentRead, error) {
	entries, err := s.fs.ReadDir("journal")
	if err != nil {
		return nil, err
	}
	j := &s.journal
	var segs []*segment
	marks := map[[2]uint64]string{}
	for _, e := range entries {
		number, ceiling, ext, ok := parseSegmentName(e.Name)
		if !ok {
			continue
		}
		j.ceiling = max(j.ceiling, ceiling)
		if ext == "jsonl" {
			segs = append(segs, &segment{number: number, ceiling: ceiling, path: "journal/" + e.Name})
		} else {
			marks[[2]uint64{number, ceiling}] += ext
		}
	}
	marked := map[uint64]bool{}
	j.pairs = marks
	for m := range marks {
		j.markers = append(j.markers, m)
		marked[m[0]] = true
		j.marked = max(j.marked, m[0])
	}
	j.number = max(j.marked, s.headState.Segment) // one that had no markers yet may have gone too
	s.sequence = j.ceiling
	s.given = ranges{{0, j.ceiling}}
	sortSegments(segs)
	var reads []*segmentRead
	for i, g := range segs {
		r, err := s.readSegment(g, i == len(segs)-1)
		if err != nil {
			return nil, err
		}
		if r.first.Type == "" && r.problem == "" {
			if !marked[g.number] { // it was being made: nothing in it was acknowledged
				s.dropUnbegun(g)
				continue // and its number is the next one's: one that is left out is one that is lost
			}
			r.problem, r.tail = "it has no first line", nil
		}
		if i == len(segs)-1 && marked[g.number] {
			r.checkLength()
		}
		j.group = max(j.group, r.lastGrp+1)
		j.last, j.path, j.number = r.last, g.path, max(j.number, g.number)
		reads = append(reads, r)
	}
	return reads, nil
}

func (s *dirStore) dropUnbegun(g *segment) {
	j := &s.journal
	j.litter = append(j.litter, g.path)
	if err := errors.Join(g.close(), j.clean()); err != nil && !errors.Is(err, syscall.EROFS) {
		s.opts.Logger.Warn("a journal segment that was not begun cannot be removed", "path", g.path, "error", err)
	}
}

// closeSegment ends a segment that was cut, through g: the next one may not follow an open one.
func (s *dirStore) closeSegment(r *segmentRead, g *segment) error {
	if r.problem != "" || r.first.Type == "" {
		return nil
	}
	// Who wrote it may have died before a flush of it or after one that failed: what was read
	// here may then be nowhere but in memory, and is flushed only when it is written again.
	_, err := g.file.WriteAt(0, r.data[:r.end])
	switch { // what is behind the end must not stay
	case err != nil:
	case r.closed && int64(len(r.data)) > r.end:
		err = g.file.Truncate(r.end)
	case len(r.tail) > 0:
		err = clearRange(g.file, r.end, r.end+int64(len(r.tail)))
	}
	if err != nil {
		return err
	}
	if r.closed || len(r.tail) > 0 {
		if err := g.file.Sync(); err != nil || r.closed {
			return err
		}
	}
	j := &s.journal
	j.current, j.off = g, r.end
	err = j.finish()
	j.current = nil
	r.end = max(r.end, g.end)
	return err
}

// writeAgain makes durable what was read of a segment.
func (s *dirStore) writeAgain(path string, data []byte) error {
	f, err := s.fs.Open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(0, data); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// closeCut does so when the medium takes writes again, or has room. By then all of it may be published.
func (s *dirStore) closeCut() error {
	j := &s.journal
	if j.cut == nil {
		return nil
	}
	g := j.cut.seg
	f, err := s.fs.Open(g.path, os.O_RDWR)
	if errors.Is(err, syscall.ENOENT) {
		j.cut = nil
		return nil
	}
	if err != nil {
		return err
	}
	err = s.closeSegment(j.cut, &segment{number: g.number, ceiling: g.ceiling, path: g.path, file: f})
	if err == nil {
		j.cut = nil
	}
	return errors.Join(err, f.Close())
}

// journalChanges is what the unpublished part of the journal will do, looked at before
// the files are: a file that is missing because of it is no damage.
type journalChanges struct {
	any      bool
	sessions map[checkpoint.ID]bool
	deleted  map[checkpoint.ID]bool
	removed  map[uint64]bool // numbers of deleted checkpoints: their ids may be used again
	large    map[string]bool
}

func journalView(reads []*segmentRead, after uint64) *journalChanges {
	c := &journalChanges{
		sessions: map[checkpoint.ID]bool{}, deleted: map[checkpoint.ID]bool{}, removed: map[uint64]bool{}, large: map[string]bool{},
	}
	for _, r := range reads {
		for i := range r.entries {
			e := &r.entries[i]
			if e.group <= after {
				continue
			}
			c.any = true
			switch e.rec.Type {
			case recSession:
				c.sessions[e.rec.Session.ID] = true
			case recSessionDelete:
				c.deleted[e.rec.SessionID] = true
			case recDelete:
				for _, number := range e.rec.Numbers {
					c.removed[number] = true
				}
			case recLarge:
				c.large[e.rec.File] = true
			}
		}
	}
	return c
}

// replay applies what the files do not hold yet.
func (s *dirStore) replay(reads []*segmentRead) {
	for _, r := range reads {
		if r.tail != nil || r.problem != "" {
			s.keepEvidence(r)
		}
		for i := range r.entries {
			e := &r.entries[i]
			if e.draft != nil {
				s.raise(e.draft.sequence)
				s.lastAt = max(s.lastAt, e.draft.at.UnixNano())
			}
			if e.group > s.headState.Group {
				s.apply(e)
				s.backlog += e.n
				s.pace.behind++
				s.committed = max(s.committed, e.group)
			}
		}
	}
}

// keepEvidence copies what could not be read; the segment itself goes when the rest of it is files.
func (s *dirStore) keepEvidence(r *segmentRead) {
	if r.problem == "" {
		s.noteTorn(r)
		return
	}
	if err := s.quarantineCopy(r.seg.path, r.data, r.problem); err != nil {
		s.opts.Logger.Error("a damaged journal segment cannot be kept in quarantine", "path", r.seg.path, "error", err)
	}
}

func (s *dirStore) noteTorn(r *segmentRead) {
	s.opts.Logger.Warn("the last group of the journal was cut short and was never acknowledged", "path", r.seg.path, "bytes", len(r.tail))
	name := fmt.Sprintf("quarantine/%s.torn_tail", checkpoint.NewID())
	if err := s.createFile(name, r.tail); err != nil {
		s.opts.Logger.Warn("the torn tail cannot be kept", "error", err)
	}
}

// retireRead hands the segments to the publisher: they are never written again.
func (s *dirStore) retireRead(reads []*segmentRead) error {
	for i, r := range reads {
		if i == len(reads)-1 {
			switch err := s.closeSegment(r, r.seg); {
			case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EBADF), noRoom(err):
				s.journal.cut = r
				path, data := r.seg.path, r.data[:r.end:r.end]
				s.unflushed = func() error { return s.writeAgain(path, data) }
			case err != nil:
				return err
			}
		}
		if r.seg.cut = s.journal.cut == r; !r.seg.cut {
			r.data = nil
		}
		r.seg.finished, r.seg.lastGroup, r.seg.end, r.seg.damaged = true, r.lastGrp, r.end, r.problem != ""
		s.segments = append(s.segments, r.seg)
	}
	return nil
}

// cleanTmp removes what an interrupted process left, but not the bodies that the journal names.
func (s *dirStore) cleanTmp(c *journalChanges) {
	entries, err := s.fs.ReadDir("tmp")
	if err != nil {
		s.opts.Logger.Warn("tmp cannot be read", "error", err)
		return
	}
	for _, e := range entries {
		path := "tmp/" + e.Name
		if !c.large[path] && e.Mode&fs.ModeType == 0 {
			if err := ignoreMissing(s.fs.Remove(path)); err != nil && !errors.Is(err, syscall.EROFS) {
				s.opts.Logger.Warn("a left-over cannot be removed", "path", path, "error", err)
			}
		}
	}
}

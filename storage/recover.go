package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	if err := s.openEvents(reads); err != nil {
		return err
	}
	if err := s.openSummaries(); err != nil {
		return s.storageError("opening the index", err)
	}
	pending := journalView(reads, s.headState.Group)
	if err := s.loadSessions(pending); err != nil {
		return s.storageError("reading the sessions", err)
	}
	s.mendManifests()
	s.replay(reads)
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
	marks := map[[2]uint64]int{}
	for _, e := range entries {
		number, ceiling, ext, ok := parseSegmentName(e.Name)
		if !ok {
			continue
		}
		j.number, j.ceiling = max(j.number, number), max(j.ceiling, ceiling)
		if ext == "jsonl" {
			segs = append(segs, &segment{number: number, ceiling: ceiling, path: "journal/" + e.Name})
		} else {
			marks[[2]uint64{number, ceiling}]++
		}
	}
	marked := map[uint64]bool{}
	for m := range marks {
		j.markers = append(j.markers, m)
		marked[m[0]] = true
		j.marked = max(j.marked, m[0])
	}
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
				continue
			}
			r.problem, r.tail = "it has no first line", nil
		}
		j.group = max(j.group, r.lastGrp+1)
		j.last, j.path = r.last, g.path
		reads = append(reads, r)
	}
	return reads, nil
}

func (s *dirStore) dropUnbegun(g *segment) {
	err := g.close()
	if err == nil {
		err = ignoreMissing(s.fs.Remove(g.path))
	}
	if err != nil && !errors.Is(err, syscall.EROFS) {
		s.opts.Logger.Warn("a journal segment that was not begun cannot be removed", "path", g.path, "error", err)
	}
}

// closeSegment ends a segment that was cut: the next one may not follow an open one.
func (s *dirStore) closeSegment(r *segmentRead) error {
	if r.closed && r.problem == "" && int64(len(r.data)) > r.end {
		if err := r.seg.file.Truncate(r.end); err != nil {
			return err
		}
		return r.seg.file.Sync()
	}
	if r.closed || r.problem != "" || r.first.Type == "" {
		return nil
	}
	if len(r.tail) > 0 { // its remains must not stand behind the end
		if err := r.seg.file.Truncate(r.end); err != nil {
			return err
		}
		if err := r.seg.file.Sync(); err != nil {
			return err
		}
	}
	j := &s.journal
	j.current, j.off = r.seg, r.end
	err := j.finish()
	j.current = nil
	r.end = r.seg.end
	return err
}

// journalChanges is what the unpublished part of the journal will do, looked at before
// the files are: a file that is missing because of it is no damage.
type journalChanges struct {
	any      bool
	sessions map[checkpoint.ID]bool
	deleted  map[checkpoint.ID]bool
	large    map[string]bool
}

func journalView(reads []*segmentRead, after uint64) *journalChanges {
	c := &journalChanges{sessions: map[checkpoint.ID]bool{}, deleted: map[checkpoint.ID]bool{}, large: map[string]bool{}}
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
			if err := s.closeSegment(r); err != nil && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EBADF) {
				return err
			}
		}
		r.data = nil
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

// loadSessions reads every session's directory.
func (s *dirStore) loadSessions(c *journalChanges) error {
	entries, err := s.fs.ReadDir("sessions")
	if err != nil {
		return err
	}
	loads := make([]*sessionLoad, 0, len(entries))
	for _, e := range entries {
		if id, err := checkpoint.ParseID(e.Name); err == nil && e.Mode.IsDir() {
			loads = append(loads, &sessionLoad{id: id, dir: sessionDir(id)})
		}
	}
	if err := parallel(len(loads), s.opts.PublishWorkers, func(i int) error { return s.readSession(loads[i], c) }); err != nil {
		return err
	}
	total, done := 0, atomic.Int64{}
	var jobs []loadJob
	for _, l := range loads {
		if l.skip {
			continue
		}
		l.s = s.index.addSession(l.meta)
		l.s.disk = sessionDisk{made: true, manifest: l.hash, bytes: l.pinned}
		for _, r := range l.live {
			jobs = append(jobs, loadJob{l, r})
		}
	}
	total = len(jobs)
	var mu sync.Mutex
	return parallel(total, s.opts.PublishWorkers, func(i int) error {
		row, sum, err := s.loadRow(jobs[i], c)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		id := s.index.add(jobs[i].l.s, row)
		s.index.pending[id] = &pending{summary: sum}
		s.raise(row.sequence)
		s.lastAt = max(s.lastAt, row.at)
		delete(s.index.pending, id)
		if err := s.appendSummary(id, sum); err != nil {
			return err
		}
		if n := done.Add(1); n%1000 == 0 || int(n) == total {
			s.opts.Progress(int(n), total)
		}
		return nil
	})
}

type sessionLoad struct {
	id     checkpoint.ID
	dir    string
	meta   sessionMeta
	s      *session
	skip   bool
	hash   hash.Hash
	pinned int64
	live   []record // added and not removed
}

type loadJob struct {
	l *sessionLoad
	r record
}

// readSession reads session.json and the manifest, and reconciles the two.
func (s *dirStore) readSession(l *sessionLoad, c *journalChanges) error {
	if c.deleted[l.id] && !c.sessions[l.id] {
		if _, err := s.fs.Lstat(l.dir + "/session.json"); errors.Is(err, syscall.ENOENT) {
			l.skip = true // its removal was interrupted: the journal knows that it is gone
			if err := s.removeSessionDir(l.id); !errors.Is(err, syscall.EROFS) {
				return err
			}
			return nil
		}
	}
	var meta record
	b, err := s.readAll(l.dir + "/session.json")
	if err == nil {
		meta, err = parseRecord(b)
		if err == nil && (meta.Type != recSession || meta.Session == nil || meta.Session.ID != l.id) {
			err = &damageError{"it describes something else"}
		}
		if err != nil {
			meta = record{}
			if qerr := s.quarantine(checkpoint.ID{}, l.dir+"/session.json", err.Error(), nil); qerr != nil {
				return qerr
			}
		}
	} else if errors.Is(err, syscall.ENOENT) && c.sessions[l.id] {
		l.skip = true // it was being made: the journal has it
		return nil
	} else if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errStrange) {
		return err
	} else if qerr := s.quarantine(checkpoint.ID{}, l.dir+"/session.json", "the file is gone", nil); qerr != nil {
		return qerr
	}
	if err == nil {
		l.meta = *meta.Session
	} else {
		l.meta = sessionMeta{Session: checkpoint.Session{
			ID: l.id, Name: "recovered", Status: checkpoint.Active, OwnerUID: uint32(os.Getuid()),
			CreatedAt: s.opts.Now().UTC(), UpdatedAt: s.opts.Now().UTC(),
		}}
		meta.Bytes = -1
	}
	return s.readManifest(l, &meta, c)
}

func (s *dirStore) readManifest(l *sessionLoad, meta *record, c *journalChanges) error {
	path := l.dir + "/manifest.jsonl"
	b, err := s.readAll(path)
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errStrange) {
		return err
	}
	problem := ""
	if err != nil {
		problem = "the file is gone"
	}
	pinned := int64(-1)
	if meta.Bytes >= 0 && int64(len(b)) >= meta.Bytes && hexSum(b[:meta.Bytes]) == meta.Sum {
		rest := b[meta.Bytes:]
		if n := bytes.IndexByte(rest, '\n') + 1; n > 0 {
			if r, err := parseRecord(rest[:n]); err == nil && r.Type == recDescribed && r.Sum == meta.sum {
				pinned = meta.Bytes + int64(n)
			}
		}
	}
	if pinned >= 0 && (int64(len(b)) == pinned || c.any) {
		b = b[:pinned] // lines beyond are those of a round that did not end; the journal adds them again
	} else if problem == "" {
		if meta.Session != nil && !c.any && outgrown(b, meta) {
			if err := s.quarantine(checkpoint.ID{}, l.dir+"/session.json", "it is older than the manifest", nil); err != nil {
				return err
			}
			meta.Session = nil
		}
		problem = "it is not what session.json says"
	}
	state := s.manifestState(b)
	if problem != "" {
		if meta.Session != nil || state.broken {
			if err := s.quarantineCopy(path, b, problem); err != nil {
				return err
			}
		}
		if err := s.addListed(l, state); err != nil {
			return err
		}
		if meta.Session == nil && state.session != nil && state.session.ID == l.id {
			l.meta = *state.session
			l.meta.HeadID = state.newest()
		}
		l.hash, l.pinned = nil, 0
		s.mu.Lock()
		s.repair = append(s.repair, l.id)
		s.mu.Unlock()
	} else {
		l.hash = sha256.New()
		l.hash.Write(b)
		l.pinned = int64(len(b))
	}
	for _, r := range state.added {
		l.live = append(l.live, r)
	}
	return s.readNotes(l, state)
}

// outgrown says that the manifest is whole and goes on after what session.json knows of it.
func outgrown(b []byte, meta *record) bool {
	lines := splitLines(b)
	if meta.Bytes < 0 || int64(len(b)) <= meta.Bytes || hexSum(b[:meta.Bytes]) != meta.Sum || len(lines) < 2 {
		return false
	}
	last := record{}
	for _, l := range lines {
		r, err := parseRecord(l)
		if err != nil {
			return false
		}
		last = r
	}
	return last.Type == recDescribed && last.Sum != meta.sum
}

type manifestState struct {
	added   map[checkpoint.ID]record
	notes   map[checkpoint.ID]record
	removed map[string]bool // file names
	broken  bool            // some line does not verify
	session *sessionMeta    // the settings that it told of last
}

// manifestState reads what lines verify.
func (s *dirStore) manifestState(b []byte) *manifestState {
	m := &manifestState{added: map[checkpoint.ID]record{}, notes: map[checkpoint.ID]record{}, removed: map[string]bool{}}
	for _, l := range splitLines(b) {
		r, err := parseRecord(l)
		if err != nil {
			m.broken = true
			continue
		}
		switch r.Type {
		case recAdded:
			m.added[r.CheckpointID] = r
		case recDescribed:
			if r.Session != nil {
				m.session = r.Session
			}
		case recAnnotations:
			m.notes[r.CheckpointID] = r
		case recRemoved:
			for i, id := range r.IDs {
				if i < len(r.Numbers) && m.added[id].Number == r.Numbers[i] {
					delete(m.added, id)
				}
				delete(m.notes, id)
				if i < len(r.Numbers) {
					m.removed[fmt.Sprintf("%020d-%s.json", r.Numbers[i], id)] = true
				}
			}
		}
	}
	return m
}

// mendManifests writes the manifests anew that were damaged, from what was found.
func (s *dirStore) mendManifests() {
	for _, id := range s.repair {
		sess := s.index.bySess[id]
		j := &sessionJob{s: sess, meta: sess.meta}
		for _, r := range sess.rows {
			row := s.index.row(r)
			add := record{Type: recAdded, CheckpointID: row.id, Number: row.sequence, Bytes: int64(row.bytes)}
			refs := []summaryRef{s.summaryRef(r)}
			if row.flags&rowCorrupt == 0 && s.loadSummaries(refs) == nil {
				if sum, err := refs[0].decode(); err == nil {
					add.Sum = strings.TrimPrefix(sum.Checksum, "sha256:")
				}
			}
			j.lines = append(j.lines, add)
			if notes := s.notes[row.id]; len(notes) > 0 {
				if n, err := s.writeNotes(id, row.id, notes); err == nil {
					j.lines = append(j.lines, n)
				}
			}
		}
		if err := s.writeManifest(j); err != nil {
			s.opts.Logger.Error("a damaged manifest cannot be written anew; it is tried at the next start", "session", id, "error", err)
		}
	}
	s.repair = nil
}

// newest is the head that a session most likely had.
func (m *manifestState) newest() (id checkpoint.ID) {
	var number uint64
	for _, r := range m.added {
		if r.Number > number {
			id, number = r.CheckpointID, r.Number
		}
	}
	return id
}

// addListed finds checkpoints that a damaged manifest does not tell of by their files.
func (s *dirStore) addListed(l *sessionLoad, m *manifestState) error {
	entries, err := s.fs.ReadDir(l.dir + "/checkpoints")
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, id, ok := parseCheckpointName(e.Name)
		if _, there := m.added[id]; ok && !there && !m.removed[e.Name] {
			m.added[id] = record{Type: recAdded, CheckpointID: id, Number: number}
		}
	}
	return nil
}

func parseCheckpointName(name string) (number uint64, id checkpoint.ID, ok bool) {
	base, isJSON := strings.CutSuffix(name, ".json")
	if !isJSON || len(base) != 57 || base[20] != '-' {
		return 0, id, false
	}
	if _, err := fmt.Sscanf(base[:20], "%020d", &number); err != nil {
		return 0, id, false
	}
	id, err := checkpoint.ParseID(base[21:])
	return number, id, err == nil
}

func (s *dirStore) readNotes(l *sessionLoad, m *manifestState) error {
	for id, want := range m.notes {
		if _, ok := m.added[id]; !ok {
			continue
		}
		path := notesPath(l.id, id)
		b, err := s.readAll(path)
		if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errStrange) {
			return err
		}
		problem := ""
		if err != nil {
			problem = "the file is gone"
		} else if hexSum(b) != want.Sum {
			problem = "it is not what the manifest says"
		}
		var notes []checkpoint.Annotation
		for _, ln := range splitLines(b) {
			if r, err := parseRecord(ln); err == nil && r.Annotation != nil && r.CheckpointID == id {
				notes = append(notes, *r.Annotation)
			}
		}
		s.mu.Lock()
		s.notes[id] = notes
		s.mu.Unlock()
		// More notes than the manifest knows are those of a round that did not end.
		if problem != "" && !(len(notes) > want.Count && hexSum(firstLines(b, want.Count)) == want.Sum) {
			if err := s.quarantineCopy(path, b, problem); err != nil {
				return err
			}
		}
	}
	return nil
}

func firstLines(b []byte, n int) []byte {
	end := 0
	for range n {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			return b
		}
		end += i + 1
	}
	return b[:end]
}

// loadRow reads one checkpoint's file for its summary. A damaged one keeps its row.
func (s *dirStore) loadRow(j loadJob, _ *journalChanges) (row, []byte, error) {
	path := checkpointPath(j.l.id, j.r.Number, j.r.CheckpointID)
	r := row{id: j.r.CheckpointID, sequence: j.r.Number, bytes: uint32(j.r.Bytes)}
	r.notes = uint16(len(s.notes[r.id]))
	if _, ok := s.damaged[r.id]; ok {
		r.flags = rowCorrupt
		sum := s.damagedSummary(&r, j.l.id) // it writes to r
		return r, sum, nil
	}
	b, err := s.readAll(path)
	problem := ""
	switch {
	case err == nil:
		p, err := verifyCheckpoint(b, r.id, j.l.id, r.sequence)
		if err == nil && j.r.Sum != "" && p.sum != j.r.Sum {
			err = &damageError{"it is not the file that the manifest names"}
		}
		if err == nil {
			r.at, r.bytes = p.at.UnixNano(), uint32(len(b))
			r.trigger, r.cause = triggerCode(p.trigger), causeCode(p.cause)
			if p.draft.files {
				r.flags |= rowFiles
			}
			return r, p.summary(), nil
		}
		problem = err.Error()
	case errors.Is(err, syscall.ENOENT), errors.Is(err, errStrange):
		problem = "the file is gone"
		if errors.Is(err, errStrange) {
			problem = errStrange.Error()
		}
	default:
		return r, nil, err
	}
	r.flags = rowCorrupt
	sum := s.damagedSummary(&r, j.l.id)
	return r, sum, s.quarantine(r.id, path, problem, sum)
}

// damagedSummary shows a checkpoint whose file is no longer sound as it was known before,
// or else by its name alone: most ids hold the time when they were given.
func (s *dirStore) damagedSummary(r *row, session checkpoint.ID) []byte {
	if sum := s.damagedSums[r.id]; sum != nil {
		if known, err := decodeSummary(append(bytes.Clone(sum), '}')); err == nil {
			r.at, r.trigger, r.cause = known.Timestamp.UnixNano(), triggerCode(known.Trigger), causeCode(known.Cause)
			return sum
		}
	}
	if r.id[6]>>4 == 7 { // a version 7 id begins with milliseconds
		r.at = int64(binary.BigEndian.Uint64(append([]byte{0, 0}, r.id[:6]...))) * int64(time.Millisecond)
	}
	d := &draft{
		id: r.id, session: session, message: []byte(`""`), tags: []byte(`[]`), trigger: checkpoint.Manual, sequence: r.sequence,
		at: time.Unix(0, r.at).UTC(),
	}
	r.trigger = triggerCode(checkpoint.Manual)
	d.sum = strings.Repeat("0", hexBytes)
	return d.summary()
}

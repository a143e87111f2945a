package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

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

// publishBatch records make a round: what memory holds of them is small, and a deletion does
// not wait long. With SyncFS each round flushes the file system twice, so rounds are larger.
const publishBatch, syncFSBatch = 4096, 16384

// sweepAfter deletions captured files are collected; Sync and Close collect them too.
const sweepAfter = 1000

// publishLoop writes the journal's records out as files, in its own time.
func (s *dirStore) publishLoop() {
	defer s.loops.Done()
	wait := time.Duration(0)
	for s.awaitWork(wait) {
		if err := s.publishSome(); err != nil {
			if noRoom(err) {
				more, roomErr := s.findRoom()
				if more {
					continue
				}
				err = errors.Join(err, roomErr)
			}
			s.setPublishError(err)
			if s.isClosing() {
				return
			}
			wait = min(max(2*wait, 100*time.Millisecond), 5*time.Second)
			continue
		}
		s.setPublishError(nil)
		s.takeReserve() // again, when there is room
		if s.fewer *= 2; s.fewer > syncFSBatch {
			s.fewer = 0
		}
		wait = 0
		if s.sweepDue.Load() >= sweepAfter {
			s.sweepFiles(context.Background())
		}
	}
}

// awaitWork returns false when the store is closing and nothing is left, or no time for it.
func (s *dirStore) awaitWork(wait time.Duration) bool {
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.stop:
		}
	}
	s.qmu.Lock()
	defer s.qmu.Unlock()
	for {
		if s.drained && s.opts.CloseWithin > 0 && time.Now().After(s.closeBy) {
			return false
		}
		if s.retirable() || s.committed > s.published && !s.givesWay() {
			return true
		}
		if s.drained && s.committed <= s.published {
			return false
		}
		s.pbell.Wait()
	}
}

func (s *dirStore) isClosing() bool {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	return s.drained
}

func (s *dirStore) retirable() bool {
	return len(s.segments) > 0 && s.segments[0].finished && s.segments[0].lastGroup <= s.published
}

// batch is what one round publishes.
type batch struct {
	items    []item
	group    uint64
	bytes    int64
	files    []fileJob
	sessions map[checkpoint.ID]*sessionJob
	events   []eventLine
	first    uint64
	next     uint64
	created  uint64
	segment  uint64 // the newest segment that may go with this batch
}

type fileJob struct {
	session *sessionJob
	id      checkpoint.ID
	p       *pending
	path    string
	number  uint64
	bytes   int64
	summary []byte
}

type sessionJob struct {
	s        *session
	meta     sessionMeta
	deleted  bool
	lines    []record
	notes    map[checkpoint.ID][]checkpoint.Annotation
	noted    map[checkpoint.ID]int // how many notes are in the file now
	wrote    map[checkpoint.ID]int // and how many of them are new there
	unlink   []string
	newFiles bool
	// described is the new session.json on its way to its name, with SyncFS.
	described string
}

func (s *dirStore) publishSome() error {
	s.round.Lock()
	defer s.round.Unlock()
	if s.flushLost != nil {
		return s.flushLost
	}
	if s.unflushed != nil {
		if err := s.unflushed(); err != nil {
			return err
		}
		s.unflushed = nil
	}
	b := s.gather()
	if len(b.items) > 0 {
		if err := s.writeFiles(b); err != nil {
			return err
		}
		err := s.each(b, s.describe)
		if err == nil && s.opts.SyncFS {
			err = s.flushAll(b)
		}
		if err != nil {
			return errors.Join(err, s.dropDescriptions(b))
		}
		if err := s.each(b, s.sweep); err != nil {
			return err
		}
		if err := s.appendEvents(b); err != nil {
			return err
		}
		if err := s.appendIndex(b); err != nil {
			return err
		}
		if err := s.writeHead(b); err != nil {
			return err
		}
		s.settle(b)
	}
	return s.retire()
}

// gather takes whole groups from the queue and looks up, under the lock, what they need.
func (s *dirStore) gather() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.items), s.roundSize())
	for n > 0 && n < len(s.items) && s.items[n].group == s.items[n-1].group {
		n++
	}
	s.gathered = n
	b := &batch{items: s.items[:n:n], sessions: map[checkpoint.ID]*sessionJob{}, created: s.headState.Created, next: s.headState.FirstEvent}
	b.first = b.next
	for i := range b.items {
		s.gatherItem(b, &b.items[i])
	}
	for _, j := range b.sessions {
		j.meta = j.s.meta
	}
	return b
}

func (s *dirStore) gatherItem(b *batch, it *item) {
	b.group, b.bytes = it.group, b.bytes+it.bytes
	if it.event != nil {
		b.events = append(b.events, eventLine{it.number, it.event})
		b.next = it.number + 1
	}
	if it.rec.Type == recSession {
		b.created++
	}
	if it.session == nil {
		return
	}
	id := it.session.meta.ID
	j := b.sessions[id]
	if j == nil || j.s != it.session {
		j = &sessionJob{
			s: it.session, notes: map[checkpoint.ID][]checkpoint.Annotation{}, noted: map[checkpoint.ID]int{}, wrote: map[checkpoint.ID]int{},
		}
		b.sessions[id] = j
	}
	j.deleted = it.session.gone
	if it.rec.Type == recDelete || it.rec.Type == recSessionDelete {
		s.sweepDue.Add(int64(max(len(it.rec.IDs), it.rec.Count)))
	}
	switch it.rec.Type {
	case "", recLarge:
		s.gatherCheckpoint(b, j, it)
	case recDelete:
		j.lines = append(j.lines, record{Type: recRemoved, IDs: it.rec.IDs, Numbers: it.rec.Numbers})
		for i, gone := range it.rec.IDs {
			j.unlink = append(j.unlink, checkpointPath(id, it.rec.Numbers[i], gone), notesPath(id, gone))
		}
	case recAnnotate:
		if _, ok := s.index.byID[it.rec.CheckpointID]; ok {
			j.notes[it.rec.CheckpointID] = append([]checkpoint.Annotation(nil), s.notes[it.rec.CheckpointID]...)
			j.noted[it.rec.CheckpointID] = 0
		}
	}
}

func (s *dirStore) gatherCheckpoint(b *batch, j *sessionJob, it *item) {
	row, ok := s.index.byID[it.id]
	if !ok {
		return // deleted before it was published
	}
	p := s.index.pending[row]
	if p == nil {
		return
	}
	r := s.index.row(row)
	b.files = append(b.files, fileJob{
		session: j, id: it.id, p: p, path: checkpointPath(j.s.meta.ID, r.sequence, it.id), number: r.sequence,
		bytes: int64(r.bytes), summary: p.summary,
	})
	j.lines = append(j.lines, record{Type: recAdded, CheckpointID: it.id, Number: r.sequence, Bytes: int64(r.bytes), Sum: p.sum})
	j.newFiles = true
}

// parallel runs f for 0..n-1 on some workers and joins what went wrong.
func parallel(n, workers int, f func(int) error) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		next int
		errs []error
	)
	for range min(n, workers) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := len(errs) > 0
				mu.Unlock()
				if i >= n || stop {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *dirStore) each(b *batch, f func(*sessionJob) error) error {
	jobs := make([]*sessionJob, 0, len(b.sessions))
	for _, j := range b.sessions {
		jobs = append(jobs, j)
	}
	return parallel(len(jobs), s.opts.PublishWorkers, func(i int) error { return f(jobs[i]) })
}

func (s *dirStore) writeFiles(b *batch) error {
	if err := s.each(b, s.makeDirs); err != nil {
		return err
	}
	err := parallel(len(b.files), s.opts.PublishWorkers, func(i int) error {
		f := &b.files[i]
		if f.session.deleted {
			return nil
		}
		return s.writeCheckpointFile(f)
	})
	return err
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

// makeDirs makes a session's directories; their names are durable before a file is. The
// one of annotations comes with the first of them.
func (s *dirStore) makeDirs(j *sessionJob) error {
	if j.s.disk.made || j.deleted {
		return nil
	}
	dir := sessionDir(j.s.meta.ID)
	if _, err := s.fs.Lstat(dir); err == nil {
		// Of a session that had the same id, or of a round that was cut: the journal has all of this one.
		if err := s.removeSessionDir(j.s.meta.ID); err != nil {
			return err
		}
	}
	for _, d := range []string{dir, dir + "/checkpoints"} {
		if err := s.fs.Mkdir(d); err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return err
	}
	if err := s.fs.SyncDir("sessions"); err != nil {
		return err
	}
	j.s.disk.made = true
	return nil
}

// writeCheckpointFile makes the file under its own name; the journal holds the bytes as
// long as it may be unfinished. One that is there from before a crash is replaced.
func (s *dirStore) writeCheckpointFile(f *fileJob) error {
	var err error
	if f.p.large != "" {
		err = s.createWith(f.path, !s.opts.SyncFS, func(file vfs.File) error { return s.copyLarge(file, f.p) })
	} else {
		room := bodies.get(f.p.n)
		defer bodies.put(room)
		if _, err := f.p.seg.ReadAt(room[:f.p.n], f.p.off); err != nil {
			return err
		}
		err = s.create(f.path, room[:f.p.n], !s.opts.SyncFS)
	}
	if !errors.Is(err, syscall.EEXIST) {
		return err
	}
	body, err := s.readPending(f.p)
	if err != nil {
		return err
	}
	return s.replaceFile(f.path, body)
}

// copyLarge is readPending for a body of its own, piece by piece: no memory holds it whole.
func (s *dirStore) copyLarge(to vfs.File, p *pending) error {
	body, err := s.fs.Open(p.large, os.O_RDONLY)
	if err != nil {
		return err
	}
	room := bodies.get(pooledBody)
	defer bodies.put(room)
	end := p.n - int64(len(p.tail)+len(lineEnd))
	size, err := body.Size()
	if err == nil && size != end {
		err = &damageError{fmt.Sprintf("%s has %d bytes", p.large, size)}
	}
	if err == nil {
		_, err = to.WriteAt(0, header(p.sum))
	}
	for off := int64(checkpointHeader); err == nil && off < end; {
		piece := room[:min(int64(len(room)), end-off)]
		if _, err = body.ReadAt(piece, off); err == nil {
			_, err = to.WriteAt(off, piece)
		}
		off += int64(len(piece))
	}
	if err == nil {
		_, err = to.WriteAt(end, p.tail, []byte(lineEnd))
	}
	return errors.Join(err, body.Close())
}

func (s *dirStore) createFile(path string, body []byte) error { return s.create(path, body, true) }

// create makes a new file; one that is not flushed here waits for flushAll.
func (s *dirStore) create(path string, body []byte, flush bool) error {
	return s.createWith(path, flush, func(file vfs.File) error {
		_, err := file.WriteAt(0, body)
		return err
	})
}

func (s *dirStore) createWith(path string, flush bool, write func(vfs.File) error) error {
	file, err := s.fs.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	err = write(file)
	if err == nil && flush {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(s.fs.Remove(path)))
	}
	return nil
}

// replaceFile puts a whole new file in a name's place. The directory is the caller's to flush.
func (s *dirStore) replaceFile(path string, body []byte) error {
	tmp := "tmp/" + checkpoint.NewID().String()
	if err := writeFile(s.fs, tmp, 0, body); err != nil {
		return err
	}
	err := s.fs.Rename(tmp, path)
	if strange(err) {
		if err = s.quarantine(checkpoint.ID{}, path, errStrange.Error(), nil); err == nil {
			err = s.fs.Rename(tmp, path)
		}
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(s.fs.Remove(tmp)))
	}
	return nil
}

// strange says that something else stands in a file's place: a directory, a link, a FIFO.
func strange(err error) bool {
	return errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO)
}

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

// settle lets go of what memory held until the files were there.
func (s *dirStore) settle(b *batch) {
	s.mu.Lock()
	s.items = s.items[len(b.items):]
	if len(s.items) == 0 {
		s.items = nil
	}
	s.unpublished -= len(b.items)
	var large []string
	for i := range b.files {
		f := &b.files[i]
		if row, ok := s.index.byID[f.id]; ok && s.index.pending[row] == f.p {
			delete(s.index.pending, row)
		}
	}
	for _, j := range b.sessions {
		for id, n := range j.wrote {
			row, ok := s.index.byID[id]
			if !ok || len(s.notes[id]) < n {
				continue
			}
			if s.notes[id] = s.notes[id][n:]; len(s.notes[id]) == 0 {
				delete(s.notes, id)
			}
			s.index.row(row).notes = uint16(j.noted[id] + len(s.notes[id])) // damaged ones are lost
		}
	}
	for i := range b.items {
		if b.items[i].rec.Type == recLarge {
			large = append(large, b.items[i].rec.File)
		}
	}
	s.mu.Unlock()
	for _, path := range large {
		s.dropLarge(path)
	}
	s.qmu.Lock()
	s.published = b.group
	s.backlog -= b.bytes
	s.pace.behind -= len(b.items)
	s.qbell.Broadcast()
	s.pbell.Broadcast()
	s.qmu.Unlock()
}

// retire removes segments whose records all are files now.
func (s *dirStore) retire() error {
	for {
		s.qmu.Lock()
		if !s.retirable() {
			s.qmu.Unlock()
			return nil
		}
		g := s.segments[0]
		s.qmu.Unlock()
		if s.headState.Segment < g.number {
			if err := s.makeMarkers(); err != nil {
				return err
			}
			h := &s.headState
			if err := s.writeHead(&batch{group: h.Group, next: h.FirstEvent, created: h.Created, segment: g.number}); err != nil {
				return err
			}
		}
		s.syncIndex()
		if err := g.close(); err != nil {
			return err
		}
		if err := ignoreMissing(s.fs.Remove(g.path)); err != nil {
			return err
		}
		if err := s.fs.SyncDir("journal"); err != nil {
			return err
		}
		s.qmu.Lock()
		s.segments = s.segments[1:]
		s.pbell.Broadcast()
		s.qmu.Unlock()
	}
}

func (s *dirStore) setPublishError(err error) {
	s.stateMu.Lock()
	changed := (s.publishErr == nil) != (err == nil)
	s.publishErr = err
	s.stateMu.Unlock()
	s.qmu.Lock()
	s.pbell.Broadcast()
	s.qmu.Unlock()
	if changed && err != nil {
		s.opts.Logger.Error("publishing waits: the files cannot be written; it is tried again", "error", err)
	}
}

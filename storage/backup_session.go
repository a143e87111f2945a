package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// copied is a session of the copy.
type copied struct {
	highest uint64

	mu       sync.Mutex     // guards what follows
	have     map[string]int // its files: how many checkpoints each counts as
	contents map[checkpoint.ID][]string
}

func (s *copied) has(file string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.have[file]
	return ok
}

func (s *copied) keep(file string, checkpoints int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[file] = checkpoints
}

func (s *copied) forget(file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, file)
}

// pinnedSession is a session as session.json and the manifest tell of it together.
type pinnedSession struct {
	meta     []byte // session.json
	manifest []byte
	state    *manifestState
}

var errUnpinned = errors.New("the manifest is not what session.json says")

// readPinned reads session.json and the part of the manifest that it pins. The manifest is
// appended to before session.json is replaced, so that part is there while the daemon writes.
func (t *tree) readPinned(id checkpoint.ID) (*pinnedSession, error) {
	dir := sessionDir(id)
	meta, err := t.readAll(dir + "/session.json")
	if err != nil {
		return nil, err
	}
	r, err := parseRecord(meta)
	if err != nil || r.Type != recSession || r.Session == nil || r.Session.ID != id {
		return nil, &damageError{fmt.Sprint("damaged: ", err)}
	}
	m, err := t.readAll(dir + "/manifest.jsonl")
	if err != nil {
		return nil, err
	}
	if r.Bytes < 0 || int64(len(m)) <= r.Bytes {
		return nil, errUnpinned
	}
	last := slices.Index(m[r.Bytes:], '\n') + 1
	m = m[:r.Bytes+int64(last)]
	state := t.manifestState(m)
	if pinned(m, &r, state) != "" {
		return nil, errUnpinned
	}
	return &pinnedSession{meta, m, state}, nil
}

// copySessions copies every session that is there now. One that is made later is not
// among what was acknowledged before.
func (b *backup) copySessions(ctx context.Context) error {
	entries, err := b.from.fs.ReadDir("sessions")
	if err != nil {
		return err
	}
	var ids []checkpoint.ID
	for _, e := range entries {
		if id, err := checkpoint.ParseID(e.Name); err == nil && e.Mode&fs.ModeType == fs.ModeDir {
			ids = append(ids, id)
		}
	}
	return parallel(len(ids), b.o.Workers, func(i int) error { return b.copySession(ctx, ids[i]) })
}

const (
	// A session's record that cannot be read together this many times is damaged: each
	// time nothing was seen to change.
	backupTries = 10
	backupWait  = 50 * time.Millisecond
)

// copySession copies one session as of some moment. What the daemon deletes meanwhile is
// gone from the manifest before it is gone from the directory, so reading again settles it.
func (b *backup) copySession(ctx context.Context, id checkpoint.ID) error {
	var before *pinnedSession
	for tries := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		now, err := b.from.readPinned(id)
		var damage *damageError
		switch {
		case err == nil:
			same := before != nil && string(before.meta) == string(now.meta)
			whole, err := b.copyPinned(ctx, id, now, same)
			if err != nil || whole {
				return err
			}
			before = now
			continue
		case !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errUnpinned) && !errors.Is(err, errStrange) && !errors.As(err, &damage):
			return err
		}
		if _, gone := b.from.fs.Lstat(sessionDir(id)); errors.Is(gone, syscall.ENOENT) {
			return b.drop(id)
		}
		if tries++; tries == backupTries {
			return b.damagedSession(ctx, id, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backupWait):
		}
	}
}

// damagedSession takes a session that the store cannot tell of from the earlier copy.
func (b *backup) damagedSession(ctx context.Context, id checkpoint.ID, problem error) error {
	if _, err := b.from.fs.Lstat(sessionDir(id) + "/manifest.jsonl"); errors.Is(err, syscall.ENOENT) && b.old == nil {
		return b.drop(id) // one that is being made since
	}
	b.damaged(checkpoint.ID{}, sessionDir(id)+"/session.json", fmt.Sprintf("session.json and manifest.jsonl cannot be read together: %v", problem))
	if b.old == nil {
		return nil
	}
	earlier, err := b.old.readPinned(id)
	if err != nil {
		return b.drop(id)
	}
	_, err = b.copyPinned(ctx, id, earlier, true)
	return err
}

// drop removes what was copied of a session that was deleted meanwhile.
func (b *backup) drop(id checkpoint.ID) error {
	b.mu.Lock()
	s := b.sessions[id]
	delete(b.sessions, id)
	if s != nil {
		b.report.Sessions--
		for _, n := range s.have {
			b.report.Checkpoints -= n
		}
	}
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	return b.to.removeSessionDir(id)
}

// copyPinned copies what a manifest names. It is false when something is missing that may
// have been deleted; with sure it cannot have been, and is damage.
func (b *backup) copyPinned(ctx context.Context, id checkpoint.ID, p *pinnedSession, sure bool) (bool, error) {
	s, err := b.makeSession(id)
	if err != nil {
		return false, err
	}
	known := &manifestState{}
	if b.old != nil {
		if earlier, err := b.old.readPinned(id); err == nil {
			known = earlier.state
		}
	}
	b.mu.Lock()
	b.total += len(p.state.added)
	b.mu.Unlock()
	want := map[string]bool{}
	var jobs []func() (bool, error)
	for cp, r := range p.state.added {
		s.highest = max(s.highest, r.number)
		want[checkpointPath(id, r.number, cp)] = true
		there := r.sum != "" && known.added[cp].sum == r.sum && known.added[cp].number == r.number
		jobs = append(jobs, func() (bool, error) { return b.copyCheckpoint(s, id, r, there, sure) })
	}
	for cp, r := range p.state.notes {
		if _, ok := p.state.added[cp]; ok {
			want[notesPath(id, cp)] = true
			jobs = append(jobs, func() (bool, error) { return b.copyNotes(s, id, r, known.notes[cp].Sum == r.Sum, sure) })
		}
	}
	var missing atomic.Bool
	err = parallel(len(jobs), b.o.Workers, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		ok, err := jobs[i]()
		if !ok {
			missing.Store(true)
		}
		return err
	})
	if err != nil || missing.Load() {
		return false, err
	}
	for file, n := range s.have { // of an attempt before
		if !want[file] {
			if err := b.to.fs.Remove(file); err != nil {
				return false, err
			}
			delete(s.have, file)
			b.count(0, -n)
		}
	}
	for cp := range s.contents {
		if _, ok := p.state.added[cp]; !ok {
			delete(s.contents, cp)
		}
	}
	return true, b.describe(id, p)
}

// makeSession makes a session's directories the first time.
func (b *backup) makeSession(id checkpoint.ID) (*copied, error) {
	b.mu.Lock()
	s := b.sessions[id]
	b.mu.Unlock()
	if s != nil {
		return s, nil
	}
	dir := sessionDir(id)
	for _, d := range []string{dir, dir + "/checkpoints", dir + "/annotations"} {
		if err := b.to.fs.Mkdir(d); err != nil {
			return nil, err
		}
	}
	s = &copied{have: map[string]int{}, contents: map[checkpoint.ID][]string{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[id] = s
	b.report.Sessions++
	return s, nil
}

func (b *backup) count(done, checkpoints int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Checkpoints += checkpoints
	if done > 0 {
		b.o.Progress(b.report.Checkpoints, b.total)
	}
}

// copyCheckpoint copies one file. A damaged one is left out: the copy's manifest names it,
// so that it is known to be missing.
func (b *backup) copyCheckpoint(s *copied, session checkpoint.ID, r listed, known, sure bool) (bool, error) {
	file := checkpointPath(session, r.number, r.id)
	if s.has(file) {
		return true, nil
	}
	check := func(body []byte) error {
		p, err := verifyCheckpoint(body, r.id, session, r.number)
		if err == nil && r.sum != "" && p.sum != r.sum {
			return &damageError{"it is not the file that the manifest names"}
		}
		return err
	}
	if known && b.link(file, r.bytes, check) {
		s.keep(file, 1)
		b.count(1, 1)
		return true, nil
	}
	body, err := b.from.readAll(file)
	switch {
	case errors.Is(err, syscall.ENOENT):
		if !sure && !b.known[file] {
			return false, nil
		}
		b.damaged(r.id, file, "the file is gone")
		return true, nil
	case errors.Is(err, errStrange):
		b.damaged(r.id, file, err.Error())
		return true, nil
	case err != nil:
		return false, err
	}
	if err := check(body); err != nil {
		b.damaged(r.id, file, err.Error())
		return true, nil
	}
	if err := s.named(body, r, session); err != nil {
		return false, err
	}
	if err := b.put(file, body); err != nil {
		return false, err
	}
	s.keep(file, 1)
	b.count(1, 1)
	return true, nil
}

// named remembers which captured files a checkpoint names.
func (s *copied) named(body []byte, r listed, session checkpoint.ID) error {
	p, err := verifyCheckpoint(body, r.id, session, r.number)
	if err != nil {
		return err
	}
	if !p.draft.files {
		return nil
	}
	files, err := p.files()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		s.contents[r.id] = append(s.contents[r.id], f.SHA256)
	}
	return nil
}

// describe writes the session's own two files, or takes them as they are in the earlier copy.
func (b *backup) describe(id checkpoint.ID, p *pinnedSession) error {
	for _, f := range []struct {
		name string
		body []byte
	}{{"manifest.jsonl", p.manifest}, {"session.json", p.meta}} {
		file := path.Join(sessionDir(id), f.name)
		if err := ignoreMissing(b.to.fs.Remove(file)); err != nil {
			return err
		}
		if b.old != nil {
			if body, err := b.old.readAll(file); err == nil && string(body) == string(f.body) && b.link(file, int64(len(body)), func([]byte) error { return nil }) {
				continue
			}
		}
		if err := b.put(file, f.body); err != nil {
			return err
		}
	}
	return nil
}

package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// audit collects what ValidateAll finds.
type audit struct {
	s      *dirStore
	pace   func(int64) error
	report Report
	named  map[string]bool
}

func (a *audit) problem(id checkpoint.ID, path, problem string) {
	if a.named[path] {
		return
	}
	a.named[path] = true
	a.report.Problems = append(a.report.Problems, Problem{CheckpointID: id, Path: path, Problem: problem})
}

// read gives a file's bytes, or nil when it is damaged in a way that is named already.
func (a *audit) read(path string) ([]byte, error) {
	if a.pace != nil {
		if info, err := a.s.fs.Lstat(path); err == nil {
			if err := a.pace(info.Size); err != nil {
				return nil, err
			}
		}
	}
	b, err := a.s.readAll(path)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, syscall.ENOENT):
		a.problem(checkpoint.ID{}, path, "the file is gone")
	case errors.Is(err, errStrange):
		a.problem(checkpoint.ID{}, path, errStrange.Error())
	default:
		a.report.Skipped++
		a.s.opts.Logger.Warn("a file could not be read", "path", path, "error", err)
	}
	return nil, nil
}

// ValidateAll reads everything again: index/ is a cache and left out.
func (s *dirStore) ValidateAll(ctx context.Context, session checkpoint.ID, pace func(int64) error) (Report, error) {
	a := &audit{s: s, pace: pace, named: map[string]bool{}}
	s.mu.RLock()
	known := append([]Problem(nil), s.problems...)
	var ids []checkpoint.ID
	for id := range s.index.bySess {
		if session.IsZero() || id == session {
			ids = append(ids, id)
		}
	}
	s.mu.RUnlock()
	if !session.IsZero() && len(ids) == 0 {
		return Report{}, noSession(session)
	}
	for _, p := range known {
		if session.IsZero() || strings.HasPrefix(p.Path, sessionDir(session)) {
			a.problem(p.CheckpointID, p.Path, p.Problem)
		}
	}
	for _, id := range ids {
		if err := a.session(ctx, id); err != nil {
			return a.report, err
		}
	}
	if session.IsZero() {
		if err := a.store(ctx); err != nil {
			return a.report, err
		}
	}
	return a.report, nil
}

func (a *audit) session(ctx context.Context, id checkpoint.ID) error {
	if err := a.described(id); err != nil {
		return err
	}
	a.s.mu.RLock()
	sess := a.s.index.bySess[id]
	var list []location
	if sess != nil {
		for _, r := range sess.rows {
			list = append(list, a.s.locate(r))
		}
	}
	a.s.mu.RUnlock()
	for _, l := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.pace != nil {
			if err := a.pace(l.bytes); err != nil {
				return err
			}
		}
		a.checkpoint(l)
	}
	return nil
}

func (a *audit) checkpoint(l location) {
	_, err := a.s.load(l)
	var e *checkpoint.Error
	switch {
	case err == nil:
		a.report.Valid++
	case errors.As(err, &e) && e.Kind == checkpoint.KindNotFound:
		return // deleted meanwhile
	case errors.As(err, &e) && e.Kind == checkpoint.KindCorrupt:
		a.report.Invalid++
		a.s.mu.RLock()
		p, ok := a.s.damaged[l.id]
		a.s.mu.RUnlock()
		if !ok {
			p = Problem{Path: l.path(), Problem: e.Message}
		}
		a.problem(l.id, p.Path, p.Problem)
	default:
		a.report.Skipped++
	}
	a.report.Total++
}

// described checks session.json, the manifest and the annotations against each other.
func (a *audit) described(id checkpoint.ID) error {
	s := a.s
	s.round.Lock()
	defer s.round.Unlock()
	s.mu.RLock()
	sess := s.index.bySess[id]
	made := sess != nil && sess.disk.bytes > 0
	s.mu.RUnlock()
	beyond := made && sess.disk.beyond // the publisher's, who waits for round
	if !made {
		return nil
	}
	dir := sessionDir(id)
	b, err := a.read(dir + "/session.json")
	if err != nil {
		return err
	}
	m, err := a.read(dir + "/manifest.jsonl")
	if err != nil {
		return err
	}
	if b == nil || m == nil {
		return nil
	}
	meta, parseErr := parseRecord(b)
	if parseErr != nil || meta.Session == nil || meta.Session.ID != id {
		a.problem(checkpoint.ID{}, dir+"/session.json", fmt.Sprint("damaged: ", parseErr))
		return nil
	}
	if beyond && meta.Bytes >= 0 && int64(len(m)) > meta.Bytes {
		n := bytes.IndexByte(m[meta.Bytes:], '\n') + 1
		m = m[:meta.Bytes+int64(n)]
	}
	state := s.manifestState(m)
	if problem := pinned(m, &meta, state); problem != "" {
		a.problem(checkpoint.ID{}, dir+"/manifest.jsonl", problem)
		return nil
	}
	return a.contents(id, state)
}

// pinned says how a manifest differs from what session.json says of it.
func pinned(m []byte, meta *record, state *manifestState) string {
	if state.broken != "" {
		return state.broken
	}
	if meta.Bytes < 0 || int64(len(m)) < meta.Bytes || hexSum(m[:meta.Bytes]) != meta.Sum {
		return "it is not what session.json says"
	}
	if rest := m[meta.Bytes:]; bytes.IndexByte(rest, '\n') != len(rest)-1 || len(rest) == 0 {
		return "it does not end where session.json says"
	}
	if state.last.Type != recDescribed || state.last.Sum != meta.sum {
		return "its last line names another session.json"
	}
	return ""
}

// goes says that a deletion which is not published yet will remove a checkpoint's file.
// The store's lock is held.
func (s *dirStore) goes(id checkpoint.ID, number uint64) bool {
	return slices.ContainsFunc(s.items, func(it item) bool {
		i := slices.Index(it.rec.IDs, id)
		return it.rec.Type == recDelete && i >= 0 && it.rec.Numbers[i] == number
	})
}

// contents checks annotations, and that no file is there that the manifest does not know.
func (a *audit) contents(id checkpoint.ID, m *manifestState) error {
	s, dir := a.s, sessionDir(id)
	for cp, want := range m.notes {
		add, ok := m.added[cp]
		s.mu.RLock()
		ok = ok && !s.goes(cp, add.number)
		s.mu.RUnlock()
		if !ok {
			continue
		}
		b, err := a.read(notesPath(id, cp))
		if err != nil {
			return err
		}
		// A round that was cut may have left more notes than the manifest knows.
		if b != nil && hexSum(b) != want.Sum && !(s.behind() && hexSum(firstLines(b, want.Count)) == want.Sum) {
			a.problem(checkpoint.ID{}, notesPath(id, cp), "it is not what the manifest says")
		}
	}
	entries, err := s.fs.ReadDir(dir + "/checkpoints")
	if err != nil {
		a.problem(checkpoint.ID{}, dir+"/checkpoints", "the directory cannot be read")
		return nil
	}
	for _, e := range entries {
		number, cp, ok := parseCheckpointName(e.Name)
		path := dir + "/checkpoints/" + e.Name
		if r, there := m.added[cp]; !ok || !there || r.number != number {
			s.mu.RLock()
			_, pending := s.index.byID[cp]
			pending = pending || s.goes(cp, number)
			s.mu.RUnlock()
			if !pending && !(m.removed[e.Name] && s.behind()) { // one that is being removed
				a.problem(checkpoint.ID{}, path, "the manifest does not know this file")
			}
		}
	}
	return nil
}

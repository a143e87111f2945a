package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// store checks what belongs to no session.
func (a *audit) store(ctx context.Context) error {
	s := a.s
	b, err := a.read("FORMAT")
	if err != nil {
		return err
	}
	if b != nil && string(b) != formatText {
		a.problem(checkpoint.ID{}, "FORMAT", "it is not what it must be")
	}
	if s.lockText != "" {
		if b, err = a.read("LOCK"); err != nil {
			return err
		}
		if b != nil && string(b) != s.lockText {
			a.problem(checkpoint.ID{}, "LOCK", "it is not what was written: nothing is lost, a restart writes it anew")
		}
	}
	if err := a.reserve(); err != nil {
		return err
	}
	if err := a.events(); err != nil {
		return err
	}
	if err := a.journal(); err != nil {
		return err
	}
	if err := a.quarantined(); err != nil {
		return err
	}
	report, err := s.blobs.Verify(ctx, s.roots(false), a.pace)
	if err != nil {
		return s.storageError("reading captured files", err)
	}
	a.report.Skipped += report.Skipped
	for _, d := range report.Damage {
		a.problem(checkpoint.ID{}, d.Path, d.Problem)
	}
	return nil
}

// behind says that the journal holds what is not files yet. No round is under way.
func (s *dirStore) behind() bool {
	s.qmu.Lock()
	defer s.qmu.Unlock()
	return s.committed > s.published
}

// reserve checks that what is held back is room and nothing else; it is neither taken nor
// let go meanwhile.
func (a *audit) reserve() error {
	a.s.stateMu.Lock()
	defer a.s.stateMu.Unlock()
	if !a.s.reserved {
		return nil
	}
	b, err := a.read(reservePath)
	if len(b) > 0 {
		a.problem(checkpoint.ID{}, reservePath, "something was written to it: nothing is lost, a restart makes it anew")
	}
	return err
}

func (a *audit) events() error {
	s := a.s
	s.round.Lock()
	defer s.round.Unlock()
	if s.headState.Type != "" {
		b, err := a.read(headPath)
		if err != nil {
			return err
		}
		want, _, err := encodeRecord(s.headState)
		if err != nil {
			return err
		}
		if b != nil && string(b) != string(want) {
			a.problem(checkpoint.ID{}, headPath, "it is not what was written")
		}
	}
	firsts, err := s.eventFiles()
	if err != nil {
		return s.storageError("reading events", err)
	}
	beyond := s.eventsBeyond || s.eventFile.bytes > s.headState.Bytes
	for i, first := range firsts {
		path := eventPath(first)
		if i == len(firsts)-1 && first >= s.headState.FirstEvent && !s.headLost && s.behind() {
			continue // a round that was cut began it
		}
		b, err := a.read(path)
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		list, sound := parseEvents(first, b)
		last := i == len(firsts)-1
		if path == s.headState.File && beyond && int64(len(b)) >= s.headState.Bytes {
			b, sound = b[:s.headState.Bytes], len(list) >= s.headState.Count
		}
		switch {
		case !sound:
			a.problem(checkpoint.ID{}, path, fmt.Sprintf("line %d is damaged", len(list)+1))
		case !last && first+uint64(len(list)) != firsts[i+1]:
			a.problem(checkpoint.ID{}, path, "events are missing at its end")
		case last && s.headState.File == path && hexSum(b) != s.headState.Sum:
			a.problem(checkpoint.ID{}, path, "it is not what head.json says")
		}
	}
	if s.headState.Count > 0 && !slices.ContainsFunc(firsts, func(first uint64) bool { return eventPath(first) == s.headState.File }) {
		a.problem(checkpoint.ID{}, s.headState.File, "the file is gone")
	}
	return nil
}

// segments reads what is not published yet, whole groups and their chain.
func (a *audit) segments() (map[string]bool, error) {
	s := a.s
	listed := map[string]bool{}
	type extent struct {
		g        *segment
		end      int64
		finished bool
	}
	s.qmu.Lock()
	var list []extent
	for _, g := range s.segments {
		listed[g.path] = true
		if !g.damaged {
			list = append(list, extent{g, g.end, g.finished})
		}
	}
	s.qmu.Unlock()
	for _, x := range list {
		if a.pace != nil {
			if err := a.pace(x.end); err != nil {
				return nil, err
			}
		}
		r := &segmentRead{seg: x.g, data: make([]byte, x.end)}
		n, err := x.g.ReadAt(r.data, 0)
		switch {
		case errors.Is(err, errRetired):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			a.report.Skipped++
			s.opts.Logger.Warn("a file could not be read", "path", x.g.path, "error", err)
			continue
		}
		r.data = r.data[:n]
		if r.scan(true); r.problem == "" && r.end != x.end {
			r.problem = fmt.Sprintf("byte %d: what was acknowledged after it is damaged", r.end)
		}
		if r.problem != "" {
			a.problem(checkpoint.ID{}, x.g.path, r.problem)
		}
	}
	return listed, nil
}

func (a *audit) journal() error {
	s := a.s
	s.round.Lock()
	defer s.round.Unlock()
	listed, err := a.segments()
	if err != nil {
		return err
	}
	entries, err := s.fs.ReadDir("journal")
	if err != nil {
		return s.storageError("reading the journal", err)
	}
	for _, e := range entries {
		path := "journal/" + e.Name
		number, _, ext, ok := parseSegmentName(e.Name)
		switch {
		case !ok:
			a.problem(checkpoint.ID{}, path, "a file that does not belong here")
		case ext == "jsonl":
			if !listed[path] && number <= s.headState.Segment { // a newer one is being made
				a.problem(checkpoint.ID{}, path, "a segment that the store does not know")
			}
		default:
			if b, err := a.read(path); err != nil {
				return err
			} else if len(b) > 0 {
				a.problem(checkpoint.ID{}, path, "it must be empty")
			}
		}
	}
	return nil
}

// quarantined checks the notes, and that what they tell of is there.
func (a *audit) quarantined() error {
	entries, err := a.s.fs.ReadDir("quarantine")
	if err != nil {
		return a.s.storageError("reading quarantine", err)
	}
	for _, e := range entries {
		path := "quarantine/" + e.Name
		if !strings.HasSuffix(e.Name, ".note") {
			continue
		}
		b, err := a.read(path)
		if err != nil {
			return err
		}
		note, parseErr := parseRecord(b)
		if parseErr != nil {
			a.problem(checkpoint.ID{}, path, "the note is damaged")
			continue
		}
		if note.Sum == "" {
			continue
		}
		kept, err := a.read(note.File)
		if err != nil {
			return err
		}
		if kept != nil && hexSum(kept) != note.Sum {
			a.problem(checkpoint.ID{}, note.File, "it is not what its note says")
		}
	}
	return nil
}

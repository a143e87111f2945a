package storage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// segmentRead is what a segment of the journal held.
type segmentRead struct {
	seg     *segment
	entries []entry
	last    string // the chain's end
	end     int64  // after the last whole group
	lastGrp uint64
	first   record // its first line
	event   uint64 // the number of its first group's first event
	closed  bool
	tail    []byte // a torn last group
	problem string // damage; what could be read is in entries all the same
	data    []byte
	commits []commitAt // filled in by laterCommit
	length  int64      // of the file, at least: what its lines say
}

// commitAt is a whole commit line: where the line that holds it starts, and its group.
type commitAt struct {
	off   int64
	group uint64
}

// readSegment takes a segment apart. A group counts when its commit line is whole and
// agrees with the lines before it. newest says that no segment follows: only there may
// the end be torn.
func (s *dirStore) readSegment(g *segment, newest bool) (*segmentRead, error) {
	r := &segmentRead{seg: g}
	data, err := s.readAll(g.path)
	if err == errStrange {
		r.problem = errStrange.Error()
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	r.data = data
	f, err := s.fs.Open(g.path, os.O_RDWR)
	if err != nil {
		if f, err = s.fs.Open(g.path, os.O_RDONLY); err != nil {
			return nil, err
		}
	}
	g.file = f
	r.scan(newest)
	return r, nil
}

func (r *segmentRead) scan(newest bool) {
	rest := r.data
	off := int64(0)
	var group []entry
	damage := func(format string, args ...any) {
		if r.problem == "" {
			r.problem = fmt.Sprintf(format, args...)
		}
	}
	for len(rest) > 0 && !r.closed {
		if rest[0] == 0 && !r.laterCommit(off, func(group uint64) bool { return off == 0 || group != r.lastGrp+1 }) {
			break
		}
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		e, err := parseEntry(rest[:n:n])
		if err != nil {
			if newest && !r.laterCommit(off+int64(n), func(group uint64) bool { return group != r.lastGrp+1 }) {
				break // torn: no group after this one was ever whole
			}
			damage("byte %d: %v", off, err)
		} else if e.rec.Type == recSegment {
			if off != 0 || e.rec.Segment != r.seg.number {
				damage("byte %d: the first line of segment %d", off, e.rec.Segment)
			}
			r.last, r.end = e.sum, off+int64(n)
			r.lastGrp, r.first, r.length = e.rec.Group-1, *e.rec, e.rec.Bytes
		} else if e.rec.Type == recCommit {
			if problem := r.commit(group, e, off+int64(n)); problem != "" {
				damage("byte %d: %s", off, problem)
			}
			group = nil
		} else if e.rec.Type == recEnd {
			if e.rec.Previous != r.last {
				damage("byte %d: the end of another journal", off)
			}
			r.last, r.end, r.closed = e.sum, off+int64(n), true
		} else {
			e.seg, e.off, e.n = r.seg, off, int64(n)
			group = append(group, e)
		}
		off, rest = off+int64(n), rest[n:]
	}
	r.finish(newest, damage)
}

func (r *segmentRead) finish(newest bool, damage func(string, ...any)) {
	tail := bytes.TrimRight(r.data[min(r.end, int64(len(r.data))):], "\x00")
	switch {
	case r.closed && len(tail) == 0:
		// The zeros behind its end may be there still: that they go is not flushed.
	case r.closed && int64(len(r.data)) != r.end:
		damage("%d bytes after its end", int64(len(r.data))-r.end)
	case !r.closed && !newest:
		damage("it has no end, though another segment follows")
	case !r.closed && len(tail) > 0 && r.problem == "":
		r.tail = tail
	}
	if r.last == "" && len(tail) > 0 && !newest {
		damage("it has no first line")
	}
}

// checkLength finds a segment that was cut: groups that were acknowledged may be gone with
// its end.
func (r *segmentRead) checkLength() {
	got := int64(len(r.data))
	if r.closed || r.problem != "" || r.data == nil || got >= r.length {
		return
	}
	r.problem, r.tail = fmt.Sprintf("it was cut to %d bytes of %d", got, r.length), nil
}

// commit takes a group over. One that lost lines keeps those that verify: they were acknowledged.
func (r *segmentRead) commit(group []entry, c entry, end int64) string {
	if r.first.Type != "" && c.rec.Group <= r.lastGrp {
		return fmt.Sprintf("group %d stands there again", c.rec.Group)
	}
	digest := sha256.New()
	for i := range group {
		digest.Write([]byte(group[i].sum))
	}
	problem := ""
	if len(group) != c.rec.Lines || hex.EncodeToString(digest.Sum(nil)) != c.rec.Digest {
		problem = fmt.Sprintf("group %d has %d of its %d lines", c.rec.Group, len(group), c.rec.Lines)
	} else if c.rec.Previous != r.last {
		problem = fmt.Sprintf("group %d does not follow what is before it", c.rec.Group)
	}
	for i := range group {
		group[i].group = c.rec.Group
	}
	if r.event == 0 {
		r.event = c.rec.FirstEvent
	}
	r.entries = append(r.entries, group...)
	r.last, r.end, r.lastGrp, r.length = c.sum, end, c.rec.Group, max(r.length, c.rec.Bytes)
	return problem
}

// laterCommit looks at or after off for a whole commit line of a group that counts: what is
// before it was once whole too. All of them are found in one pass, at the first question.
func (r *segmentRead) laterCommit(off int64, counts func(group uint64) bool) bool {
	if r.commits == nil {
		r.commits = []commitAt{}
		at := int64(0)
		for l := range bytes.Lines(r.data) {
			if start := bytes.LastIndex(l, []byte(lineStart)); start >= 0 {
				if c, err := parseRecord(l[start:]); err == nil && c.Type == recCommit {
					r.commits = append(r.commits, commitAt{at, c.Group})
				}
			}
			at += int64(len(l))
		}
	}
	first, _ := slices.BinarySearchFunc(r.commits, off, func(c commitAt, off int64) int { return cmp.Compare(c.off, off) })
	return slices.ContainsFunc(r.commits[first:], func(c commitAt) bool { return counts(c.group) })
}

// parseEntry verifies a journal line and decodes it.
func parseEntry(b []byte) (entry, error) {
	l, err := parseLine(b)
	if err != nil {
		return entry{}, err
	}
	if l.isCheckpoint {
		p, err := parseCheckpoint(l.body, l.sum)
		if err != nil {
			return entry{}, err
		}
		return entry{rec: noRecord, draft: &p.draft, sum: l.sum}, nil
	}
	r, err := decodeRecord(l)
	if err != nil {
		return entry{}, err
	}
	e := entry{rec: &r, sum: l.sum}
	if r.Type == recLarge {
		e.draft, err = largeDraft(&r)
	}
	if problem := r.missing(); problem != "" {
		return entry{}, fmt.Errorf("%s", problem)
	}
	return e, err
}

// missing says what a record of its type must have and has not.
func (r *record) missing() string {
	switch {
	case r.Type == recSession && r.Session == nil, r.Type == recChange && r.Change == nil,
		r.Type == recAnnotate && r.Annotation == nil, r.Type == recEvent && r.Event == nil,
		r.Type == recDelete && (len(r.IDs) == 0 || len(r.IDs) != len(r.Numbers)):
		return "a " + r.Type + " record without its content"
	}
	return ""
}

// largeDraft makes a draft of a record that refers to a body elsewhere. Its state has the
// right length and no content.
func largeDraft(r *record) (*draft, error) {
	sum, err := decodeSummary(r.Summary)
	if err != nil {
		return nil, err
	}
	var raw struct {
		Message  json.RawMessage `json:"message"`
		Tags     json.RawMessage `json:"tags"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(r.Summary, &raw); err != nil {
		return nil, err
	}
	d := &draft{
		id: sum.ID, session: sum.SessionID, message: raw.Message, tags: raw.Tags, metadata: raw.Metadata,
		trigger: sum.Trigger, cause: sum.Cause, parent: sum.ParentID, sequence: sum.Sequence, at: sum.Timestamp, sum: r.Sum,
	}
	d.stateBytes, d.files = int(sum.StateBytes), r.HasFiles
	d.headBytes = int(r.Bytes) - d.stateBytes
	d.tail = tail(checkpoint.ID{}, d.sequence, d.at)
	if len(d.tail) != r.Count {
		d.tail = tail(d.parent, d.sequence, d.at)
	}
	return d, nil
}

func sortSegments(list []*segment) {
	slices.SortFunc(list, func(a, b *segment) int { return int(int64(a.number) - int64(b.number)) })
}

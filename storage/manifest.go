package storage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func (s *dirStore) readManifest(l *sessionLoad, meta *record, c *journalChanges) error {
	path := l.dir + "/manifest.jsonl"
	b, err := s.readAll(path)
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errStrange) {
		return err
	}
	if err == errStrange {
		if err := s.quarantine(checkpoint.ID{}, path, errStrange.Error(), nil); err != nil {
			return err
		}
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
		l.beyond = int64(len(b)) > pinned
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
		if err != errStrange && (meta.Session != nil || state.broken != "") {
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
	l.live = make([]listed, 0, len(state.added))
	for _, r := range state.added {
		l.live = append(l.live, r)
	}
	return s.countNotes(l, state, c)
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
	added   map[checkpoint.ID]listed
	notes   map[checkpoint.ID]record
	removed map[string]bool // file names
	broken  string          // the first line that does not verify, and why
	last    record          // the last line, when it is a record that tells more than added
	session *sessionMeta    // the settings that it told of last
}

// manifestState reads what lines verify.
func (s *dirStore) manifestState(b []byte) *manifestState {
	m := &manifestState{added: map[checkpoint.ID]listed{}, notes: map[checkpoint.ID]record{}, removed: map[string]bool{}}
	for i, l := range splitLines(b) {
		m.last = record{}
		ln, err := parseLine(l)
		if err == nil && ln.isCheckpoint {
			err = errNoRecord
		}
		if err == nil {
			if add, ok := parseAdded(ln.body); ok {
				m.added[add.id] = add
				continue
			}
			m.last, err = decodeRecord(ln)
		}
		if err != nil {
			m.broken = cmp.Or(m.broken, fmt.Sprintf("line %d: %v", i+1, err))
			continue
		}
		r := m.last
		switch r.Type {
		case recAdded:
			m.added[r.CheckpointID] = listed{r.CheckpointID, r.Number, r.Bytes, r.Sum}
		case recDescribed:
			if r.Session != nil {
				m.session = r.Session
			}
		case recAnnotations:
			m.notes[r.CheckpointID] = r
		case recRemoved:
			for i, id := range r.IDs {
				if i < len(r.Numbers) && m.added[id].number == r.Numbers[i] {
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

// newest is the head that a session most likely had.
func (m *manifestState) newest() (id checkpoint.ID) {
	var number uint64
	for _, r := range m.added {
		if r.number > number {
			id, number = r.id, r.number
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
			m.added[id] = listed{id: id, number: number}
		}
	}
	return nil
}

func parseCheckpointName(name string) (number uint64, id checkpoint.ID, ok bool) {
	base, isJSON := strings.CutSuffix(name, ".json")
	if !isJSON || len(base) != 57 || base[20] != '-' {
		return 0, id, false
	}
	number, err := strconv.ParseUint(base[:20], 10, 64)
	if err == nil {
		id, err = checkpoint.ParseID(base[21:])
	}
	return number, id, err == nil
}

// countNotes reads the annotations that a session's manifest names. What verifies of a
// damaged file is kept in use. A deleted checkpoint's file may be that of its id's next one.
func (s *dirStore) countNotes(l *sessionLoad, m *manifestState, c *journalChanges) error {
	l.notes = map[checkpoint.ID]int{}
	for id, want := range m.notes {
		if add, ok := m.added[id]; !ok || c.removed[add.number] {
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
		notes, _ := parseNotes(b, l.id, id)
		l.notes[id] = len(notes)
		// More notes than the manifest knows are those of a round that did not end.
		if len(notes) >= want.Count && hexSum(firstLines(b, want.Count)) == want.Sum {
			l.notes[id] = want.Count
			if len(notes) > want.Count {
				problem = ""
			}
		}
		if problem != "" {
			if err := s.quarantineCopy(path, b, problem); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseAdded reads the line that nearly all of a manifest's are; any other spelling is
// left to the decoder.
func parseAdded(b []byte) (a listed, ok bool) {
	const start, number, bytesName, sum = `{"type":"added","checkpoint_id":"`, `","number":`, `,"bytes":`, `,"sha256":"`
	if len(b) < len(start)+36 || string(b[:len(start)]) != start {
		return a, false
	}
	id, err := checkpoint.ParseID(string(b[len(start) : len(start)+36]))
	if err != nil {
		return a, false
	}
	rest, ok := bytes.CutPrefix(b[len(start)+36:], []byte(number))
	if !ok {
		return a, false
	}
	n, rest, ok1 := bytes.Cut(rest, []byte(bytesName))
	size, rest, ok2 := bytes.Cut(rest, []byte(sum))
	if !ok1 || !ok2 || len(rest) != hexBytes+2 || string(rest[hexBytes:]) != `"}` {
		return a, false
	}
	a.id, a.sum = id, string(rest[:hexBytes])
	var err1, err2 error
	a.number, err1 = strconv.ParseUint(string(n), 10, 64)
	a.bytes, err2 = strconv.ParseInt(string(size), 10, 64)
	return a, err1 == nil && err2 == nil
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
			notes, err := s.readNotes(id, row.id, int(row.notes))
			if err == nil && len(notes) > 0 {
				var n record
				if n, err = s.writeNotes(id, row.id, notes); err == nil {
					j.lines = append(j.lines, n)
				}
			}
			if err != nil {
				s.opts.Logger.Error("notes cannot be written anew", "checkpoint", row.id, "error", err)
			}
		}
		if err := s.writeManifest(j); err != nil {
			s.opts.Logger.Error("a damaged manifest cannot be written anew; it is tried at the next start", "session", id, "error", err)
		}
	}
	s.repair = nil
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

package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

// incoming is one checkpoint of a page, checked as far as it can be by itself.
type incoming struct {
	draft *draft
	// again makes it anew when its number is taken; parent is the one that was assigned.
	again  *NewCheckpoint
	parent checkpoint.ID
	notes  []checkpoint.Annotation
}

type importer struct {
	s        *dirStore
	owner    uint32
	result   ImportResult
	sessions []checkpoint.Session
	list     []incoming
	global   uint64 // the highest number where the page comes from
	release  []func()
}

// Import takes a page as one change: all of what it does not reject, or nothing. The
// sessions it makes are owner's; with owner 0 they keep the owner that the page gives them.
func (s *dirStore) Import(_ context.Context, page []byte, owner uint32) (_ ImportResult, err error) {
	im := &importer{s: s, owner: owner, result: ImportResult{Rejected: []Rejected{}}}
	defer func() {
		if errors.Is(err, errUnknown) { // the next Open may find the records: what they name stays
			return
		}
		for _, f := range im.release {
			f()
		}
	}()
	if err := im.read(page); err != nil {
		return ImportResult{}, err
	}
	before := im.result
	err = s.do(&op{bytes: len(page), eval: func(t *tx) error {
		im.result = before
		im.result.Rejected = slices.Clone(before.Rejected)
		return im.apply(t)
	}})
	return im.result, err
}

// PageCheck is what a page holds that Import would take, and what it would reject.
type PageCheck struct {
	Sessions    int
	Checkpoints []PageEntry
	Rejected    []Rejected
}

// PageEntry is a checkpoint of a page; Sum is its checksum's 64 hex digits.
type PageEntry struct {
	ID  checkpoint.ID
	Sum string
}

// CheckPage reads a page as Import does, without a store: captured files are not looked at.
func CheckPage(page []byte) (PageCheck, error) {
	im := &importer{}
	if err := im.read(page); err != nil {
		return PageCheck{}, err
	}
	c := PageCheck{Sessions: len(im.sessions), Rejected: im.result.Rejected}
	for _, in := range im.list {
		c.Checkpoints = append(c.Checkpoints, PageEntry{in.draft.id, in.draft.sum})
	}
	return c, nil
}

// read takes the page apart.
func (im *importer) read(page []byte) error {
	var frame struct {
		Format      *string           `json:"format"`
		Version     int               `json:"version"`
		Checkpoints []json.RawMessage `json:"checkpoints"`
		Sessions    []json.RawMessage `json:"sessions"`
		Files       []importedFile    `json:"files"`
		Global      uint64            `json:"global_sequence"`
	}
	if err := json.Unmarshal(page, &frame); err != nil {
		return checkpoint.Invalid("data", "not a page of an export: %w", err)
	}
	if frame.Checkpoints == nil {
		return checkpoint.Invalid("data.checkpoints", "an array of checkpoints is due")
	}
	im.global = min(frame.Global, maxNumber)
	if frame.Format == nil {
		for _, raw := range frame.Checkpoints {
			im.take(raw, seedCheckpoint)
		}
		return nil
	}
	if *frame.Format != exportFormat {
		return checkpoint.Invalid("data.format", "%.64q is not %s", *frame.Format, exportFormat)
	}
	if frame.Version != exportVersion {
		return checkpoint.Invalid("data.version", "version %d is not known here: use a forge-cpd that knows it", frame.Version)
	}
	for i, raw := range frame.Sessions {
		var v checkpoint.Session
		if err := json.Unmarshal(raw, &v); err != nil || v.ID.IsZero() {
			return checkpoint.Invalid(fmt.Sprintf("data.sessions[%d]", i), "not a session: %w", err)
		}
		if v.Status != checkpoint.Closed {
			v.Status = checkpoint.Active
		}
		im.sessions = append(im.sessions, v)
	}
	for i, f := range frame.Files {
		if err := im.takeFile(f); err != nil {
			return checkpoint.Invalid(fmt.Sprintf("data.files[%d]", i), "%w", err)
		}
	}
	for _, raw := range frame.Checkpoints {
		im.take(raw, im.ownCheckpoint)
	}
	return nil
}

func (im *importer) take(raw []byte, parse func([]byte) (incoming, error)) {
	in, err := parse(raw)
	if err == nil && in.draft.sequence > maxNumber {
		err = fmt.Errorf("number %d is over 2^53-1", in.draft.sequence)
	}
	if err != nil {
		im.reject(raw, err)
		return
	}
	im.list = append(im.list, in)
}

func (im *importer) reject(raw []byte, err error) {
	id, idErr := rawjson.String(rawjson.Member(raw, "id"))
	if idErr != nil {
		id = ""
	}
	im.result.Rejected = append(im.result.Rejected, Rejected{CheckpointID: id[:min(len(id), 64)], Problem: err.Error()})
}

// ownCheckpoint verifies an entry of our own export: its bytes are the stored ones with
// checksum and annotations written last.
func (im *importer) ownCheckpoint(raw []byte) (incoming, error) {
	at := bytes.LastIndex(raw, checksumName)
	if at < 0 || len(raw) < at+len(checksumName)+hexBytes+2 {
		return incoming{}, fmt.Errorf("it has no checksum")
	}
	stored := append(append(make([]byte, 0, at+1), raw[:at]...), '}')
	sum := string(raw[at+len(checksumName) : at+len(checksumName)+hexBytes])
	if got := hexSum(stored); got != sum {
		return incoming{}, fmt.Errorf("its checksum is sha256:%s, not the sha256:%s that it gives", got, sum)
	}
	if bytes.IndexByte(stored, '\n') >= 0 {
		return incoming{}, fmt.Errorf("it holds a new line")
	}
	p, err := parseCheckpoint(stored, sum)
	if err != nil {
		return incoming{}, err
	}
	if p.id.IsZero() || p.session.IsZero() || p.sequence == 0 {
		return incoming{}, fmt.Errorf("id, session_id or sequence_number is missing")
	}
	in := incoming{draft: &p.draft, again: &NewCheckpoint{
		ID: p.id, SessionID: p.session, Trigger: p.trigger, Cause: p.cause, ParentID: p.given, Metadata: p.metadata, State: p.state,
	}}
	if p.given.IsZero() {
		in.parent = p.parent
	}
	var err1, err2, err3 error
	in.again.Message, err1 = rawjson.String(p.message)
	err2 = json.Unmarshal(p.tags, &in.again.Tags)
	err3 = decodeContext(p.context, &in.again.Context)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return incoming{}, err
		}
	}
	for _, f := range in.again.Context.Files {
		if im.s == nil {
			break // CheckPage: the contents may be in other pages
		}
		if sum, err := blob.ParseSum(f.SHA256); err != nil {
			return incoming{}, err
		} else if release, err := im.s.blobs.Hold(sum); err != nil {
			return incoming{}, fmt.Errorf("the content of %.200q is not there: import the pages in order", f.Path)
		} else {
			im.release = append(im.release, release)
		}
	}
	rest := append([]byte{'{'}, raw[at+1:]...)
	if notes := rawjson.Member(rest, "annotations"); notes != nil {
		if err := json.Unmarshal(notes, &in.notes); err != nil {
			return incoming{}, fmt.Errorf("annotations: %w", err)
		}
	}
	return in, nil
}

// apply puts the page into a group.
func (im *importer) apply(t *tx) error {
	for i := range im.sessions {
		if err := im.addSession(t, im.sessions[i]); err != nil {
			return err
		}
	}
	restore := map[checkpoint.ID]record{}
	room := im.global+uint64(len(im.list)) <= maxNumber
	for i := range im.list { // a new number must not be one that a later entry brings
		if t.sequence = max(t.sequence, im.list[i].draft.sequence); im.taken(t, im.list[i].draft.sequence) && room {
			t.sequence = max(t.sequence, im.global)
		}
	}
	for i := range im.list {
		if err := im.add(t, &im.list[i], restore); err != nil {
			return err
		}
	}
	// Importing is no work in the session: head and time stay what they were.
	for _, r := range restore {
		if err := t.record(r); err != nil {
			return err
		}
	}
	return nil
}

func (im *importer) addSession(t *tx, v checkpoint.Session) error {
	if t.session(v.ID) != nil {
		return nil
	}
	if im.owner != 0 {
		v.OwnerUID = im.owner // only root makes sessions for others
	}
	if _, taken := t.keys[v.Key]; v.Key != "" && (taken || t.s.index.byKey[v.Key] != nil) {
		v.Key = "" // another session has it; this one is found by its id
	}
	v.CheckpointCount, v.Last = 0, nil
	return t.addSession(&sessionMeta{Session: v, Imported: true}, v.CreatedAt)
}

func (im *importer) add(t *tx, in *incoming, restore map[checkpoint.ID]record) error {
	d := in.draft
	if old, ok := t.checkpoint(d.id); ok {
		if old.session == d.session {
			im.result.Skipped++
			return nil
		}
		im.result.Rejected = append(im.result.Rejected, Rejected{d.id.String(), "its id belongs to a checkpoint of another session"})
		return nil
	}
	number, taken := d.sequence, im.taken(t, d.sequence)
	if taken {
		var err error
		if number, err = t.next(); err != nil {
			im.result.Rejected = append(im.result.Rejected, Rejected{d.id.String(), err.Error()})
			return nil
		}
	}
	if t.session(d.session) == nil {
		v := checkpoint.Session{ID: d.session, Name: "imported", OwnerUID: im.owner, Status: checkpoint.Active, CreatedAt: d.at, UpdatedAt: d.at}
		if err := t.addSession(&sessionMeta{Session: v}, d.at); err != nil {
			return err
		}
		t.sessions[d.session].grown = true
	}
	v := t.session(d.session)
	if taken {
		in.again.Context.ImportedSequence = d.sequence
		fresh, err := newDraft(in.again)
		if err != nil {
			return err
		}
		fresh.number(number, d.at, in.parent)
		fresh.files = d.files
		d = fresh
		im.result.Renumbered++
	}
	t.sequence = max(t.sequence, d.sequence)
	t.numbers[d.sequence] = true
	if err := t.addCheckpoint(d, ""); err != nil {
		return err
	}
	im.result.Imported++
	r, ok := restore[d.session]
	if !ok {
		r = record{Type: recChange, SessionID: d.session, Change: &sessionChange{SetHead: true, HeadID: v.head}, At: t.updatedAt(d.session)}
	}
	if v.grown {
		v.head, r.Change.HeadID, r.At = d.id, d.id, d.at
	}
	restore[d.session] = r
	for i := range in.notes {
		n := in.notes[i]
		if err := t.record(record{Type: recAnnotate, SessionID: d.session, CheckpointID: d.id, Annotation: &n, At: n.Timestamp}); err != nil {
			return err
		}
		t.events++
	}
	return nil
}

// taken says that the number was given before, here or on this page; what was deleted
// counts too.
func (im *importer) taken(t *tx, n uint64) bool { return n == 0 || t.s.given.has(n) || t.numbers[n] }

func (t *tx) updatedAt(id checkpoint.ID) time.Time {
	if v := t.sessions[id]; v != nil && v.meta != nil {
		return v.meta.UpdatedAt
	}
	return t.s.index.bySess[id].meta.UpdatedAt
}

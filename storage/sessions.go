package storage

import (
	"encoding/hex"
	"errors"
	"hash"
	"os"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// loadSessions reads every session's description, and its rows from the index where that
// agrees with it. Of the other checkpoints it knows at first what the manifests tell; the
// bodies are read by rebuild.
func (s *dirStore) loadSessions(c *journalChanges, x *indexImage) (*rebuild, error) {
	entries, err := s.fs.ReadDir("sessions")
	if err != nil {
		return nil, err
	}
	loads := make([]*sessionLoad, 0, len(entries))
	for _, e := range entries {
		if id, err := checkpoint.ParseID(e.Name); err == nil && e.Mode.IsDir() {
			loads = append(loads, &sessionLoad{id: id, dir: sessionDir(id)})
		}
	}
	if err := parallel(len(loads), s.opts.readers(), func(i int) error { return s.readSession(loads[i], c, x) }); err != nil {
		return nil, err
	}
	bySlot := make([]*session, len(x.slots))
	var files []*sessionLoad
	for _, l := range loads {
		if l.skip {
			continue
		}
		l.s = s.index.addSession(l.meta)
		if l.pin != nil {
			l.s.disk, l.s.logSlot = l.pin.disk, l.pin.slot+1
			l.s.disk.beyond = l.beyond
			bySlot[l.pin.slot], x.used[l.pin.slot] = l.s, l.pin.at
			continue
		}
		l.s.disk = sessionDisk{made: true, manifest: l.hash, bytes: l.pinned, beyond: l.beyond}
		_, _ = hex.Decode(l.s.disk.sum[:], []byte(l.sum)) // of a line that verified
		files = append(files, l)
	}
	x.load(s, bySlot)
	r := s.listed(files, x)
	s.index.sort()
	for _, id := range s.index.order {
		s.raise(s.index.row(id).sequence)
	}
	s.markDamaged()
	return r, nil
}

// listed adds what manifests name, with what an index that is not quite right still knows.
func (s *dirStore) listed(files []*sessionLoad, x *indexImage) *rebuild {
	r := &rebuild{s: s}
	if len(files) == 0 {
		return r
	}
	known := x.known()
	for _, l := range files {
		r.sessions = append(r.sessions, l)
		l.s.partial = true
		for _, want := range l.live {
			row, ok := x.rowOf(known, &want)
			if !ok {
				row.id, row.sequence, row.bytes, row.flags = want.id, want.number, uint32(want.bytes), rowUnread
			}
			row.notes = uint16(l.notes[want.id])
			s.index.load(l.s, row)
			if ok {
				s.lastAt = max(s.lastAt, row.at)
			} else {
				l.left++
				r.jobs = append(r.jobs, loadJob{l, want})
			}
		}
	}
	return r
}

// markDamaged marks what is in quarantine. An id may have been used again since.
func (s *dirStore) markDamaged() {
	for id, p := range s.damaged {
		row, ok := s.index.byID[id]
		if !ok {
			continue
		}
		if l := s.locate(row); p.Path == l.path() {
			s.index.row(row).flags |= rowCorrupt
		}
	}
}

type sessionLoad struct {
	id     checkpoint.ID
	dir    string
	meta   sessionMeta
	s      *session
	skip   bool
	hash   hash.Hash
	pinned int64
	beyond bool                  // the manifest goes on after that
	pin    *pin                  // it is in the index
	sum    string                // of session.json's line
	live   []listed              // added and not removed
	notes  map[checkpoint.ID]int // how many notes of each verify
	left   int                   // checkpoints whose bodies are to be read
}

// listed is a checkpoint's file as a manifest tells of it.
type listed struct {
	id     checkpoint.ID
	number uint64
	bytes  int64
	sum    string
}

type loadJob struct {
	l *sessionLoad
	r listed
}

// readSession reads session.json and the manifest, and reconciles the two.
func (s *dirStore) readSession(l *sessionLoad, c *journalChanges, x *indexImage) error {
	if c.deleted[l.id] {
		// Its removal may be under way, and one of the same id may have been made since: what
		// counts is in the journal, and the publisher removes what is here.
		l.skip = true
		return nil
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
		l.meta, l.sum = *meta.Session, meta.sum
		if info, err := s.fs.Lstat(l.dir + "/manifest.jsonl"); err == nil && info.Mode.IsRegular() {
			if p, ok := x.use(l.id, meta.sum, info.Size, c.any); ok {
				l.pin, l.beyond = &p, info.Size > p.disk.bytes
				return nil
			}
		}
	} else {
		l.meta = sessionMeta{Session: checkpoint.Session{
			ID: l.id, Name: "recovered", Status: checkpoint.Active, OwnerUID: uint32(os.Getuid()),
			CreatedAt: s.opts.Now().UTC(), UpdatedAt: s.opts.Now().UTC(),
		}}
		meta.Bytes = -1
	}
	return s.readManifest(l, &meta, c)
}

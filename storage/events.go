package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// eventLine is one event as it is kept.
type eventLine struct {
	number uint64
	event  *checkpoint.Event // never changed
}

// eventFile is the file in events/ that grows.
type eventFile struct {
	first uint64
	count int
	bytes int64
	hash  hash.Hash
}

const (
	headPath      = "events/head.json"
	eventsPerFile = 4096
	recentEvents  = 2048
)

func eventPath(first uint64) string { return fmt.Sprintf("events/%020d.jsonl", first) }

// recordEvent gives an event its number. The store's lock is held; the publisher renders it.
func (s *dirStore) recordEvent(ev *checkpoint.Event) uint64 {
	n := s.nextEvent
	s.nextEvent++
	s.recent = append(s.recent, eventLine{n, ev})
	if len(s.recent) > 2*recentEvents && s.recent[len(s.recent)-recentEvents].number < s.headState.FirstEvent {
		s.recent = slices.Clone(s.recent[len(s.recent)-recentEvents:])
	}
	return n
}

// appendEvents writes a batch's events, flushed before its journal segment can go.
func (s *dirStore) appendEvents(b *batch) error {
	events, next := b.events, b.first
	if f := &s.eventFile; f.hash != nil && f.first+uint64(f.count) > next {
		// A round that failed later has written these already.
		skip := min(f.first+uint64(f.count)-next, uint64(len(events)))
		events, next = events[skip:], next+skip
	}
	lines := make([][]byte, len(events))
	for i, l := range events {
		var err error
		if lines[i], _, err = encodeRecord(record{Type: recEvent, Number: l.number, Event: l.event}); err != nil {
			return err
		}
	}
	for len(lines) > 0 {
		f := &s.eventFile
		if f.hash == nil || f.count >= eventsPerFile {
			s.eventFile = eventFile{first: next, hash: sha256.New()}
		}
		n := min(len(lines), eventsPerFile-f.count)
		if err := s.appendEventFile(lines[:n]); err != nil {
			return err
		}
		lines, next = lines[n:], next+uint64(n)
	}
	return s.dropOldEvents(b.next)
}

func (s *dirStore) appendEventFile(lines [][]byte) error {
	f := &s.eventFile
	h := clone(f.hash)
	var size int64
	for _, l := range lines {
		h.Write(l)
		size += int64(len(l))
	}
	file, err := s.fs.Open(eventPath(f.first), os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(f.bytes, lines...)
	if err == nil {
		err = file.Truncate(f.bytes + size)
	}
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil && f.count == 0 {
		err = s.fs.SyncDir("events")
	}
	if err != nil {
		return err
	}
	f.hash, f.bytes, f.count = h, f.bytes+size, f.count+len(lines)
	return nil
}

// dropOldEvents removes files that hold nothing that is still retained.
func (s *dirStore) dropOldEvents(next uint64) error {
	if next <= uint64(s.opts.EventsRetained)+eventsPerFile || s.eventFile.count > eventsPerFile/2 && s.eventFile.count < eventsPerFile {
		return nil
	}
	firsts, err := s.eventFiles()
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(firsts); i++ {
		if firsts[i+1]+uint64(s.opts.EventsRetained) > next {
			break
		}
		if err := ignoreMissing(s.fs.Remove(eventPath(firsts[i]))); err != nil {
			return err
		}
	}
	return nil
}

// eventFiles lists the first numbers of the files, rising.
func (s *dirStore) eventFiles() ([]uint64, error) {
	entries, err := s.fs.ReadDir("events")
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name, ".jsonl")
		if n, err := strconv.ParseUint(base, 10, 64); ok && err == nil && len(base) == 20 {
			firsts = append(firsts, n)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// writeHead says how far everything is published; the journal up to there may go.
func (s *dirStore) writeHead(b *batch) error {
	f := &s.eventFile
	r := record{
		Type: recHead, Store: s.storeID, Segment: max(b.segment, s.headState.Segment), Group: b.group, FirstEvent: b.next, Created: b.created,
		File: eventPath(f.first), Bytes: f.bytes, Count: f.count,
	}
	if f.hash != nil {
		r.Sum = hex.EncodeToString(f.hash.Sum(nil))
	}
	line, _, err := encodeRecord(r)
	if err != nil {
		return err
	}
	if err := s.replaceFile(headPath, line); err != nil {
		return err
	}
	if err := s.fs.SyncDir("events"); err != nil {
		return err
	}
	s.mu.Lock()
	s.headState = r
	s.mu.Unlock()
	s.eventsBeyond = false
	return nil
}

// cursor is opaque to clients: the store's mark and the number of the last event seen.
func (s *dirStore) cursor(number uint64) string {
	return fmt.Sprintf("%x.%d", s.storeID[12:], number)
}

func (s *dirStore) parseCursor(c string) (number uint64, ours bool, err error) {
	mark, text, ok := strings.Cut(c, ".")
	number, convErr := strconv.ParseUint(text, 10, 64)
	if raw, hexErr := hex.DecodeString(mark); !ok || convErr != nil || hexErr != nil || len(raw) != 4 || strconv.FormatUint(number, 10) != text {
		return 0, false, checkpoint.Invalid("since_cursor", "%.64q is no cursor of this store; give one that a subscription returned", c)
	}
	return number, mark == fmt.Sprintf("%x", s.storeID[12:]), nil
}

func (s *dirStore) Events(_ context.Context, cursor string, limit int) (EventPage, error) {
	if limit <= 0 {
		limit = 1000
	}
	s.mu.RLock()
	next := s.nextEvent
	s.mu.RUnlock()
	if cursor == "" {
		return EventPage{Cursor: s.cursor(next - 1), Fresh: true}, nil
	}
	after, ours, err := s.parseCursor(cursor)
	if err != nil {
		return EventPage{}, err
	}
	if !ours || after >= next {
		return EventPage{Cursor: s.cursor(next - 1), Fresh: true}, nil
	}
	lines, fresh, err := s.eventsAfter(after, limit)
	if err != nil {
		return EventPage{}, err
	}
	if fresh {
		return EventPage{Cursor: s.cursor(next - 1), Fresh: true}, nil
	}
	page := EventPage{Cursor: cursor, Events: make([]EventRecord, len(lines))}
	for i, l := range lines {
		page.Cursor = s.cursor(l.number)
		page.Events[i] = EventRecord{Cursor: page.Cursor, Event: *l.event}
	}
	return page, nil
}

// eventsAfter takes them from memory when it can, else from the files.
func (s *dirStore) eventsAfter(after uint64, limit int) (lines []eventLine, tooOld bool, err error) {
	s.mu.RLock()
	if after+1 >= s.nextEvent {
		s.mu.RUnlock()
		return nil, false, nil
	}
	if s.nextEvent-1-after > uint64(s.opts.EventsRetained) {
		s.mu.RUnlock()
		return nil, true, nil
	}
	if len(s.recent) > 0 && s.recent[0].number <= after+1 {
		from := int(after + 1 - s.recent[0].number)
		lines = slices.Clone(s.recent[from:min(len(s.recent), from+limit)])
		s.mu.RUnlock()
		return lines, false, nil
	}
	s.mu.RUnlock()
	firsts, err := s.eventFiles()
	if err != nil {
		return nil, false, s.storageError("reading events", err)
	}
	i, found := slices.BinarySearch(firsts, after+1)
	if !found {
		i--
	}
	if i < 0 {
		return nil, true, nil
	}
	list, _, err := s.readEventFile(firsts[i])
	if errors.Is(err, syscall.ENOENT) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, s.storageError("reading events", err)
	}
	from := int(after + 1 - firsts[i])
	if from >= len(list) {
		return nil, true, nil // damaged: the client lists anew
	}
	return list[from:min(len(list), from+limit)], false, nil
}

// readEventFile reads events up to the first line that does not verify.
func (s *dirStore) readEventFile(first uint64) (list []eventLine, sound bool, err error) {
	b, err := s.readAll(eventPath(first))
	if err != nil {
		return nil, false, err
	}
	list, sound = parseEvents(first, b)
	return list, sound, nil
}

func parseEvents(first uint64, b []byte) (list []eventLine, sound bool) {
	for _, l := range splitLines(b) {
		r, err := parseRecord(l)
		if err != nil || r.Type != recEvent || r.Event == nil || r.Number != first+uint64(len(list)) {
			return list, false
		}
		list = append(list, eventLine{r.Number, r.Event})
	}
	return list, true
}

// splitLines cuts after each new line; a last piece without one is a line too.
func splitLines(b []byte) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n') + 1
		if n == 0 {
			n = len(b)
		}
		out, b = append(out, b[:n:n]), b[n:]
	}
	return out
}

func (s *dirStore) EventsChanged() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.eventsChanged
}

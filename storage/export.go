package storage

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

const (
	exportFormat  = "forge-cpd-export"
	exportVersion = 1
	// exportFrame is what a page needs beside its entries.
	exportFrame = 512
	// exportAfter and a number is a cursor that a client makes: see ExportAfter.
	exportAfter = "after:"
)

// exporter fills one page. Sessions come first, then checkpoints by number, each after
// the contents that it is the first to name. The cursor says what comes next:
// "s<after>.<session id>" after a session, "c<after>.<number>.<file>.<offset>" at a place in
// a checkpoint; checkpoints up to the number after are left out.
type exporter struct {
	s                            *dirStore
	q                            ExportQuery
	after                        uint64
	left                         int
	sessions, checkpoints, files [][]byte
	next                         string
}

func (s *dirStore) Export(ctx context.Context, q ExportQuery) (ExportPage, error) {
	if q.MaxBytes <= 0 {
		q.MaxBytes = 8 << 20
	}
	e := &exporter{s: s, q: q, left: q.MaxBytes - exportFrame}
	session, at, err := e.resume()
	if err != nil {
		return ExportPage{}, checkpoint.Invalid("cursor", "%.64q is no cursor of an export: give the next_cursor of the page before, or %sNUMBER", q.Cursor, exportAfter)
	}
	done := true
	if at == (exportPlace{}) {
		done, err = e.addSessions(session)
	}
	if err == nil && done {
		err = e.addCheckpoints(ctx, at)
	}
	if err != nil {
		return ExportPage{}, err
	}
	return e.page()
}

// exportPlace is a place in a checkpoint: its number, one of its files, an offset in it.
// The zero one stands before the first.
type exportPlace struct {
	number       uint64
	file, offset int
}

// resume reads the cursor: the session after which to go on, or the place.
func (e *exporter) resume() (session string, at exportPlace, err error) {
	if n, ok := strings.CutPrefix(e.q.Cursor, exportAfter); ok || e.q.Cursor == "" {
		if ok {
			e.after, err = strconv.ParseUint(n, 10, 64)
		}
		return "", at, err
	}
	stage, err := decodeCursor("", e.q.Cursor)
	if err != nil {
		return "", at, err
	}
	if _, err = fmt.Sscanf(stage, "s%d.%s", &e.after, &session); err == nil {
		return session, at, nil
	}
	_, err = fmt.Sscanf(stage, "c%d.%d.%d.%d", &e.after, &at.number, &at.file, &at.offset)
	if err == nil && (at.number == 0 || at.file < 0 || at.offset < 0) {
		err = fmt.Errorf("it names no place")
	}
	return "", at, err
}

func (e *exporter) fits(b []byte) bool {
	if len(b)+1 > e.left {
		return false
	}
	e.left -= len(b) + 1
	return true
}

// stop ends the page before something that needs n bytes; one that no page can hold is an error.
func (e *exporter) stop(cursor string, n int) error {
	if len(e.sessions)+len(e.checkpoints)+len(e.files) == 0 {
		return checkpoint.Errorf(checkpoint.KindTooLarge, "one entry needs %d bytes: raise max_bytes", n+exportFrame)
	}
	e.next = encodeCursor("", cursor)
	return nil
}

func (e *exporter) addSessions(after string) (bool, error) {
	e.s.mu.RLock()
	var list []checkpoint.Session
	for id, sess := range e.s.index.bySess {
		if id.String() > after && (e.q.SessionID.IsZero() || id == e.q.SessionID) && (e.q.Owner == nil || *e.q.Owner == sess.meta.OwnerUID) {
			list = append(list, e.s.index.view(sess))
		}
	}
	e.s.mu.RUnlock()
	if !e.q.SessionID.IsZero() && len(list) == 0 && after == "" {
		return false, noSession(e.q.SessionID)
	}
	slices.SortFunc(list, func(a, b checkpoint.Session) int { return a.ID.Compare(b.ID) })
	for i := range list {
		b, err := encode(&list[i])
		if err != nil {
			return false, checkpoint.Errorf(checkpoint.KindInternal, "encoding a session: %w", err)
		}
		if !e.fits(b) {
			return false, e.stop(fmt.Sprintf("s%d.%s", e.after, after), len(b))
		}
		e.sessions = append(e.sessions, b)
		after = list[i].ID.String()
	}
	return true, nil
}

func (e *exporter) addCheckpoints(ctx context.Context, from exportPlace) error {
	seen := map[string]bool{}
	for _, l := range e.rows() {
		if err := ctx.Err(); err != nil {
			return &checkpoint.Error{Kind: checkpoint.KindStorage, Retry: true, Err: err, Message: "the export was cancelled"}
		}
		if l.corrupt || l.sequence < from.number && !l.files || l.sequence <= e.after {
			continue
		}
		st, err := e.s.load(l.location)
		if err != nil {
			if l.sequence < from.number {
				continue
			}
			var skip bool
			if skip, err = skippable(err); skip {
				continue // damaged or deleted: the rest is exported, validate_all names it
			}
			return err
		}
		var files []checkpoint.File
		if l.files {
			if files, err = filesOf(st); err != nil {
				return err
			}
		}
		files = slices.DeleteFunc(files, func(f checkpoint.File) bool {
			old := seen[f.SHA256]
			seen[f.SHA256] = true
			return old
		})
		if l.sequence < from.number {
			continue
		}
		if l.sequence > from.number {
			from.file, from.offset = 0, 0
		}
		if more, err := e.addOne(l.sequence, st, files, from.file, from.offset); err != nil || !more {
			return err
		}
	}
	return nil
}

func skippable(err error) (bool, error) {
	e, ok := err.(*checkpoint.Error)
	return ok && (e.Kind == checkpoint.KindCorrupt || e.Kind == checkpoint.KindNotFound), err
}

type exportRow struct {
	location
	files bool
}

func (e *exporter) rows() []exportRow {
	s := e.s
	s.mu.RLock()
	defer s.mu.RUnlock()
	rows := s.index.order
	if !e.q.SessionID.IsZero() {
		sess := s.index.bySess[e.q.SessionID]
		if sess == nil {
			return nil
		}
		rows = sess.rows
	}
	var out []exportRow
	for _, id := range rows {
		r := s.index.row(id)
		if e.q.Owner == nil || s.index.sessions[r.session].meta.OwnerUID == *e.q.Owner {
			out = append(out, exportRow{s.locate(id), r.flags&rowFiles != 0})
		}
	}
	return out
}

func filesOf(st *Stored) ([]checkpoint.File, error) {
	p, err := parseCheckpoint(st.Raw, "")
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInternal, "%w", err)
	}
	files, err := p.files()
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInternal, "%w", err)
	}
	return files, nil
}

// addOne adds a checkpoint's contents from a place on, then the checkpoint.
func (e *exporter) addOne(number uint64, st *Stored, files []checkpoint.File, file, offset int) (bool, error) {
	for ; file < len(files); file, offset = file+1, 0 {
		sum, err := blob.ParseSum(files[file].SHA256)
		if err != nil {
			return false, checkpoint.Errorf(checkpoint.KindInternal, "%w", err)
		}
		content, err := e.s.blobs.Get(sum)
		if err != nil {
			e.s.opts.Logger.Warn("a captured file is left out of an export", "sha256", files[file].SHA256, "error", err)
			continue
		}
		for first := true; first || offset < len(content); first = false {
			room := (e.left - 200) / 4 * 3
			if room < min(len(content)-offset, 4096) {
				return false, e.stop(fmt.Sprintf("c%d.%d.%d.%d", e.after, number, file, offset), 8192)
			}
			end := min(len(content), offset+max(room, 0))
			b := fmt.Appendf(nil, `{"sha256":"%s","offset":%d,"content_base64":"`, files[file].SHA256, offset)
			b = base64.StdEncoding.AppendEncode(b, content[offset:end])
			b = append(b, '"', '}')
			e.left -= len(b) + 1
			e.files = append(e.files, b)
			offset = end
		}
	}
	b := append([]byte(nil), st.Raw[:len(st.Raw)-1]...)
	b = append(b, `,"checksum":"`...)
	b = append(b, st.Summary.Checksum...)
	b = append(b, '"')
	if len(st.Annotations) > 0 {
		notes, err := encode(st.Annotations)
		if err != nil {
			return false, checkpoint.Errorf(checkpoint.KindInternal, "%w", err)
		}
		b = append(append(b, `,"annotations":`...), notes...)
	}
	b = append(b, '}')
	if !e.fits(b) {
		return false, e.stop(fmt.Sprintf("c%d.%d.%d.0", e.after, number, len(files)), len(b))
	}
	e.checkpoints = append(e.checkpoints, b)
	return true, nil
}

func (e *exporter) page() (ExportPage, error) {
	b := append(make([]byte, 0, e.q.MaxBytes-e.left), `{"format":"`+exportFormat+`","version":1,"checkpoints":[`...)
	list := func(items [][]byte) {
		for i, item := range items {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, item...)
		}
		b = append(b, ']')
	}
	list(e.checkpoints)
	b = append(b, `,"sessions":[`...)
	list(e.sessions)
	b = append(b, `,"files":[`...)
	list(e.files)
	e.s.mu.RLock()
	sequence := e.s.sequence
	e.s.mu.RUnlock()
	b = append(b, `,"global_sequence":`...)
	b = strconv.AppendUint(b, sequence, 10)
	b = append(b, `,"exported_at":"`...)
	b = e.s.opts.Now().UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.next != "" {
		b = append(b, `,"next_cursor":"`+e.next+`"`...)
	}
	return ExportPage{JSON: append(b, '}'), Next: e.next}, nil
}

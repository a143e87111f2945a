package storage

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

const (
	exportFormat  = "forge-cpd-export"
	exportVersion = 1
	// exportFrame is what a page needs beside its entries.
	exportFrame = 512
)

// exporter fills one page. Sessions come first, then checkpoints by number, each after
// the contents that it is the first to name. The cursor says what comes next:
// "s<session id>" after a session, "c<number>.<file>.<offset>" at a place in a checkpoint.
type exporter struct {
	s                            *dirStore
	q                            ExportQuery
	left                         int
	sessions, checkpoints, files [][]byte
	next                         string
}

func (s *dirStore) Export(ctx context.Context, q ExportQuery) (ExportPage, error) {
	if q.MaxBytes <= 0 {
		q.MaxBytes = 8 << 20
	}
	e := &exporter{s: s, q: q, left: q.MaxBytes - exportFrame}
	stage := "s"
	var err error
	if q.Cursor != "" {
		if stage, err = decodeCursor("", q.Cursor); err != nil || stage == "" {
			return ExportPage{}, checkpoint.Invalid("cursor", "%.64q is no cursor of an export", q.Cursor)
		}
	}
	done := true
	if stage[0] == 's' {
		done, err = e.addSessions(stage[1:])
		stage = "c0.0.0"
	}
	if err == nil && done {
		err = e.addCheckpoints(ctx, stage)
	}
	if err != nil {
		return ExportPage{}, err
	}
	return e.page()
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
			return false, e.stop("s"+after, len(b))
		}
		e.sessions = append(e.sessions, b)
		after = list[i].ID.String()
	}
	return true, nil
}

func (e *exporter) addCheckpoints(ctx context.Context, stage string) error {
	var number uint64
	var file, offset int
	if n, err := fmt.Sscanf(stage, "c%d.%d.%d", &number, &file, &offset); n != 3 || err != nil || file < 0 || offset < 0 {
		return checkpoint.Invalid("cursor", "not a cursor of an export")
	}
	number = max(number, e.q.After+1)
	seen := map[string]bool{}
	for _, l := range e.rows() {
		if err := ctx.Err(); err != nil {
			return &checkpoint.Error{Kind: checkpoint.KindStorage, Retry: true, Err: err, Message: "the export was cancelled"}
		}
		if l.corrupt || l.sequence < number && !l.files || l.sequence <= e.q.After {
			continue
		}
		st, err := e.s.load(l.location)
		if err != nil {
			if l.sequence < number {
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
		if l.sequence < number {
			continue
		}
		if l.sequence > number {
			file, offset = 0, 0
		}
		if more, err := e.addOne(l.sequence, st, files, file, offset); err != nil || !more {
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
				return false, e.stop(fmt.Sprintf("c%d.%d.%d", number, file, offset), 8192)
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
		return false, e.stop(fmt.Sprintf("c%d.%d.0", number, len(files)), len(b))
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

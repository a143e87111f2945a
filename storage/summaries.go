package storage

import (
	"cmp"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// sumFile is the summaries' file; a reader that still holds one that was replaced is told
// so. Places go on from one to the next, so that each belongs to one file: this one's start at base.
type sumFile struct {
	base int64
	mu   sync.RWMutex
	file vfs.File // nil once replaced
}

func (f *sumFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.file == nil || off < f.base {
		return 0, errRetired
	}
	return f.file.ReadAt(p, off-f.base)
}

func (f *sumFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// fileOf says which file a place is in; nil: it is gone. The store's lock is held.
func (l *rowLog) fileOf(off int64) *sumFile {
	if off >= l.sums.base {
		return l.sums
	}
	return l.old
}

// summaryRef is a row's summary, to be read without the lock.
type summaryRef struct {
	id       checkpoint.ID
	file     *sumFile
	off      int64
	sequence uint64
	open     []byte // without the counts and the closing brace; nil after loading: it was deleted meanwhile
	n        uint32
	check    uint32
	notes    uint16
	corrupt  bool
	ended    bool // plainEnd follows open
}

// summaryRef is called with the lock held.
func (s *dirStore) summaryRef(id rowID) summaryRef {
	r := s.index.row(id)
	ref := summaryRef{
		id: r.id, file: s.log.fileOf(r.sumOff), off: r.sumOff, n: r.sumLen, check: r.sumCheck, sequence: r.sequence, notes: r.notes,
		corrupt: r.flags&rowCorrupt != 0,
	}
	if r.sumLen == 0 {
		if p := s.index.pending[id]; p != nil {
			ref.open = p.summary
		}
	} else if ref.file == nil {
		ref.n = 0
	}
	return ref
}

// loadSummaries reads what is not in memory. What the index does not hold, or not as it was
// written, is read from the body and put back.
func (s *dirStore) loadSummaries(refs []summaryRef) error {
	order := make([]*summaryRef, 0, len(refs))
	var heal []*summaryRef
	for i := range refs {
		switch r := &refs[i]; {
		case r.open != nil:
		case r.n == 0:
			heal = append(heal, r)
		default:
			order = append(order, r)
		}
	}
	left, err := s.readSummaries(order)
	if err == nil && len(left) > 0 {
		moved, bad := s.movedSummaries(left)
		left, err = s.readSummaries(moved)
		left = append(left, bad...)
	}
	if err != nil {
		return s.storageError("reading the index", err)
	}
	return s.healSummaries(append(heal, left...))
}

// movedSummaries finds those whose file was replaced since they were looked up.
func (s *dirStore) movedSummaries(refs []*summaryRef) (moved, others []*summaryRef) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range refs {
		if id, ok := s.index.byID[r.id]; ok {
			if now := s.summaryRef(id); now.sequence == r.sequence && now.n > 0 && now.off != r.off {
				*r = now
				moved = append(moved, r)
				continue
			}
		}
		others = append(others, r)
	}
	return moved, others
}

// readSummaries reads from the index, neighbours in one go, and gives those back that are
// not as they were written.
func (s *dirStore) readSummaries(order []*summaryRef) (left []*summaryRef, err error) {
	const gap = 64 << 10
	slices.SortFunc(order, func(a, b *summaryRef) int { return cmp.Compare(a.off, b.off) })
	for len(order) > 0 {
		n, end := 1, order[0].end()
		for n < len(order) && order[n].file == order[0].file && order[n].off < end+gap && order[n].off-order[0].off < 4<<20 {
			end = max(end, order[n].end())
			n++
		}
		bad, err := s.readSpan(order[:n], end)
		if err != nil {
			return nil, err
		}
		left = append(left, bad...)
		order = order[n:]
	}
	return left, nil
}

// readSpan reads neighbours, and gives those back that are not as they were written.
func (s *dirStore) readSpan(refs []*summaryRef, end int64) (left []*summaryRef, err error) {
	r := sumReader{cache: &s.sums, file: refs[0].file, end: end}
	if end-refs[0].off >= cachedSpan {
		refs = r.fill(refs)
		if err := readable(r.err); err != nil || len(refs) == 0 {
			return nil, err
		}
	}
	start := refs[0].off
	b := make([]byte, refs[len(refs)-1].end()-start)
	got, err := refs[0].file.ReadAt(b, start)
	if err := readable(err); err != nil {
		return nil, err
	}
	for _, ref := range refs {
		from, to := int(ref.off-start), int(ref.end()-start)
		if to > got || crc32.Checksum(b[from:to], castagnoli) != ref.check {
			left = append(left, ref)
			continue
		}
		ref.open, ref.ended = b[from:from+int(ref.n):to], true
	}
	return left, nil
}

// readable drops the errors of a cache that is not whole: the body tells what it does not.
func readable(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, errRetired) || errors.Is(err, syscall.EIO) {
		return nil
	}
	return err
}

func (s *dirStore) healSummaries(refs []*summaryRef) error {
	if len(refs) == 0 {
		return nil
	}
	list := make([]built, len(refs))
	err := parallel(len(refs), s.opts.readers(), func(i int) error {
		r := refs[i]
		l, err := s.find(r.id)
		if err != nil {
			return nil // deleted meanwhile
		}
		if l.p != nil {
			r.open = l.p.summary
			return nil
		}
		job := loadJob{l: &sessionLoad{id: l.session}, r: listed{id: l.id, number: l.sequence, bytes: l.bytes}}
		row, sum, err := s.loadRow(job)
		if err != nil {
			if _, gone := s.find(r.id); gone != nil {
				return nil
			}
			return s.storageError("reading a checkpoint for the index", err)
		}
		list[i] = built{job, row, sum}
		r.open, r.corrupt = sum, row.flags&rowCorrupt != 0
		return nil
	})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(b built) bool { return b.sum == nil })
	if err := s.learn(list); err != nil {
		s.opts.Logger.Warn("the index cannot be mended", "error", err)
	}
	return nil
}

// end is where the index's bytes of the summary end.
func (r *summaryRef) end() int64 { return r.off + int64(r.n) + int64(len(plainEnd)) }

func (r *summaryRef) render() []byte {
	if r.ended && r.notes == 0 && !r.corrupt {
		return r.open[:len(r.open)+len(plainEnd)]
	}
	return closeSummary(make([]byte, 0, len(r.open)+64), r.open, int(r.notes), r.corrupt)
}

func (r *summaryRef) decode() (checkpoint.Summary, error) {
	sum, err := decodeSummary(r.render())
	if err != nil {
		return sum, checkpoint.Errorf(checkpoint.KindInternal, "the index holds a damaged summary: remove index/ and start again: %w", err)
	}
	return sum, nil
}

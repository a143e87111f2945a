package storage

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// segment is one file of the journal. While its records are not published they are read
// from here; when it is retired, readers that still hold it are waited for.
type segment struct {
	number  uint64
	ceiling uint64
	path    string

	// finished and lastGroup are guarded by the store's queue lock.
	finished  bool
	lastGroup uint64
	end       int64 // of what is durable
	damaged   bool  // it was so when the store was opened, and is named

	mu   sync.RWMutex // guards file against being closed under a reader
	file vfs.File     // nil once retired
}

var errRetired = errors.New("the journal segment is gone")

func (g *segment) ReadAt(p []byte, off int64) (int, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.file == nil {
		return 0, errRetired
	}
	return g.file.ReadAt(p, off)
}

func (g *segment) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		return nil
	}
	err := g.file.Close()
	g.file = nil
	return err
}

// segmentName carries the highest number that the segment may give, so that it is known
// whatever becomes of the content.
func segmentName(number, ceiling uint64) string {
	return fmt.Sprintf("%020d-%020d.jsonl", number, ceiling)
}

// markerNames repeat it in two empty files, which stay when the segment goes.
func markerNames(number, ceiling uint64) [2]string {
	base := fmt.Sprintf("journal/%020d-%020d", number, ceiling)
	return [2]string{base + ".a", base + ".b"}
}

// parseSegmentName takes a name of journal/ apart; ok is false for a stranger.
func parseSegmentName(name string) (number, ceiling uint64, ext string, ok bool) {
	base, ext, _ := strings.Cut(name, ".")
	if len(base) != 41 || base[20] != '-' || ext != "jsonl" && ext != "a" && ext != "b" {
		return 0, 0, "", false
	}
	n, err1 := fmt.Sscanf(base[:20], "%020d", &number)
	m, err2 := fmt.Sscanf(base[21:], "%020d", &ceiling)
	return number, ceiling, ext, n == 1 && m == 1 && err1 == nil && err2 == nil
}

// journal is the committer's end of the log.
type journal struct {
	fs       vfs.FS
	opts     *Options
	current  *segment
	off      int64  // where the next group goes
	last     string // checksum of the newest commit or segment line: the chain
	group    uint64 // of the next group
	number   uint64 // of the newest segment
	path     string // of the newest segment, also when it is gone
	marked   uint64 // the newest number that the markers knew when the store was opened
	ceiling  uint64
	markers  [][2]uint64 // those that are there: number and ceiling
	prepared chan preparedSegment
	waiting  bool
}

type preparedSegment struct {
	path string
	file vfs.File
	err  error
}

// prepare fills a file with zeros beside the committer: writing over zeros moves no end
// of file, so a flush of it is one write to the disk and not two.
func (j *journal) prepare() {
	if j.waiting {
		return
	}
	j.waiting = true
	path := fmt.Sprintf("tmp/segment-%020d", j.number+1)
	go func() {
		f, err := zeroFile(j.fs, path, j.opts.SegmentBytes)
		j.prepared <- preparedSegment{path, f, err}
	}()
}

func zeroFile(fsys vfs.FS, path string, size int64) (vfs.File, error) {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, err
	}
	f, err := fsys.Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(off, zeros[:min(int64(len(zeros)), size-off)])
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(path))
	}
	return f, nil
}

// open starts a new segment whose numbers end at ceiling. The chain goes on in its first line.
func (j *journal) open(ceiling uint64, first record) error {
	number := j.number + 1
	path := "journal/" + segmentName(number, ceiling)
	// One that could not be finished before, nor removed: nothing in it was acknowledged.
	if err := ignoreMissing(j.fs.Remove(path)); err != nil {
		return err
	}
	file, err := j.take(path)
	if err != nil {
		return err
	}
	g := &segment{number: number, ceiling: ceiling, path: path, file: file}
	fail := func(err error) error {
		// Markers without their segment would tell of one that is missing.
		for _, name := range markerNames(number, ceiling) {
			if goneErr := ignoreMissing(j.fs.Remove(name)); goneErr != nil {
				return errors.Join(err, goneErr, g.close())
			}
		}
		return errors.Join(err, g.close(), ignoreMissing(j.fs.Remove(path)))
	}
	first.Segment, first.Previous, first.Group, first.File = number, j.last, j.group, j.path
	b, sum, err := encodeRecord(first)
	if err != nil {
		return fail(err)
	}
	if _, err := file.WriteAt(0, b); err != nil {
		return fail(err)
	}
	if err := file.Sync(); err != nil {
		return fail(err)
	}
	if err := j.fs.SyncDir("journal"); err != nil { // its name before the markers'
		return fail(err)
	}
	if err := j.mark(number, ceiling); err != nil {
		return fail(err)
	}
	j.path, g.end = path, int64(len(b))
	j.current, j.off, j.last, j.number, j.ceiling = g, int64(len(b)), sum, number, ceiling
	j.unmark(number, ceiling)
	return nil
}

// take gives the prepared file its name, or makes one that is not filled.
func (j *journal) take(path string) (vfs.File, error) {
	if j.waiting {
		select {
		case p := <-j.prepared:
			j.waiting = false
			if p.err == nil {
				if err := j.fs.RenameNew(p.path, path); err != nil {
					return nil, errors.Join(err, p.file.Close(), ignoreMissing(j.fs.Remove(p.path)))
				}
				return p.file, nil
			}
		default:
		}
	}
	return j.fs.Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// mark makes the markers of a ceiling and makes them durable, with all names of journal/.
func (j *journal) mark(number, ceiling uint64) error {
	for _, name := range markerNames(number, ceiling) {
		f, err := j.fs.Open(name, os.O_WRONLY|os.O_CREATE)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	j.markers = append(j.markers, [2]uint64{number, ceiling})
	return j.fs.SyncDir("journal")
}

// unmark removes all markers but one pair's. Those that stay are lower, which does no
// harm; they are tried again the next time.
func (j *journal) unmark(number, ceiling uint64) {
	keep := j.markers[:0]
	for _, m := range j.markers {
		gone := m != [2]uint64{number, ceiling}
		for _, name := range markerNames(m[0], m[1]) {
			gone = gone && ignoreMissing(j.fs.Remove(name)) == nil
		}
		if !gone {
			keep = append(keep, m)
		}
	}
	j.markers = keep
}

// finish ends the current segment: what comes after its last line is damage from now on.
func (j *journal) finish() error {
	g := j.current
	if g == nil {
		return nil
	}
	b, sum, err := encodeRecord(record{Type: recEnd, Segment: g.number, Previous: j.last})
	if err != nil {
		return err
	}
	if _, err := g.file.WriteAt(j.off, b); err != nil {
		return err
	}
	if err := g.file.Truncate(j.off + int64(len(b))); err != nil {
		return err
	}
	if err := g.file.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	g.end = j.off + int64(len(b))
	j.last, j.current = sum, nil
	return nil
}

// discard waits for a file that is being prepared and removes it.
func (j *journal) discard() error {
	if !j.waiting {
		return nil
	}
	p := <-j.prepared
	j.waiting = false
	if p.err != nil {
		return nil // it has left nothing behind
	}
	return errors.Join(p.file.Close(), ignoreMissing(j.fs.Remove(p.path)))
}

// errUnknown marks a flush that failed: what is on the disk is not known.
var errUnknown = errors.New("the outcome of a flush is unknown")

func ignoreMissing(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

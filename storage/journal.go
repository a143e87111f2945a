package storage

import (
	"errors"
	"fmt"
	"os"
	"strconv"
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
	number, err1 := strconv.ParseUint(base[:20], 10, 64)
	ceiling, err2 := strconv.ParseUint(base[21:], 10, 64)
	return number, ceiling, ext, err1 == nil && err2 == nil
}

// journal is the committer's end of the log.
type journal struct {
	fs      vfs.FS
	opts    *Options
	current *segment
	off     int64  // where the next group goes
	last    string // checksum of the newest commit or segment line: the chain
	group   uint64 // of the next group
	number  uint64 // of the newest segment
	path    string // of the newest segment, also when it is gone
	marked  uint64 // the newest number that the markers knew when the store was opened
	ceiling uint64
	markers [][2]uint64          // those that are there: number and ceiling
	pairs   map[[2]uint64]string // their extensions when the store was opened
	filled  int64                // zeros are written up to here
	length  int64                // of the file, at least
	litter  []string             // of a segment that did not come about; it bears the next one's number
	cut     *segmentRead         // the newest, found without its end on a medium that took no writes
}

// A flush of bytes that were there as zeros is one write to the disk; one that moves the
// end of the file is two. So small groups find zeros ahead of them, some more each time, so
// that a small store stays small. A large group pays for its own end: zeros would double it.
const (
	leastFill  = 64 << 10
	mostFill   = 1 << 20
	largeGroup = 128 << 10
)

var zeros [mostFill]byte

// reach says how long the file is with a group of size bytes, its commit line apart. The
// commit line says it too: a file that is shorter was cut.
func (j *journal) reach(size int64) int64 {
	const commitLine = 512 // is shorter than this
	end := j.off + size + commitLine
	ahead := int64(0)
	if end > j.filled && size < largeGroup {
		ahead = max(0, min(min(max(end, leastFill), mostFill), j.opts.SegmentBytes-end))
	}
	return max(j.length, end+ahead)
}

// write puts a group at off. When no zeros were written yet up to length, they follow it.
func (j *journal) write(bufs [][]byte, size, length int64) error {
	end := j.off + size
	if n := length - end; length > j.filled && n > 0 {
		// The length first, and durable: a group may be whole on the disk, after a kill or a power
		// cut in the write below, when neither its zeros nor a longer file are.
		if err := j.current.file.Truncate(length); err != nil {
			return err
		}
		if err := j.flush(); err != nil {
			return err
		}
		all := bufs[:len(bufs):len(bufs)]
		for ; n > 0; n -= min(n, mostFill) {
			all = append(all, zeros[:min(n, mostFill)])
		}
		switch _, err := j.current.file.WriteAt(j.off, all...); {
		case err == nil:
			j.filled = length
			return nil
		case !noRoom(err):
			return err
		}
		// There may be room for the group alone; the hole after it takes none.
	}
	_, err := j.current.file.WriteAt(j.off, bufs...)
	j.filled = max(j.filled, end)
	return err
}

// flush makes what was written durable. When it fails nobody knows what is.
func (j *journal) flush() error {
	if err := j.current.file.Datasync(); err != nil {
		return errors.Join(errUnknown, err)
	}
	return nil
}

// clearRange makes zeros of what stands in a file from off up to end.
func clearRange(f vfs.File, off, end int64) error {
	for off < end {
		n, err := f.WriteAt(off, zeros[:min(end-off, mostFill)])
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// open starts a new segment whose numbers end at ceiling. The chain goes on in its first line.
func (j *journal) open(ceiling uint64, first record) error {
	number := j.number + 1
	path := "journal/" + segmentName(number, ceiling)
	if err := j.clean(); err != nil {
		return err
	}
	file, err := j.fs.Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	g := &segment{number: number, ceiling: ceiling, path: path, file: file}
	fail := func(err error) error {
		if errors.Is(err, errNames) { // in whatever way it is there, the next start takes it so
			return errors.Join(err, g.close())
		}
		// Markers without their segment would tell of one that is missing.
		marks := markerNames(number, ceiling)
		j.litter = append(j.litter, marks[0], marks[1], path)
		return errors.Join(err, g.close(), j.clean())
	}
	first.Segment, first.Previous, first.Group, first.File = number, j.last, j.group, j.path
	first.Bytes = min(leastFill, max(j.opts.SegmentBytes, 1024))
	b, sum, err := encodeRecord(first)
	if err != nil {
		return fail(err)
	}
	if _, err := file.WriteAt(0, b); err != nil {
		return fail(err)
	}
	if err := file.Truncate(first.Bytes); err != nil {
		return fail(err)
	}
	if err := file.Sync(); err != nil {
		return fail(err)
	}
	if err := j.flushNames(); err != nil { // its name before the markers'
		return fail(err)
	}
	if err := j.mark(number, ceiling); err != nil {
		return fail(err)
	}
	j.path, g.end = path, int64(len(b))
	j.current, j.off, j.last, j.number, j.ceiling = g, int64(len(b)), sum, number, ceiling
	j.filled, j.length = j.off, first.Bytes
	j.unmark(number, ceiling)
	return nil
}

// clean removes what did not come about, in the order of litter. Two files of one number
// would be two segments to the next start.
func (j *journal) clean() error {
	for len(j.litter) > 0 {
		err := j.fs.Remove(j.litter[0])
		if err == nil {
			err = j.flushNames() // or a power cut brings it back without the others
		}
		if ignoreMissing(err) != nil {
			return err
		}
		j.litter = j.litter[1:]
	}
	return nil
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
	return j.flushNames()
}

// flushNames flushes the directory. When the disk fails there, which names it holds is unknown.
func (j *journal) flushNames() error {
	err := j.fs.SyncDir("journal")
	if errors.Is(err, syscall.EIO) {
		return fmt.Errorf("%w: %w", errNames, err)
	}
	return err
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
	if err := g.file.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	// The end is there before the file gets shorter: a shorter one without it was cut.
	if err := g.file.Truncate(j.off + int64(len(b))); err != nil {
		return err
	}
	g.end = j.off + int64(len(b))
	j.last, j.current = sum, nil
	return nil
}

// errUnknown marks a flush that failed: what is on the disk is not known.
var errUnknown = errors.New("the outcome of a flush is unknown")

// errNames marks one of the journal's directory. Nothing was written to the segment that
// was being made, so nothing is unknown but which of its names are there.
var errNames = errors.New("the journal's directory could not be flushed")

func ignoreMissing(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

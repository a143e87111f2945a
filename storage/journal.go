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
	cut       bool  // it was found without its end, which could not be written

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

// reserve is the ceiling of a segment that goes on after a number.
func reserve(number, block uint64) uint64 { return max(number, min(number+block, maxNumber)) }

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
	soiled  int64                // what a group that failed has left reaches up to here
	whole   bool                 // and all of it may be there
	litter  []string             // of a segment that did not come about; it bears the next one's number
	cut     *segmentRead         // the newest, found without its end on a medium that took no writes
}

// A flush of bytes that were there as zeros is one write to the disk; one that moves the
// end of the file is two. So the file is made longer in steps, and small groups find zeros
// ahead of them: more each time, so that a small store stays small. A large group pays for
// its own blocks: zeros would double it.
const (
	leastFill  = 64 << 10
	mostFill   = 1 << 20
	mostAhead  = 4 << 20
	largeGroup = 128 << 10
)

var zeros [mostFill]byte

// ahead is how much comes behind end, at most so much.
func ahead(end, most int64) int64 { return min(max(end, leastFill), most) }

// reach says how long the file is with a group of size bytes, its commit line apart. The
// commit line says it too: a file that is shorter was cut.
func (j *journal) reach(size int64) int64 {
	const commitLine = 512 // is shorter than this
	end := j.off + size + commitLine
	if end <= j.length {
		return j.length
	}
	return max(end, min(end+ahead(end, mostAhead), j.opts.SegmentBytes))
}

// write puts a group at off, in a file of at least this length. A small one that comes to
// where no zeros are takes some along.
func (j *journal) write(bufs [][]byte, size, length int64) error {
	if err := j.wipe(); err != nil {
		return err
	}
	if length > j.length {
		// Durable before the group: that may be whole on the disk, after a kill or a power cut
		// in the write below, when a longer file is not.
		if err := j.current.file.Truncate(length); err != nil {
			return err
		}
		if err := j.flush(); err != nil {
			return err
		}
		j.length = length
	}
	end := j.off + size
	if n := min(ahead(end, mostFill), length-end); end > j.filled && size < largeGroup && n > 0 {
		switch wrote, err := j.put(append(bufs[:len(bufs):len(bufs)], zeros[:n]), size); {
		case err == nil:
			j.filled = end + n
			return nil
		case noRoom(err) && wrote >= size: // the hole after it takes no room
			j.filled, j.soiled, j.whole = j.off+wrote, 0, false
			return nil
		case !noRoom(err):
			return err
		}
		// There may be room for the group alone.
	}
	if _, err := j.put(bufs, size); err != nil {
		return err
	}
	j.filled = max(j.filled, end)
	return nil
}

// put writes at off, and remembers what it left of size bytes when it failed: on a full disk
// as many as it says, or else all may be there.
func (j *journal) put(bufs [][]byte, size int64) (int64, error) {
	n, err := j.current.file.WriteAt(j.off, bufs...)
	switch {
	case err == nil:
		j.soiled, j.whole = 0, false
	case noRoom(err) && int64(n) < size:
		j.soiled = max(j.soiled, j.off+int64(n))
	default:
		j.soiled, j.whole = j.off+size, true
	}
	return int64(n), err
}

// wipe takes away what a group that failed has left, so that nothing of it is ever read
// behind what comes. The file gets no shorter: one that is would look like a cut.
func (j *journal) wipe() error {
	if j.soiled <= j.off {
		return nil
	}
	j.filled = j.off
	if err := clearRange(j.current.file, j.off, j.soiled); err != nil {
		return err
	}
	if err := j.current.file.Sync(); err != nil {
		return errors.Join(errUnknown, err)
	}
	j.soiled, j.whole = 0, false
	return nil
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
func (j *journal) open(ceiling uint64, first record, takeSpare func() string) error {
	number := j.number + 1
	path := "journal/" + segmentName(number, ceiling)
	if err := j.clean(); err != nil {
		return err
	}
	g := &segment{number: number, ceiling: ceiling, path: path}
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
	file, n, sum, err := j.reuse(takeSpare(), path, &first)
	if err != nil {
		return fail(err)
	}
	filled := first.Bytes
	if file == nil {
		first.Bytes = min(leastFill, max(j.opts.SegmentBytes, 1024))
		if file, err = j.fs.Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
		n, sum, err = j.begin(file, &first)
		filled = n
	}
	if g.file = file; err != nil {
		return fail(err)
	}
	if err := j.flushNames(); err != nil { // its name before the markers'
		return fail(err)
	}
	if err := j.mark(number, ceiling); err != nil {
		return fail(err)
	}
	j.path, g.end = path, n
	j.current, j.off, j.last, j.number, j.ceiling = g, n, sum, number, ceiling
	j.filled, j.length, j.soiled = filled, first.Bytes, 0
	j.whole = false
	j.unmark(number, ceiling)
	return nil
}

// begin writes a segment's first line and flushes the file.
func (j *journal) begin(file vfs.File, first *record) (n int64, sum string, err error) {
	b, sum, err := encodeRecord(*first)
	if err != nil {
		return 0, "", err
	}
	if _, err := file.WriteAt(0, b); err != nil {
		return 0, "", err
	}
	if err := file.Truncate(first.Bytes); err != nil {
		return 0, "", err
	}
	return int64(len(b)), sum, file.Sync()
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
	if err := j.wipe(); err != nil {
		return err
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

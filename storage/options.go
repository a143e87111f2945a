package storage

import (
	"log/slog"
	"time"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// Options of Open. Zero members take the defaults named beside them.
type Options struct {
	// Dir is the data directory; it is made, 0700, when it is not there. Unused with FS.
	Dir string
	// FS replaces the real file system: the memory driver and the fault tests.
	FS vfs.FS
	// AllowNetworkFS opens a store on NFS, SMB, Ceph, AFS, 9p or FUSE, where locks and flushes may not hold.
	AllowNetworkFS bool
	// Now is the clock; time.Now.
	Now func() time.Time
	// Logger takes what belongs to no caller; discarded when nil.
	Logger *slog.Logger
	// Progress is told while files are read again at start.
	Progress func(done, total int)

	// SegmentBytes is the size of a journal segment, 16 MiB: large enough that changing
	// segments is rare, small enough to read whole at start.
	SegmentBytes int64
	// SpareSegments stay to be written again, 8; negative: none. They go after a
	// minute without a commit, when the store is closed, and when room is short.
	SpareSegments int
	// SequenceBlock is how many numbers a segment reserves, 65,536: a crash skips at most that many.
	SequenceBlock uint64
	// LargeBytes is the state size from which a checkpoint goes to its own file at once, 256 KiB.
	LargeBytes int
	// BacklogBytes of journal that are not published yet hold creates back, 256 MiB.
	BacklogBytes int64
	// GroupBytes bounds what one flush takes along, 8 MiB.
	GroupBytes int
	// EventsRetained is how many events stay for cursors, 100,000.
	EventsRetained int
	// ReserveBytes are held back so that deleting works on a full disk, 1 MiB; negative: none.
	ReserveBytes int64
	// PublishWorkers flush files beside each other, 64: flushes that wait together become one
	// of the disk's.
	PublishWorkers int
	// ImportBytes bounds the contents of files that imports have begun and not ended, 256 MiB;
	// a file that is larger cannot come in parts.
	ImportBytes int64
	// IndexSlack is how many bytes of index/ may be dead before it is written anew, if they are
	// most of it, 1 MiB.
	IndexSlack int64
	// CloseWithin bounds how long Close publishes what is left; what is then in the journal
	// stays there for the next Open. Zero: until all of it is published.
	CloseWithin time.Duration
	// LoadWait is how long a read waits for what a rebuild of the index has not come to yet,
	// 10 s; then it is refused, to be asked again.
	LoadWait time.Duration
	// SyncFS flushes the whole file system once a batch instead of each file. It is faster
	// and disturbs everything else that writes there.
	SyncFS bool

	// fromFiles leaves the index alone and reads every file before Open returns.
	fromFiles bool
}

func (o Options) withDefaults() Options {
	def(&o.SegmentBytes, 16<<20)
	def(&o.SpareSegments, 8)
	def(&o.SequenceBlock, 65536)
	def(&o.LargeBytes, 256<<10)
	def(&o.BacklogBytes, 256<<20)
	def(&o.GroupBytes, 8<<20)
	def(&o.EventsRetained, 100_000)
	def(&o.ReserveBytes, 1<<20)
	def(&o.PublishWorkers, 64)
	def(&o.ImportBytes, 256<<20)
	def(&o.IndexSlack, 1<<20)
	def(&o.LoadWait, 10*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	return o
}

// readers is how many files are read beside each other: enough for a disk, and few buffers.
func (o *Options) readers() int { return min(o.PublishWorkers, 16) }

func def[T int | int64 | uint64 | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

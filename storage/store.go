package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// FormatVersion is the version of the files that this package writes; a newer one is refused.
const FormatVersion = formatVersion

const (
	formatVersion = 1
	formatText    = `{"format":"forge-cpd","version":1}` + "\n"
)

// ErrLocked is found with errors.Is in the error of an Open that met another daemon.
var ErrLocked = errors.New("another daemon holds the store")

// dirStore is the directory driver. Lock order: mu, then qmu, then stateMu; none is held
// while the disk is waited for, but for a rename at start.
type dirStore struct {
	opts  Options
	fs    vfs.FS
	root  vfs.File // the data directory, locked
	lock  vfs.File
	blobs *blob.Store

	storeID checkpoint.ID
	journal journal // the committer's

	mu              sync.RWMutex // guards what follows; the committer reads without it
	index           *index
	notes           map[checkpoint.ID][]checkpoint.Annotation
	damaged         map[checkpoint.ID]Problem
	problems        []Problem
	knownBefore     []Problem // those that were in quarantine when the store was opened
	damagedSums     map[checkpoint.ID][]byte
	repair          []checkpoint.ID // sessions whose manifest is written anew
	sequence        uint64
	given           ranges // numbers that are not to be given again
	lastAt          int64
	sessionsCreated uint64
	items           []item
	unpublished     int
	nextEvent       uint64
	recent          []eventLine
	eventsChanged   chan struct{}
	log             rowLog
	sums            sumCache
	replaying       bool
	unread          *rebuild
	loaded          chan struct{} // closed when every row is known; nil: they were from the start
	headState       record        // events/head.json as it stands
	lockText        string        // what this process wrote into LOCK; "" when it could not
	lockFound       []byte        // what LOCK held before
	lockProblem     string        // and what was wrong with that
	headLost        bool          // it was found damaged or gone
	unmade          []string      // markers of the journal to be made again; the publisher's after the start
	unflushed       func() error  // makes durable what is published first; the publisher's too, nil for nothing
	eventFile       eventFile
	flushLost       error // the publisher's: a flush of the whole file system failed
	eventsBeyond    bool  // it may go on after what head.json says of it; a round was cut there

	// round is held while the files of a session change, so that what belongs together is
	// read together. It comes before mu.
	round sync.Mutex

	// The publisher's, for a full disk.
	shrunk   uint64 // the newest group of which publishDeletions carried out a deletion
	gathered int    // records of the last round
	fewer    int    // records that a round may take; 0: as many as always

	qmu       sync.Mutex // guards what follows
	qbell     *sync.Cond // the committer's
	pbell     *sync.Cond // the publisher's, and of those who wait for it
	queue     []*op
	closing   bool
	drained   bool // the committer has ended
	closeBy   time.Time
	backlog   int64
	committed uint64 // newest group in the journal
	published uint64 // newest group that is files
	segments  []*segment
	pace      pace

	stateMu    sync.Mutex // guards what follows
	fatal      error
	publishErr error
	reserved   bool

	spareMu sync.Mutex // guards what follows; it comes after all others
	spares  []string   // paths of segments' files that are zeros now
	rest    *time.Timer

	importMu sync.Mutex // guards what follows
	parts    parts
	held     map[blob.Sum]func()

	sweepDue   atomic.Int64 // deletions since captured files were collected
	largeSlots chan struct{}
	workers    sync.WaitGroup // bodies being written
	loops      sync.WaitGroup
	stop       chan struct{}
	closeOnce  sync.Once
	closeErr   error
}

// Open opens the store in a directory, or with Options.FS elsewhere, and makes it when
// there is none. It starts the committer and the publisher, which Close ends.
// A store that another process holds is ErrLocked; a damaged FORMAT is corrupt.
func Open(ctx context.Context, opts Options) (Store, error) {
	s, err := open(ctx, opts)
	if err != nil {
		return nil, err
	}
	s.start()
	return s, nil
}

func open(_ context.Context, opts Options) (_ *dirStore, err error) {
	opts = opts.withDefaults()
	s := &dirStore{
		opts: opts, fs: opts.FS, index: newIndex(), notes: map[checkpoint.ID][]checkpoint.Annotation{},
		damaged: map[checkpoint.ID]Problem{}, damagedSums: map[checkpoint.ID][]byte{}, eventsChanged: make(chan struct{}), stop: make(chan struct{}),
		largeSlots: make(chan struct{}, 8), nextEvent: 1, parts: parts{limit: opts.ImportBytes, list: map[blob.Sum]*part{}}, held: map[blob.Sum]func(){},
	}
	s.qbell, s.pbell = sync.NewCond(&s.qmu), sync.NewCond(&s.qmu)
	if s.fs == nil {
		if err := makeDataDir(opts.Dir); err != nil {
			return nil, s.storageError("making the data directory", err)
		}
		if s.fs, err = vfs.OS(opts.Dir); err != nil {
			return nil, s.storageError("opening the data directory", err)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
			var e *checkpoint.Error
			if errors.As(err, &e) {
				err = e
			}
		}
	}()
	if err := s.checkFS(); err != nil {
		return nil, err
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.signLock(); err != nil {
		return nil, err
	}
	if err := s.checkFormat(); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *dirStore) start() {
	if s.unread != nil {
		s.loops.Add(1)
		go s.unread.run()
	}
	s.loops.Add(2)
	go s.commitLoop()
	go s.publishLoop()
}

// NetworkFS names the file systems that Open refuses unless Options.AllowNetworkFS, by the
// type that statfs(2) gives; "" is any other.
func NetworkFS(statfsType int64) string { return networkFS[statfsType&0xffffffff] }

// readAll reads a regular file whole.
func (s *dirStore) readAll(path string) ([]byte, error) {
	info, err := s.fs.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode.IsRegular() {
		return nil, errStrange
	}
	f, err := s.fs.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	var b []byte
	if err == nil {
		b = make([]byte, size)
		_, err = f.ReadAt(b, 0)
	}
	return b, errors.Join(err, f.Close())
}

// storageError is an error of the disk or the engine as callers see it.
func (s *dirStore) storageError(doing string, err error) error {
	var e *checkpoint.Error
	if errors.As(err, &e) {
		return e
	}
	out := &checkpoint.Error{Kind: checkpoint.KindStorage, Err: err}
	advice := "look at the disk and at the daemon's log"
	switch {
	case errors.Is(err, errUnknown):
		advice = "whether it was kept is unknown: the store is read-only until the daemon is restarted"
	case noRoom(err):
		s.dropSpares()
		out.Retry, advice = true, "the disk is full: make room"
	case errors.Is(err, syscall.EROFS):
		out.Retry, advice = true, "the file system is mounted read-only"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		out.Retry, advice = true, "no descriptors are left: raise the limit"
	case errors.Is(err, syscall.EIO):
		advice = "the disk fails: look at the kernel's log"
	}
	out.Message = fmt.Sprintf("%s failed (%v): %s", doing, err, advice)
	return out
}

const reservePath = "tmp/reserve"

// Sync ends the current segment and waits until it is retired.
func (s *dirStore) Sync(ctx context.Context) (uint64, error) {
	var sequence uint64
	if err := s.do(&op{eval: func(t *tx) error { return nil }, after: func() error {
		sequence = s.sequence
		if s.journal.current == nil {
			return nil
		}
		return s.endSegment()
	}}); err != nil {
		return 0, err
	}
	if err := s.awaitPublished(ctx); err != nil {
		return 0, err
	}
	s.sweepFiles(ctx)
	return sequence, nil
}

// awaitPublished waits until everything in the journal is files.
func (s *dirStore) awaitPublished(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.qmu.Lock()
		defer s.qmu.Unlock()
		s.pbell.Broadcast()
	})
	defer stop()
	s.qmu.Lock()
	defer s.qmu.Unlock()
	want := s.committed
	s.pace.waiters++
	defer func() { s.pace.waiters-- }()
	s.pbell.Broadcast()
	for s.published < want || s.oldSegments(want) {
		if err := ctx.Err(); err != nil {
			return &checkpoint.Error{Kind: checkpoint.KindOverloaded, Retry: true, Err: err, Message: "publishing takes longer than the caller waits"}
		}
		if err := s.stuck(); err != nil {
			return err
		}
		s.pbell.Wait()
	}
	return nil
}

func (s *dirStore) oldSegments(group uint64) bool {
	return len(s.segments) > 0 && s.segments[0].finished && s.segments[0].lastGroup <= group
}

// stuck is called with qmu held.
func (s *dirStore) stuck() error {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if s.publishErr != nil {
		return s.storageError("publishing", s.publishErr)
	}
	return nil
}

// endSegment finishes the current segment and tells the publisher.
func (s *dirStore) endSegment() error {
	g := s.journal.current
	if err := s.finishSegment(); err != nil {
		return s.storageError("ending a journal segment", err)
	}
	s.qmu.Lock()
	g.finished, g.lastGroup = true, s.journal.group-1
	s.pbell.Broadcast()
	s.qmu.Unlock()
	return nil
}

// Close finishes what is queued, publishes it and lets go of the lock. What could not be
// published stays in the journal for the next Open.
func (s *dirStore) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.shutDown() })
	return s.closeErr
}

func (s *dirStore) shutDown() error {
	s.qmu.Lock()
	s.closing, s.closeBy = true, time.Now().Add(s.opts.CloseWithin)
	s.qbell.Broadcast()
	s.pbell.Broadcast()
	s.qmu.Unlock()
	close(s.stop)
	s.workers.Wait()
	s.awaitCommitter()
	s.spareMu.Lock()
	if s.rest != nil {
		s.rest.Stop()
	}
	s.spareMu.Unlock()
	s.dropSpares()
	s.qmu.Lock()
	left := s.committed - s.published
	s.qmu.Unlock()
	if left > 0 {
		s.opts.Logger.Warn("not all of the journal could be published before the end; the next start does it", "groups", left)
	}
	var err error
	s.stateMu.Lock()
	ok := s.fatal == nil && s.publishErr == nil && left == 0
	s.stateMu.Unlock()
	for _, release := range s.held {
		release()
	}
	if ok {
		s.sweepFiles(context.Background())
		err = errors.Join(err, s.lowerCeiling())
		s.syncIndex()
	}
	if err = errors.Join(err, s.release()); err != nil {
		return s.storageError("closing the store", err)
	}
	return nil
}

func (s *dirStore) awaitCommitter() {
	s.loops.Wait()
}

// lowerCeiling gives back the numbers that were reserved and not used.
func (s *dirStore) lowerCeiling() error {
	j := &s.journal
	if j.number == 0 || j.ceiling == s.sequence || j.current != nil {
		return nil
	}
	if err := j.mark(j.number, s.sequence); err != nil {
		return err
	}
	j.unmark(j.number, s.sequence)
	return s.fs.SyncDir("journal")
}

func (s *dirStore) release() error {
	var errs []error
	s.qmu.Lock()
	for _, g := range s.segments {
		errs = append(errs, g.close())
	}
	s.qmu.Unlock()
	if s.log.sums != nil {
		errs = append(errs, s.log.sums.close())
	}
	if s.log.rows != nil {
		errs = append(errs, s.log.rows.Close())
	}
	errs = append(errs, s.unlock())
	if s.opts.FS == nil && s.fs != nil {
		errs = append(errs, s.fs.Close())
	}
	return errors.Join(errs...)
}

// OpenMemory opens an empty store that lives in memory: the same code on another disk.
func OpenMemory(ctx context.Context, opts Options) (Store, error) {
	opts.FS, opts.SpareSegments = vfs.NewMem(), -1
	return Open(ctx, opts)
}

package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// BackupOptions of Backup.
type BackupOptions struct {
	// From is the data directory of the store; a daemon may be writing to it.
	From string
	// To is the copy: a directory that is not there yet, an empty one, or an earlier copy of
	// the same store, which is then replaced whole by the new one.
	To string
	// Sync returns when all that was acknowledged is files: daemon.sync, when a daemon has
	// the store. Required.
	Sync func(context.Context) error
	// Verify reads again what an earlier copy holds; else only its size is looked at.
	Verify bool
	// Workers copy beside each other, 8.
	Workers int
	// Progress is told of the checkpoints that are done, and how many are known of.
	Progress func(done, total int)
}

// BackupReport says what a copy holds and what it cost.
type BackupReport struct {
	Sessions    int `json:"sessions"`
	Checkpoints int `json:"checkpoints"`
	// Copied files were read, verified and written; linked ones were there already.
	Copied      int   `json:"files_copied"`
	CopiedBytes int64 `json:"bytes_copied"`
	Linked      int   `json:"files_linked"`
	// Problems is the damage met in the store. What is damaged and not in an earlier copy
	// is missing here; the rest is whole.
	Problems []Problem `json:"problems"`
}

// backupFile marks a copy: nothing else is ever replaced.
const backupFile = "backup.json"

type backupMark struct {
	Format  string        `json:"format"`
	Version int           `json:"version"`
	Store   checkpoint.ID `json:"store,omitzero"`
	From    string        `json:"from"`
	At      time.Time     `json:"at"`
}

// tree is a store's directory by its name and through the store's own calls.
type tree struct {
	*dirStore
	dir string
}

func openTree(dir string) (*tree, error) {
	fsys, err := vfs.OS(dir)
	if err != nil {
		return nil, err
	}
	return &tree{&dirStore{fs: fsys, opts: Options{Dir: dir}.withDefaults()}, dir}, nil
}

type backup struct {
	o     BackupOptions
	from  *tree
	old   *tree // the earlier copy; nil: there is none
	to    *tree
	store checkpoint.ID
	// segment is the number of the store's newest journal segment.
	segment uint64
	// known is the damage that the store has in quarantine already, by path.
	known map[string]bool
	blobs map[string]bool // those that the copy may have, by name

	mu       sync.Mutex // guards what follows
	report   BackupReport
	total    int
	sessions map[checkpoint.ID]*copied
}

// Backup copies a store while it is in use, by what FORMAT.md says of its files. The copy
// opens as a store of its own and holds every checkpoint that was acknowledged before; its
// events begin anew. Files that an earlier copy in the same place has are linked, not
// copied, and the new copy takes the old one's place in one step: until then, and whenever
// Backup fails or is killed, the earlier one stays. Damage in the store is no error: it is
// in the report.
func Backup(ctx context.Context, o BackupOptions) (*BackupReport, error) {
	def(&o.Workers, 8)
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	b := &backup{o: o, known: map[string]bool{}, blobs: map[string]bool{}, sessions: map[checkpoint.ID]*copied{}}
	b.report.Problems = []Problem{}
	err := o.Sync(ctx) // a store that has published nothing has no identity yet
	if err == nil {
		err = b.open()
	}
	if err == nil {
		err = b.run(ctx)
	}
	if err != nil && b.to != nil {
		err = errors.Join(err, os.RemoveAll(b.to.dir))
	}
	if err = errors.Join(err, b.close()); err != nil {
		var answer *checkpoint.Error
		if errors.As(err, &answer) {
			return nil, answer
		}
		return nil, fmt.Errorf("copying the store %s to %s: %w; an earlier copy is as it was", o.From, o.To, err)
	}
	return &b.report, nil
}

func (b *backup) close() error {
	var errs []error
	for _, t := range []*tree{b.from, b.old, b.to} {
		if t != nil {
			errs = append(errs, t.release())
		}
	}
	return errors.Join(errs...)
}

func (b *backup) run(ctx context.Context) error {
	// A captured file that is collected before this listing belonged to checkpoints that
	// the manifests no longer name after the flush, and one that is collected later is kept.
	if err := b.listBlobs(); err != nil {
		return err
	}
	if err := b.o.Sync(ctx); err != nil {
		return err
	}
	if err := b.loadKnown(); err != nil {
		return err
	}
	if err := b.copyBlobs(ctx); err != nil {
		return err
	}
	if err := b.copySessions(ctx); err != nil {
		return err
	}
	if err := b.finishBlobs(ctx); err != nil {
		return err
	}
	if err := b.copyQuarantine(); err != nil {
		return err
	}
	if err := b.writeCeiling(); err != nil {
		return err
	}
	if err := b.writeHead(); err != nil {
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.swap()
}

// head reads events/head.json; nil when the store has published nothing yet.
func (b *backup) head() (*record, error) {
	text, err := b.from.readAll(headPath)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := parseRecord(text)
	if err != nil || r.Type != recHead {
		return nil, checkpoint.Errorf(checkpoint.KindCorrupt, "%s is damaged (%v): run forge-cpd fsck", filepath.Join(b.o.From, headPath), err)
	}
	return &r, nil
}

// writeHead gives the copy a mark of its own: cursors of the store it came from may name
// events that the copy never heard of, and must not be taken for its own.
func (b *backup) writeHead() error {
	head, err := b.head()
	if err != nil {
		return err
	}
	if head == nil {
		head = &record{FirstEvent: 1}
	}
	line, _, err := encodeRecord(record{Type: recHead, Store: checkpoint.NewID(), Segment: b.segment, FirstEvent: head.FirstEvent, Created: head.Created})
	if err != nil {
		return err
	}
	return b.to.createFile(headPath, line)
}

// writeCeiling copies the name that says which numbers were given. It is read until two
// listings agree: names may change while a directory is read.
func (b *backup) writeCeiling() error {
	var before [2]uint64
	for try := 0; ; try++ {
		entries, err := b.from.fs.ReadDir("journal")
		if err != nil {
			return err
		}
		var top [2]uint64
		for _, e := range entries {
			if number, ceiling, _, ok := parseSegmentName(e.Name); ok {
				top = [2]uint64{max(top[0], number), max(top[1], ceiling)}
			}
		}
		if try > 0 && top == before {
			break
		}
		before = [2]uint64{max(top[0], before[0]), max(top[1], before[1])}
	}
	b.segment = before[0]
	for _, s := range b.sessions {
		before[1] = max(before[1], s.highest)
	}
	if before == [2]uint64{} {
		return nil
	}
	for _, name := range markerNames(before[0], before[1]) {
		if err := b.to.createFile(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// damaged notes damage of the store that is not in its quarantine yet.
func (b *backup) damaged(id checkpoint.ID, path, problem string) {
	if b.known[path] {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.report.Problems {
		if p.Path == path {
			return // when the session was read before
		}
	}
	b.report.Problems = append(b.report.Problems, Problem{CheckpointID: id, Path: path, Problem: problem})
}

// link takes a file from the earlier copy, if it is there with that many bytes (negative:
// any) and, when that was asked for, passes the check.
func (b *backup) link(path string, bytes int64, check func([]byte) error) bool {
	if b.old == nil {
		return false
	}
	info, err := b.old.fs.Lstat(path)
	if err != nil || !info.Mode.IsRegular() || bytes >= 0 && info.Size != bytes {
		return false
	}
	if b.o.Verify {
		body, err := b.old.readAll(path)
		if err != nil || check(body) != nil {
			return false
		}
	}
	if os.Link(filepath.Join(b.old.dir, path), filepath.Join(b.to.dir, path)) != nil {
		return false // the file system may know no links: then it is copied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Linked++
	return true
}

// put writes a file of the copy and makes it durable.
func (b *backup) put(path string, body []byte) error {
	if err := b.to.createFile(path, body); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Copied++
	b.report.CopiedBytes += int64(len(body))
	return nil
}

func (b *backup) listBlobs() error {
	entries, err := b.from.fs.ReadDir("blobs")
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range entries {
		if _, err := blob.ParseSum(e.Name); err == nil {
			b.blobs[e.Name] = true
		}
	}
	return nil
}

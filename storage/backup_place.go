package storage

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// open takes hold of the three directories.
func (b *backup) open() (err error) {
	for _, dir := range []*string{&b.o.From, &b.o.To} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if err := apart(b.o.From, b.o.To); err != nil {
		return err
	}
	if b.from, err = openTree(b.o.From); err != nil {
		return checkpoint.Errorf(checkpoint.KindStorage, "the store %s cannot be read: %w; run this as the user whose store it is", b.o.From, err)
	}
	if text, err := b.from.readAll("FORMAT"); err != nil || string(text) != formatText {
		return checkpoint.Errorf(checkpoint.KindCorrupt, "%s is no whole store of format %d (FORMAT: %.40q, %v): run forge-cpd fsck", b.o.From, formatVersion, text, err)
	}
	if head, err := b.head(); err != nil {
		return err
	} else if head != nil {
		b.store = head.Store
	}
	if err := b.openOld(); err != nil {
		return err
	}
	return b.makeNew()
}

// apart refuses a copy inside the store, and the other way round.
func apart(from, to string) error {
	real := func(dir string) string {
		if p, err := filepath.EvalSymlinks(dir); err == nil {
			return p
		}
		if p, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
			return filepath.Join(p, filepath.Base(dir))
		}
		return dir
	}
	a, z := real(from)+"/", real(to)+"/"
	if strings.HasPrefix(a, z) || strings.HasPrefix(z, a) {
		return checkpoint.Errorf(checkpoint.KindInvalidParams, "%s and the store %s are one inside the other: give another directory", to, from)
	}
	return nil
}

// openOld looks at what is in the copy's place. Holding its lock keeps another backup away,
// and says whether it is in use as a store.
func (b *backup) openOld() error {
	mark, err := readMark(b.o.To)
	switch {
	case err != nil:
		return err
	case mark == nil:
		return nil
	case mark.Store != b.store && !mark.Store.IsZero():
		return checkpoint.Errorf(checkpoint.KindInvalidParams, "%s is a copy of another store (%s): give another directory", b.o.To, mark.From)
	}
	if b.old, err = openTree(b.o.To); err != nil {
		return err
	}
	return b.old.takeLock()
}

// readMark gives the mark of a copy; nil when nothing is there, or an empty directory.
func readMark(dir string) (*backupMark, error) {
	text, err := os.ReadFile(filepath.Join(dir, backupFile))
	if err == nil {
		var m backupMark
		if err := json.Unmarshal(text, &m); err != nil || m.Format != "forge-cpd-backup" || m.Version != 1 {
			return nil, checkpoint.Errorf(checkpoint.KindCorrupt, "%s is not as a backup writes it (%v): give another directory", filepath.Join(dir, backupFile), err)
		}
		return &m, nil
	}
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(names) > 0:
		return nil, checkpoint.Errorf(checkpoint.KindInvalidParams, "%s holds something that no backup wrote: give a directory that is not there yet, or an earlier copy", dir)
	}
	return nil, nil
}

// makeNew makes the directory beside the copy in which the new one grows. What a killed
// backup left there goes first.
func (b *backup) makeNew() error {
	dir := b.o.To + ".new"
	mark, err := readMark(dir)
	if err != nil {
		return err
	}
	if mark != nil {
		left, err := openTree(dir)
		if err != nil {
			return err
		}
		err = left.takeLock() // of a backup that is at it
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err = errors.Join(err, left.release()); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if b.to, err = openTree(dir); err != nil {
		return err
	}
	text, err := json.Marshal(backupMark{"forge-cpd-backup", 1, b.store, b.o.From, time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := b.to.createFile(backupFile, append(text, '\n')); err != nil {
		return err
	}
	if err := b.to.takeLock(); err != nil {
		return err
	}
	return b.to.makeStore()
}

// flush makes the names in all directories durable; the files are already.
func (b *backup) flush() error {
	dirs := []string{"journal", "events", "quarantine", "blobs"}
	for id := range b.sessions {
		d := sessionDir(id)
		dirs = append(dirs, d+"/checkpoints", d+"/annotations", d)
	}
	err := parallel(len(dirs), b.o.Workers, func(i int) error { return b.to.fs.SyncDir(dirs[i]) })
	return errors.Join(err, b.to.fs.SyncDir("sessions"), b.to.fs.SyncDir(""))
}

// swap puts the new copy in the old one's place in one step and removes the old one.
func (b *backup) swap() error {
	fresh := b.o.To + ".new"
	err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, b.o.To, unix.RENAME_EXCHANGE)
	there := err == nil
	if errors.Is(err, unix.ENOENT) {
		err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, b.o.To, unix.RENAME_NOREPLACE)
	}
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EXDEV):
		return checkpoint.Errorf(checkpoint.KindInvalidParams, "%s is a mount point, which cannot be replaced: give a directory inside it", b.o.To)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return checkpoint.Errorf(checkpoint.KindStorage, "the file system of %s cannot exchange two directories (%w): give one on a local disk", b.o.To, err)
	case err != nil:
		return &os.LinkError{Op: "exchange", Old: fresh, New: b.o.To, Err: err}
	}
	if err := syncDirectory(filepath.Dir(b.o.To)); err != nil {
		return err
	}
	if !there {
		return nil
	}
	return os.RemoveAll(fresh)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

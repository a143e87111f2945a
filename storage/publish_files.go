package storage

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

func (s *dirStore) writeFiles(b *batch) error {
	if err := s.each(b, s.makeDirs); err != nil {
		return err
	}
	err := parallel(len(b.files), s.opts.PublishWorkers, func(i int) error {
		f := &b.files[i]
		if f.session.deleted {
			return nil
		}
		return s.writeCheckpointFile(f)
	})
	return err
}

// makeDirs makes a session's directories; their names are durable before a file is. The
// one of annotations comes with the first of them.
func (s *dirStore) makeDirs(j *sessionJob) error {
	if j.s.disk.made || j.deleted {
		return nil
	}
	dir := sessionDir(j.s.meta.ID)
	if _, err := s.fs.Lstat(dir); err == nil {
		// Of a session that had the same id, or of a round that was cut: the journal has all of this one.
		if err := s.removeSessionDir(j.s.meta.ID); err != nil {
			return err
		}
	}
	for _, d := range []string{dir, dir + "/checkpoints"} {
		if err := s.fs.Mkdir(d); err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return err
	}
	if err := s.fs.SyncDir("sessions"); err != nil {
		return err
	}
	j.s.disk.made = true
	return nil
}

// writeCheckpointFile makes the file under its own name; the journal holds the bytes as
// long as it may be unfinished. One that is there from before a crash is replaced.
func (s *dirStore) writeCheckpointFile(f *fileJob) error {
	var err error
	if f.p.large != "" {
		err = s.createWith(f.path, !s.opts.SyncFS, func(file vfs.File) error { return s.copyLarge(file, f.p) })
	} else {
		room := bodies.get(f.p.n)
		defer bodies.put(room)
		if _, err := f.p.seg.ReadAt(room[:f.p.n], f.p.off); err != nil {
			return err
		}
		err = s.create(f.path, room[:f.p.n], !s.opts.SyncFS)
	}
	if !errors.Is(err, syscall.EEXIST) {
		return err
	}
	body, err := s.readPending(f.p)
	if err != nil {
		return err
	}
	return s.replaceFile(f.path, body)
}

// copyLarge is readPending for a body of its own, piece by piece: no memory holds it whole.
func (s *dirStore) copyLarge(to vfs.File, p *pending) error {
	body, err := s.fs.Open(p.large, os.O_RDONLY)
	if err != nil {
		return err
	}
	room := bodies.get(pooledBody)
	defer bodies.put(room)
	end := p.n - int64(len(p.tail)+len(lineEnd))
	size, err := body.Size()
	if err == nil && size != end {
		err = &damageError{fmt.Sprintf("%s has %d bytes", p.large, size)}
	}
	if err == nil {
		_, err = to.WriteAt(0, header(p.sum))
	}
	for off := int64(checkpointHeader); err == nil && off < end; {
		piece := room[:min(int64(len(room)), end-off)]
		if _, err = body.ReadAt(piece, off); err == nil {
			_, err = to.WriteAt(off, piece)
		}
		off += int64(len(piece))
	}
	if err == nil {
		_, err = to.WriteAt(end, p.tail, []byte(lineEnd))
	}
	return errors.Join(err, body.Close())
}

func (s *dirStore) createFile(path string, body []byte) error { return s.create(path, body, true) }

// create makes a new file; one that is not flushed here waits for flushAll.
func (s *dirStore) create(path string, body []byte, flush bool) error {
	return s.createWith(path, flush, func(file vfs.File) error {
		_, err := file.WriteAt(0, body)
		return err
	})
}

func (s *dirStore) createWith(path string, flush bool, write func(vfs.File) error) error {
	file, err := s.fs.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	err = write(file)
	if err == nil && flush {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(s.fs.Remove(path)))
	}
	return nil
}

// replaceFile puts a whole new file in a name's place. The directory is the caller's to flush.
func (s *dirStore) replaceFile(path string, body []byte) error {
	tmp := "tmp/" + checkpoint.NewID().String()
	if err := writeFile(s.fs, tmp, 0, body); err != nil {
		return err
	}
	err := s.fs.Rename(tmp, path)
	if strange(err) {
		if err = s.quarantine(checkpoint.ID{}, path, errStrange.Error(), nil); err == nil {
			err = s.fs.Rename(tmp, path)
		}
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(s.fs.Remove(tmp)))
	}
	return nil
}

// strange says that something else stands in a file's place: a directory, a link, a FIFO.
func strange(err error) bool {
	return errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO)
}

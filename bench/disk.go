package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// journal is the limit: append to one file, one fdatasync shared by all who wait.
type journal struct {
	f    *os.File
	mu   sync.Mutex
	cond *sync.Cond
	buf  []byte
	gen  uint64 // generation being filled
	done uint64 // last generation on disk
	busy bool
	err  error
}

func openJournal(dir string) (putter, error) {
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, gen: 1}
	j.cond = sync.NewCond(&j.mu)
	return j, nil
}

func (j *journal) put(_, _ int, doc []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = append(append(j.buf, doc...), '\n')
	mine := j.gen
	for j.done < mine && j.err == nil {
		if j.busy {
			j.cond.Wait()
			continue
		}
		j.busy = true
		group, g := j.buf, j.gen
		j.buf = nil
		j.gen++
		j.mu.Unlock()
		_, err := j.f.Write(group)
		if err == nil {
			err = unix.Fdatasync(int(j.f.Fd()))
		}
		j.mu.Lock()
		j.busy, j.done, j.err = false, g, err
		j.cond.Broadcast()
	}
	return j.err
}

func (j *journal) close() error { return j.f.Close() }

// files writes one file a document: temp, (fsync,) rename(, fsync of the directory).
type files struct {
	dir  string
	sync bool
}

func openFiles(sync bool) func(string) (putter, error) {
	return func(dir string) (putter, error) { return &files{dir, sync}, nil }
}

func (s *files) put(worker, n int, doc []byte) error {
	name := filepath.Join(s.dir, fmt.Sprintf("%03d-%08d.json", worker, n))
	f, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(doc); err == nil && s.sync {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(name+".tmp", name)
	}
	if err != nil || !s.sync {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (s *files) close() error { return nil }

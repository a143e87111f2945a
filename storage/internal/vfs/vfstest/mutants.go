package vfstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// Mutant is a file system that behaves as the store's would if the store left out one
// rule. A fault test must fail on the mutants that it is about.
type Mutant struct {
	vfs.FS
	wrap func(path string, f vfs.File) vfs.File

	syncDir func(path string) error
	rename  func(from, to string) error
}

// Open implements vfs.FS.
func (m *Mutant) Open(path string, flag int) (vfs.File, error) {
	f, err := m.FS.Open(path, flag)
	if err != nil || m.wrap == nil {
		return f, err
	}
	return m.wrap(path, f), nil
}

// SyncDir implements vfs.FS.
func (m *Mutant) SyncDir(path string) error {
	if m.syncDir != nil {
		return m.syncDir(path)
	}
	return m.FS.SyncDir(path)
}

// Rename implements vfs.FS.
func (m *Mutant) Rename(from, to string) error {
	err := m.FS.Rename(from, to)
	if err == nil && m.rename != nil {
		err = m.rename(from, to)
	}
	return err
}

// RenameNew implements vfs.FS.
func (m *Mutant) RenameNew(from, to string) error {
	err := m.FS.RenameNew(from, to)
	if err == nil && m.rename != nil {
		err = m.rename(from, to)
	}
	return err
}

type mutantFile struct {
	vfs.File
	sync   func() error
	readAt func(p []byte, off int64) (int, error)
}

func (f *mutantFile) Sync() error {
	if f.sync != nil {
		return f.sync()
	}
	return f.File.Sync()
}

func (f *mutantFile) Datasync() error {
	if f.sync != nil {
		return f.sync()
	}
	return f.File.Datasync()
}

func (f *mutantFile) ReadAt(p []byte, off int64) (int, error) {
	if f.readAt != nil {
		return f.readAt(p, off)
	}
	return f.File.ReadAt(p, off)
}

// NoSync leaves out the flush of files whose path holds part.
func NoSync(fsys vfs.FS, part string) *Mutant {
	return &Mutant{FS: fsys, wrap: func(path string, f vfs.File) vfs.File {
		if !strings.Contains(path, part) {
			return f
		}
		return &mutantFile{File: f, sync: func() error { return nil }}
	}}
}

// NoSyncDir leaves out the flush of directories whose path holds part.
func NoSyncDir(fsys vfs.FS, part string) *Mutant {
	return &Mutant{FS: fsys, syncDir: func(path string) error {
		if strings.Contains(path, part) {
			return nil
		}
		return fsys.SyncDir(path)
	}}
}

// RenameFirst flushes a file of tmp only after it has its final name.
func RenameFirst(fsys vfs.FS) *Mutant {
	var mu sync.Mutex
	late := map[string]bool{}
	return &Mutant{
		FS: fsys,
		wrap: func(path string, f vfs.File) vfs.File {
			if !strings.HasPrefix(path, "tmp/") {
				return f
			}
			return &mutantFile{File: f, sync: func() error {
				mu.Lock()
				defer mu.Unlock()
				late[path] = true
				return nil
			}}
		},
		rename: func(from, to string) error {
			mu.Lock()
			flush := late[from]
			delete(late, from)
			mu.Unlock()
			if !flush {
				return nil
			}
			f, err := fsys.Open(to, syscall.O_RDWR)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		},
	}
}

// SyncAgain tries a failed flush a second time on the same descriptor.
func SyncAgain(fsys vfs.FS) *Mutant {
	return &Mutant{FS: fsys, wrap: func(_ string, f vfs.File) vfs.File {
		return &mutantFile{File: f, sync: func() error {
			if f.Sync() == nil {
				return nil
			}
			return f.Sync()
		}}
	}}
}

// ErrorsAsDamage gives zeros where the disk could not be read, as if an I/O error were rot.
func ErrorsAsDamage(fsys vfs.FS) *Mutant {
	return &Mutant{FS: fsys, wrap: func(_ string, f vfs.File) vfs.File {
		return &mutantFile{File: f, readAt: func(p []byte, off int64) (int, error) {
			n, err := f.ReadAt(p, off)
			if errors.Is(err, syscall.EIO) {
				clear(p)
				return len(p), nil
			}
			return n, err
		}}
	}}
}

// SameMeaning gives a file's original bytes while the JSON on the disk still means the
// same, as if a checksum were over what is meant and not over what is stored.
func SameMeaning(fsys vfs.FS, original *vfs.Mem) *Mutant {
	return &Mutant{FS: fsys, wrap: func(path string, f vfs.File) vfs.File {
		return &mutantFile{File: f, readAt: func(p []byte, off int64) (int, error) {
			size, err := f.Size()
			if err != nil || len(p) == 0 {
				return 0, err
			}
			b := make([]byte, size)
			if n, err := f.ReadAt(b, 0); int64(n) != size {
				return 0, err
			}
			if info, err := original.Lstat(path); err == nil && info.Mode.IsRegular() {
				if was := ReadFile(original, path); sameMeaning(was, b) {
					b = was
				}
			}
			return bytes.NewReader(b).ReadAt(p, off)
		}}
	}}
}

func sameMeaning(a, b []byte) bool {
	x, okX := values(a)
	y, okY := values(b)
	return okX && okY && reflect.DeepEqual(x, y)
}

func values(b []byte) (list []any, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	for dec.More() {
		var v any
		if dec.Decode(&v) != nil {
			return nil, false
		}
		list = append(list, v)
	}
	return list, len(list) > 0
}

// NoRemove leaves files whose path starts with prefix where they are.
func NoRemove(fsys vfs.FS, prefix string) vfs.FS { return &noRemove{fsys, prefix} }

type noRemove struct {
	vfs.FS
	prefix string
}

func (m *noRemove) Remove(path string) error {
	if strings.HasPrefix(path, m.prefix) {
		return nil
	}
	return m.FS.Remove(path)
}

// LateWrites says that a write or a flush of files whose path holds part is done before
// it is: each is made up for by the next call on the same file.
func LateWrites(fsys vfs.FS, part string) *Mutant {
	return &Mutant{FS: fsys, wrap: func(path string, f vfs.File) vfs.File {
		if !strings.Contains(path, part) {
			return f
		}
		return &lateFile{File: f}
	}}
}

type lateFile struct {
	vfs.File
	mu   sync.Mutex
	late []func() error
}

func (f *lateFile) catchUp() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, do := range f.late {
		errs = append(errs, do())
	}
	f.late = nil
	return errors.Join(errs...)
}

func (f *lateFile) later(do func() error) error {
	err := f.catchUp()
	f.mu.Lock()
	f.late = append(f.late, do)
	f.mu.Unlock()
	return err
}

func (f *lateFile) WriteAt(off int64, bufs ...[]byte) (int, error) {
	data := bytes.Join(bufs, nil)
	return len(data), f.later(func() error { _, err := f.File.WriteAt(off, data); return err })
}

func (f *lateFile) Datasync() error { return nil }

func (f *lateFile) Truncate(size int64) error {
	return errors.Join(f.catchUp(), f.File.Truncate(size))
}

func (f *lateFile) Close() error { return errors.Join(f.catchUp(), f.File.Close()) }

// NoNames hides empty files whose path starts with prefix from ReadDir, so that what
// their names say is not known.
func NoNames(fsys vfs.FS, prefix string) vfs.FS { return &noNames{fsys, prefix} }

type noNames struct {
	vfs.FS
	prefix string
}

func (m *noNames) ReadDir(path string) ([]vfs.Entry, error) {
	list, err := m.FS.ReadDir(path)
	if path+"/" != m.prefix {
		return list, err
	}
	return slices.DeleteFunc(list, func(e vfs.Entry) bool {
		info, err := m.Lstat(m.prefix + e.Name)
		return err == nil && info.Size == 0
	}), err
}

// Swallow says that writes and flushes of files whose path holds part went well, whatever
// became of them.
func Swallow(fsys vfs.FS, part string) *Mutant {
	return &Mutant{FS: fsys, wrap: func(path string, f vfs.File) vfs.File {
		if !strings.Contains(path, part) {
			return f
		}
		return &deafFile{f}
	}}
}

type deafFile struct{ vfs.File }

func (f *deafFile) WriteAt(off int64, bufs ...[]byte) (int, error) {
	_, _ = f.File.WriteAt(off, bufs...)
	return len(bytes.Join(bufs, nil)), nil
}

func (f *deafFile) Sync() error     { _ = f.File.Sync(); return nil }
func (f *deafFile) Datasync() error { _ = f.File.Datasync(); return nil }

// Stuck goes on failing for good once a change has failed.
func Stuck(fsys vfs.FS) *Mutant {
	var mu sync.Mutex
	var first error
	return &Mutant{FS: fsys, wrap: func(_ string, f vfs.File) vfs.File {
		return &mutantFile{File: f, sync: func() error {
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = f.Sync()
			}
			return first
		}}
	}}
}

// Stale shows files as they were in original, as if what was read once were not read again.
func Stale(fsys vfs.FS, original *vfs.Mem) vfs.FS { return &stale{fsys, original} }

type stale struct {
	vfs.FS
	original *vfs.Mem
}

func (m *stale) Open(path string, flag int) (vfs.File, error) {
	if flag == os.O_RDONLY {
		if f, err := m.original.Open(path, flag); err == nil {
			return f, nil
		}
	}
	return m.FS.Open(path, flag)
}

func (m *stale) Lstat(path string) (vfs.Info, error) {
	if info, err := m.original.Lstat(path); err == nil {
		return info, nil
	}
	return m.FS.Lstat(path)
}

// NoZeros leaves out the writes of nothing but zeros to files whose path holds part.
func NoZeros(fsys vfs.FS, part string) *Mutant {
	return &Mutant{FS: fsys, wrap: func(path string, f vfs.File) vfs.File {
		if !strings.Contains(path, part) {
			return f
		}
		return &noZeros{f}
	}}
}

type noZeros struct{ vfs.File }

func (f *noZeros) WriteAt(off int64, bufs ...[]byte) (int, error) {
	data := bytes.Join(bufs, nil)
	if len(bytes.Trim(data, "\x00")) == 0 {
		return len(data), nil
	}
	return f.File.WriteAt(off, data)
}

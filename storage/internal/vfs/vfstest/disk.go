// Package vfstest is a disk that fails on demand. Disk wraps the file system in memory:
// it counts the calls, lets a test fail or kill at any of them, remembers what was flushed
// and what was not, and lists what a power cut may leave (crash.go). Mutants are wrappers
// that break one rule of durable writing (mutants.go): what a fault test must notice.
package vfstest

import (
	"fmt"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// Call is one call of the file system.
type Call struct {
	N    int    // from 1
	Op   string // open create mkdir readdir lstat rename renamenew remove syncdir syncfs lock statfs read write sync truncate reserve size close
	Path string
}

func (c Call) String() string { return fmt.Sprintf("call %d, %s %s", c.N, c.Op, c.Path) }

// Changes says whether the call would change the disk.
func (c Call) Changes() bool {
	switch c.Op {
	case "create", "mkdir", "rename", "renamenew", "remove", "syncdir", "syncfs", "write", "sync", "truncate", "reserve", "lock":
		return true
	}
	return false
}

// Verdict is what happens to a call.
type Verdict struct {
	Errno syscall.Errno // fails with it, having done nothing
	Short bool          // with Errno, for a write: half of it is done first
	Kill  bool          // the process is dead: neither this call nor any after it does anything
}

// Disk is a vfs.FS in memory.
type Disk struct {
	mem  *vfs.Mem
	base *vfs.Mem // the disk when it was made, all of it durable

	mu     sync.Mutex
	hook   func(Call) Verdict
	calls  int
	dead   bool
	log    []op
	faults []string
	opens  int
}

// NewDisk wraps a tree; what is in it is durable. hook, which may be nil, is asked before
// every call, one at a time.
func NewDisk(mem *vfs.Mem, hook func(Call) Verdict) *Disk {
	return &Disk{mem: mem, base: mem.Clone(), hook: hook}
}

// Next is the disk under the process that comes after one that was killed: what that one had
// not flushed is there, and a power cut may still take it away.
func (d *Disk) Next(hook func(Call) Verdict) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{mem: d.mem.Clone(), base: d.base, log: append([]op(nil), d.log...), hook: hook}
}

// Mem is the tree as the running kernel shows it.
func (d *Disk) Mem() *vfs.Mem { return d.mem }

// Calls is how many there were.
func (d *Disk) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// Dead says whether the process was killed.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Open files that were not closed.
func (d *Disk) OpenFiles() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opens
}

// Violations lists what no program may do to a disk: flush a descriptor again whose flush had failed.
func (d *Disk) Violations() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.faults...)
}

// Mark notes that something happened between two calls; Crashes tells which marks a state came after.
func (d *Disk) Mark(v any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dead {
		d.log = append(d.log, op{kind: opMark, mark: v})
	}
}

// begin counts a call and asks the hook. It returns with mu held.
func (d *Disk) begin(name, file string) (Verdict, error) {
	d.mu.Lock()
	if d.dead {
		return Verdict{Kill: true}, fail(name, file, syscall.EIO)
	}
	d.calls++
	if d.hook == nil {
		return Verdict{}, nil
	}
	v := d.hook(Call{d.calls, name, file})
	if v.Kill {
		d.dead = true
		return v, fail(name, file, syscall.EIO)
	}
	if v.Errno != 0 {
		return v, fail(name, file, v.Errno)
	}
	return v, nil
}

func fail(op, file string, errno syscall.Errno) error {
	return &os.PathError{Op: op, Path: file, Err: errno}
}

func (d *Disk) ino(file string) uint64 {
	info, err := d.mem.Lstat(file)
	if err != nil {
		return 0
	}
	return info.Ino
}

func (d *Disk) dirIno(file string) uint64 { return d.ino(path.Dir(file)) }

// Open implements vfs.FS.
func (d *Disk) Open(file string, flag int) (vfs.File, error) {
	name := "open"
	if flag&os.O_CREATE != 0 {
		name = "create"
	}
	_, err := d.begin(name, file)
	defer d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return d.open(file, func() (vfs.File, error) { return d.mem.Open(file, flag) }, flag&os.O_TRUNC != 0)
}

func (d *Disk) open(file string, open func() (vfs.File, error), cut bool) (vfs.File, error) {
	before := d.ino(file)
	f, err := open()
	if err != nil {
		return nil, err
	}
	ino := d.ino(file)
	switch {
	case before != ino:
		d.log = append(d.log, op{kind: opLink, path: file, dir: d.dirIno(file), name: path.Base(file), ino: ino})
	case cut:
		d.log = append(d.log, op{kind: opTruncate, path: file, ino: ino})
	}
	d.opens++
	return &diskFile{d: d, f: f, ino: ino, path: file}, nil
}

// Lock implements vfs.FS.
func (d *Disk) Lock(file string) (vfs.File, error) {
	_, err := d.begin("lock", file)
	defer d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return d.open(file, func() (vfs.File, error) { return d.mem.Lock(file) }, false)
}

// Mkdir implements vfs.FS.
func (d *Disk) Mkdir(file string) error {
	_, err := d.begin("mkdir", file)
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.mem.Mkdir(file); err != nil {
		return err
	}
	d.log = append(d.log, op{kind: opLink, path: file, dir: d.dirIno(file), name: path.Base(file), ino: d.ino(file), isDir: true})
	return nil
}

// ReadDir implements vfs.FS.
func (d *Disk) ReadDir(file string) ([]vfs.Entry, error) {
	_, err := d.begin("readdir", file)
	defer d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return d.mem.ReadDir(file)
}

// Lstat implements vfs.FS.
func (d *Disk) Lstat(file string) (vfs.Info, error) {
	_, err := d.begin("lstat", file)
	defer d.mu.Unlock()
	if err != nil {
		return vfs.Info{}, err
	}
	return d.mem.Lstat(file)
}

// Rename implements vfs.FS.
func (d *Disk) Rename(from, to string) error { return d.rename("rename", from, to, d.mem.Rename) }

// RenameNew implements vfs.FS.
func (d *Disk) RenameNew(from, to string) error {
	return d.rename("renamenew", from, to, d.mem.RenameNew)
}

func (d *Disk) rename(name, from, to string, do func(from, to string) error) error {
	_, err := d.begin(name, to)
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	ino := d.ino(from)
	if err := do(from, to); err != nil {
		return err
	}
	d.log = append(d.log, op{
		kind: opRename, path: to, from: from, dir: d.dirIno(to), name: path.Base(to), ino: ino, fromDir: d.dirIno(from), fromName: path.Base(from),
	})
	return nil
}

// Remove implements vfs.FS.
func (d *Disk) Remove(file string) error {
	_, err := d.begin("remove", file)
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	ino := d.ino(file)
	if err := d.mem.Remove(file); err != nil {
		return err
	}
	d.log = append(d.log, op{kind: opUnlink, path: file, dir: d.dirIno(file), name: path.Base(file), ino: ino})
	return nil
}

// SyncDir implements vfs.FS.
func (d *Disk) SyncDir(file string) error {
	_, err := d.begin("syncdir", file)
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.mem.SyncDir(file); err != nil {
		return err
	}
	d.log = append(d.log, op{kind: opSyncDir, dir: d.ino(file)})
	return nil
}

// SyncFS implements vfs.FS.
func (d *Disk) SyncFS() error {
	_, err := d.begin("syncfs", "")
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	d.log = append(d.log, op{kind: opSyncFS})
	return nil
}

// Statfs implements vfs.FS.
func (d *Disk) Statfs() (vfs.FSInfo, error) {
	_, err := d.begin("statfs", "")
	defer d.mu.Unlock()
	if err != nil {
		return vfs.FSInfo{}, err
	}
	return d.mem.Statfs()
}

// Close implements vfs.FS.
func (d *Disk) Close() error { return nil }

type diskFile struct {
	d      *Disk
	f      vfs.File
	ino    uint64
	path   string
	failed bool // a flush of this descriptor failed
}

func (f *diskFile) ReadAt(p []byte, off int64) (int, error) {
	_, err := f.d.begin("read", f.path)
	defer f.d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.f.ReadAt(p, off)
}

func (f *diskFile) WriteAt(off int64, bufs ...[]byte) (int, error) {
	v, err := f.d.begin("write", f.path)
	defer f.d.mu.Unlock()
	var data []byte
	for _, b := range bufs {
		data = append(data, b...)
	}
	if err != nil && !v.Short {
		return 0, err
	}
	if v.Short {
		data = data[:len(data)/2]
	}
	n, werr := f.f.WriteAt(off, data)
	if n > 0 {
		f.d.log = append(f.d.log, op{kind: opWrite, path: f.path, ino: f.ino, off: off, data: data[:n]})
	}
	if err == nil {
		err = werr
	}
	return n, err
}

func (f *diskFile) Sync() error     { return f.sync("sync") }
func (f *diskFile) Datasync() error { return f.sync("sync") }

func (f *diskFile) sync(name string) error {
	_, err := f.d.begin(name, f.path)
	defer f.d.mu.Unlock()
	if f.d.dead {
		return err
	}
	if f.failed {
		f.d.faults = append(f.d.faults, "a descriptor of "+f.path+" was flushed again after a flush of it had failed")
	}
	if err != nil {
		// The kernel reports once, then takes the pages for clean: what was not on the disk never gets there.
		f.failed = true
		f.d.log = append(f.d.log, op{kind: opDrop, ino: f.ino})
		return err
	}
	f.d.log = append(f.d.log, op{kind: opSync, ino: f.ino})
	return f.f.Sync()
}

func (f *diskFile) Truncate(size int64) error {
	_, err := f.d.begin("truncate", f.path)
	defer f.d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := f.f.Truncate(size); err != nil {
		return err
	}
	f.d.log = append(f.d.log, op{kind: opTruncate, path: f.path, ino: f.ino, off: size})
	return nil
}

// Reserve changes nothing that a crash state shows.
func (f *diskFile) Reserve(size int64) error {
	_, err := f.d.begin("reserve", f.path)
	defer f.d.mu.Unlock()
	if err != nil {
		return err
	}
	return f.f.Reserve(size)
}

func (f *diskFile) Size() (int64, error) {
	_, err := f.d.begin("size", f.path)
	defer f.d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.f.Size()
}

// Close gives the descriptor up in any case, as the kernel does. The lock of a dead
// process is gone with it.
func (f *diskFile) Close() error {
	_, err := f.d.begin("close", f.path)
	defer f.d.mu.Unlock()
	f.d.opens--
	closeErr := f.f.Close()
	if err == nil {
		err = closeErr
	}
	return err
}

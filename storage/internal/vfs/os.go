package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// osFS reaches everything relative to a descriptor of its root, so that a root that is
// renamed meanwhile stays the same store, and no path leaves it.
type osFS struct {
	root int
	dir  string
}

// OS is the directory dir of the real file system. The directory must be there.
func OS(dir string) (FS, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &osFS{root: fd, dir: dir}, nil
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func (o *osFS) Open(path string, flag int) (File, error) {
	fd, err := retry(func() (int, error) {
		// O_NONBLOCK: a FIFO planted in a file's place must not hold the daemon.
		return unix.Openat(o.root, path, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	})
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return &osFile{fd: fd, path: path}, nil
}

func (o *osFS) Mkdir(path string) error {
	return pathError("mkdir", path, unix.Mkdirat(o.root, path, 0o700))
}

func (o *osFS) ReadDir(path string) ([]Entry, error) {
	fd, err := o.openDir(path)
	if err != nil {
		return nil, pathError("readdir", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	list, err := f.ReadDir(-1)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, pathError("readdir", path, errno(err))
	}
	entries := make([]Entry, len(list))
	for i, e := range list {
		entries[i] = Entry{Name: e.Name(), Mode: e.Type()}
	}
	return entries, nil
}

// errno takes the cause out of an error that package os has wrapped already.
func errno(err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

func (o *osFS) openDir(path string) (int, error) {
	if path == "" {
		path = "."
	}
	return retry(func() (int, error) {
		return unix.Openat(o.root, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func (o *osFS) Lstat(path string) (Info, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(o.root, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Info{}, pathError("lstat", path, err)
	}
	return Info{
		Size: st.Size, Mode: fileMode(st.Mode), ModTime: time.Unix(st.Mtim.Unix()).UTC(),
		UID: st.Uid, Ino: st.Ino,
	}, nil
}

func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	}
	return m
}

func (o *osFS) Rename(from, to string) error {
	return pathError("rename", to, unix.Renameat(o.root, from, o.root, to))
}

func (o *osFS) RenameNew(from, to string) error {
	err := unix.Renameat2(o.root, from, o.root, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system without the flag: a hard link refuses an existing name as well.
		if err = unix.Linkat(o.root, from, o.root, to, 0); err == nil {
			err = unix.Unlinkat(o.root, from, 0)
		}
	}
	return pathError("renamenew", to, err)
}

func (o *osFS) Remove(path string) error {
	err := unix.Unlinkat(o.root, path, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		err = unix.Unlinkat(o.root, path, unix.AT_REMOVEDIR)
	}
	return pathError("remove", path, err)
}

func (o *osFS) SyncDir(path string) error {
	fd, err := o.openDir(path)
	if err != nil {
		return pathError("syncdir", path, err)
	}
	err = unix.Fsync(fd)
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	return pathError("syncdir", path, err)
}

func (o *osFS) SyncFS() error {
	return pathError("syncfs", o.dir, unix.Syncfs(o.root))
}

func (o *osFS) Lock(path string) (File, error) {
	flag := os.O_RDWR | os.O_CREATE
	if path == "." {
		flag = os.O_RDONLY
	}
	f, err := o.Open(path, flag)
	if errors.Is(err, unix.EROFS) {
		f, err = o.Open(path, os.O_RDONLY) // a flock needs no right to write
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(f.(*osFile).fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(pathError("flock", path, err), f.Close())
	}
	return f, nil
}

func (o *osFS) Statfs() (FSInfo, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(o.root, &st); err != nil {
		return FSInfo{}, pathError("statfs", o.dir, err)
	}
	size := uint64(st.Bsize)
	return FSInfo{
		Type: int64(st.Type), Free: st.Bavail * size, Total: st.Blocks * size, FreeFiles: st.Ffree,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0,
	}, nil
}

func (o *osFS) Close() error { return pathError("close", o.dir, unix.Close(o.root)) }

type osFile struct {
	fd   int
	path string
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, pathError("read", f.path, err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// maxIOV is how many buffers one pwritev takes (IOV_MAX).
const maxIOV = 1024

func (f *osFile) WriteAt(off int64, bufs ...[]byte) (int, error) {
	rest := make([][]byte, 0, len(bufs))
	for _, b := range bufs {
		if len(b) > 0 {
			rest = append(rest, b)
		}
	}
	done := 0
	for len(rest) > 0 {
		part := rest[:min(len(rest), maxIOV)]
		n, err := retry(func() (int, error) {
			if len(part) == 1 {
				return unix.Pwrite(f.fd, part[0], off+int64(done))
			}
			return unix.Pwritev(f.fd, part, off+int64(done))
		})
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, pathError("write", f.path, err)
		}
		done += n
		for n > 0 && len(rest) > 0 {
			if n < len(rest[0]) {
				rest[0] = rest[0][n:]
				break
			}
			n -= len(rest[0])
			rest = rest[1:]
		}
	}
	return done, nil
}

// Sync and Datasync are never tried twice, not even when a signal interrupts them: an
// error of a flush is final.
func (f *osFile) Sync() error     { return pathError("fsync", f.path, unix.Fsync(f.fd)) }
func (f *osFile) Datasync() error { return pathError("fdatasync", f.path, unix.Fdatasync(f.fd)) }

func (f *osFile) Truncate(size int64) error {
	return pathError("truncate", f.path, unix.Ftruncate(f.fd, size))
}

func (f *osFile) Reserve(size int64) error {
	_, err := retry(func() (int, error) { return 0, unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	return pathError("fallocate", f.path, err)
}

func (f *osFile) Size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, pathError("fstat", f.path, err)
	}
	return st.Size, nil
}

// Close reports what the kernel says, but the descriptor is gone in any case.
func (f *osFile) Close() error { return pathError("close", f.path, unix.Close(f.fd)) }

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/storage"
)

// checkConfigured finds directories that the configuration names and that are not there.
func checkConfigured(cfg *config.Config, paths config.Paths) finding {
	f := finding{Check: "configuration", OK: true, Message: "defaults"}
	if paths.Config != "" {
		f.Message = paths.Config
	}
	var missing []string
	look := func(key, dir string) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, fmt.Sprintf("%s names %s", key, dir))
		}
	}
	for _, s := range cfg.Sessions {
		if s.Auto == nil {
			continue
		}
		for _, w := range s.Auto.Watch {
			look("the watch of session "+s.Key, fixedDir(w.Path))
		}
		for _, file := range s.Auto.Capture.Files {
			look("capture.files of session "+s.Key, fixedDir(file))
		}
	}
	if paths.DataDirFrom == config.FromConfig {
		look("storage.dir", filepath.Dir(paths.DataDir))
	}
	if len(missing) > 0 {
		f.OK = false
		f.Message = fmt.Sprintf("%s: %s, which is not there", f.Message, strings.Join(missing, "; "))
		f.Mend = "make the directory, or correct the path in the configuration"
	}
	return f
}

// fixedDir is the directory of a path before its first wildcard.
func fixedDir(path string) string {
	if i := strings.IndexAny(path, "*?[{"); i >= 0 {
		return filepath.Dir(path[:i] + "x")
	}
	return filepath.Dir(path)
}

// checkSocket looks at owner and mode of the socket and its directory.
func checkSocket(path string, cfg *config.Config) finding {
	f := finding{Check: "socket", OK: true, Message: path}
	fail := func(message, mend string) finding {
		return finding{Check: "socket", Message: message, Mend: mend}
	}
	own := uint32(os.Getuid())
	dir := filepath.Dir(path)
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Message += " (not made yet)"
		return f
	case err != nil:
		return fail(err.Error(), "make "+dir+" readable for you")
	}
	if uid := owner(info); uid != own && uid != 0 {
		return fail(fmt.Sprintf("%s belongs to uid %d, and you are uid %d: another user could answer in the daemon's place", dir, uid, own),
			"remove it as its owner, or name another place with --socket")
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fail(fmt.Sprintf("%s can be written by others (mode %04o)", dir, mode), "chmod 700 "+dir)
	}
	info, err = os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Message += " (not made yet)"
		return f
	case err != nil:
		return fail(err.Error(), "make "+dir+" readable for you")
	case info.Mode()&fs.ModeSocket == 0:
		return fail(path+" is no socket", "move it away")
	}
	if uid := owner(info); uid != own && uid != 0 {
		return fail(fmt.Sprintf("%s belongs to uid %d, and you are uid %d", path, uid, own), "remove it as its owner, or name another place with --socket")
	}
	if mode, want := info.Mode().Perm(), cfg.Socket.FileMode(); mode != want {
		return fail(fmt.Sprintf("%s has mode %04o, and the configuration says %04o", path, mode, want), fmt.Sprintf("chmod %o %s, or restart the daemon", want, path))
	}
	return f
}

func owner(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

// checkDataDir looks at owner and mode of the store.
func checkDataDir(dir string) finding {
	f := finding{Check: "data", OK: true, Message: dir}
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Message += " (not made yet)"
	case err != nil:
		f.OK, f.Message, f.Mend = false, err.Error(), "make it readable for the daemon's user"
	case !info.IsDir():
		f.OK, f.Message, f.Mend = false, dir+" is no directory", "name another with --data-dir"
	case int(owner(info)) != os.Getuid() && os.Getuid() != 0:
		f.OK, f.Message = false, fmt.Sprintf("%s belongs to uid %d, and you are uid %d", dir, owner(info), os.Getuid())
		f.Mend = "chown it to the daemon's user, or name another with --data-dir"
	case info.Mode().Perm()&0o077 != 0:
		f.OK, f.Message, f.Mend = false, fmt.Sprintf("%s is open to others (mode %04o)", dir, info.Mode().Perm()), "chmod 700 "+dir
	}
	return f
}

// least is what a store needs to go on: some segments of its journal.
const least = 256 << 20

// checkDisk looks for room, and for a mount that takes no writes.
func checkDisk(dir string) finding {
	f := finding{Check: "disk", OK: true}
	st, at, err := fileSystem(dir)
	if err != nil {
		return finding{Check: "disk", Message: err.Error(), Mend: "make the directory readable for you"}
	}
	free := st.Bavail * uint64(st.Bsize)
	f.Message = size(int64(free)) + " free"
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		f.OK, f.Message, f.Mend = false, at+" is mounted read-only", "mount -o remount,rw it, or name another place with --data-dir"
	case free < least:
		f.OK, f.Message = false, fmt.Sprintf("%s has only %s left", at, size(int64(free)))
		f.Mend = "make room: `forge-cpd prune SESSION …` deletes also on a full disk"
	case st.Files > 0 && st.Ffree < 1000:
		f.OK, f.Message, f.Mend = false, fmt.Sprintf("%s has only %d inodes left", at, st.Ffree), "delete files there; each checkpoint is one"
	}
	return f
}

// fileSystem asks the nearest directory that is there.
func fileSystem(dir string) (st unix.Statfs_t, at string, err error) {
	for at = dir; ; at = filepath.Dir(at) {
		err = unix.Statfs(at, &st)
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return st, at, err
		}
	}
}

func checkFileSystem(dir string, allowed bool) finding {
	f := finding{Check: "file system", OK: true, Message: "local"}
	st, at, err := fileSystem(dir)
	if err != nil {
		return finding{Check: "file system", Message: err.Error(), Mend: "make the directory readable for you"}
	}
	if name := storage.NetworkFS(int64(st.Type)); name != "" {
		f.Message = fmt.Sprintf("%s is on %s, where locks and flushes may not hold", at, name)
		if f.OK = allowed; !allowed {
			f.Mend = "keep the store on a local disk (--data-dir), or say storage.allow_network_fs: true and accept the risk"
		}
	}
	return f
}

// What is wanted of the kernel's limits: a few trees watched beside an editor's own.
const (
	wantWatches   = 8192
	wantInstances = 64
)

func checkInotify() finding {
	f := finding{Check: "inotify", OK: true}
	watches, err := lowest("/proc/sys/fs/inotify/max_user_watches", "/proc/sys/user/max_inotify_watches")
	instances, err2 := lowest("/proc/sys/fs/inotify/max_user_instances", "/proc/sys/user/max_inotify_instances")
	if err = errors.Join(err, err2); err != nil {
		f.Message = "not known here: " + err.Error()
		return f
	}
	f.Message = fmt.Sprintf("%d watches, %d instances", watches, instances)
	if watches < wantWatches || instances < wantInstances {
		f.OK = false
		f.Message += ": too few to watch a source tree"
		f.Mend = fmt.Sprintf("sysctl fs.inotify.max_user_watches=%d fs.inotify.max_user_instances=%d", max(watches, 524288), max(instances, 512))
	}
	return f
}

// lowest is the smallest number in files of which the first must be there: the machine's
// limit, and that of a user namespace.
func lowest(names ...string) (int, error) {
	least := -1
	for i, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			continue
		}
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if least < 0 || n < least {
			least = n
		}
	}
	return least, nil
}

// checkDescriptors compares a process's limit on open files with the connections that may come.
func checkDescriptors(cfg *config.Config, pid int) finding {
	f := finding{Check: "descriptors", OK: true}
	var r unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &r); err != nil {
		f.Message = "not known here: " + err.Error()
		return f
	}
	want := uint64(cfg.Limits.Connections) + 256 // and the store's own
	f.Message = fmt.Sprintf("%d open files allowed", r.Cur)
	if r.Cur < want {
		f.OK = false
		f.Message += fmt.Sprintf(", and limits.connections: %d needs %d", cfg.Limits.Connections, want)
		f.Mend = fmt.Sprintf("ulimit -n %d, LimitNOFILE=%d in the unit, or lower limits.connections", want, want)
	}
	return f
}

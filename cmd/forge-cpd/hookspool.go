package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon"
	"github.com/forge-cpd/forge-cpd/daemon/config"
)

// The spool holds the events that no daemon took, one file each, until one does. It lies
// beside the store and not in it: the store is the daemon's own.

// spoolFiles bounds a spool that nobody empties; later events are dropped. At one event a
// second it holds most of a working day.
const spoolFiles = 20000

// spoolDirs are the places, the first choice first. The second is for a user whose
// daemon is the system's and whose store is not theirs to write beside.
func spoolDirs(paths config.Paths) []string {
	var dirs []string
	if paths.DataDir != "" {
		dirs = append(dirs, paths.DataDir+".spool")
	}
	state := os.Getenv("XDG_STATE_HOME")
	if home := os.Getenv("HOME"); !filepath.IsAbs(state) && filepath.IsAbs(home) {
		state = filepath.Join(home, ".local", "state")
	}
	if filepath.IsAbs(state) {
		if second := filepath.Join(state, "forge-cpd.spool"); len(dirs) == 0 || dirs[0] != second {
			dirs = append(dirs, second)
		}
	}
	return dirs
}

// spool keeps a report. durable waits for the disk; without it the report survives every
// process but not the machine.
func spool(dirs []string, r *hookReport, durable bool) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	err = errors.New("no directory to spool to: set HOME")
	for _, dir := range dirs {
		if err = spoolInto(dir, r.At, r.ID, raw, durable); err == nil {
			return nil
		}
	}
	return err
}

func spoolInto(dir string, at time.Time, id string, raw []byte, durable bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if info, err := d.Stat(); err != nil {
		return err
	} else if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user", dir)
	}
	if names, err := d.Readdirnames(spoolFiles); err == nil && len(names) >= spoolFiles {
		return fmt.Errorf("%s is full: start the daemon to take its events in", dir)
	}
	name := fmt.Sprintf("%020d-%s.json", at.UnixNano(), id)
	temp := filepath.Join(dir, "."+name)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if durable && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if durable {
		return d.Sync()
	}
	return nil
}

// spooled lists the reports of a directory, oldest first.
func spooled(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	sort.Strings(names)
	return names
}

// takeInSpool hands the spooled events of this daemon's socket to it, in the order in which they
// happened. One process does so at a time; another that comes meanwhile leaves it to that
// one. A report that the daemon refuses for good is put aside as NAME.refused.
func takeInSpool(ctx context.Context, c *client.Client, socket string, dirs []string) (taken int, err error) {
	for _, dir := range dirs {
		n, err := takeInDir(ctx, c, socket, dir)
		taken += n
		if err != nil {
			return taken, err
		}
	}
	return taken, nil
}

func takeInDir(ctx context.Context, c *client.Client, socket, dir string) (taken int, err error) {
	if len(spooled(dir)) == 0 {
		return 0, nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return 0, nil
		}
		return 0, fmt.Errorf("locking %s: %w", dir, err)
	}
	for _, path := range spooled(dir) {
		raw, err := os.ReadFile(path)
		if err != nil {
			return taken, err
		}
		var r hookReport
		if json.Unmarshal(raw, &r) != nil {
			if err := os.Rename(path, path+".refused"); err != nil {
				return taken, err
			}
			continue
		}
		if r.Socket != socket && r.Socket != "" {
			continue
		}
		err = r.deliver(ctx, c)
		if refused(err) {
			err = os.Rename(path, path+".refused")
		} else if err == nil {
			taken, err = taken+1, os.Remove(path)
		}
		if err != nil {
			return taken, fmt.Errorf("taking in %s: %w", path, err)
		}
	}
	return taken, nil
}

// takeInAtStart hands a daemon that has just become ready what hooks kept for it.
func takeInAtStart(ctx context.Context, o daemon.Options) {
	c := &client.Client{Socket: o.Paths.Socket}
	defer c.Close()
	taken, err := takeInSpool(ctx, c, o.Paths.Socket, spoolDirs(o.Paths))
	if taken > 0 {
		o.Logger.Info("took in what hooks had kept", "events", taken)
	}
	if err != nil && ctx.Err() == nil {
		o.Logger.Warn("what hooks have kept stays in the spool: `forge-cpd hook drain` tries again", "error", err)
	}
}

// refused says that the daemon understood a report and will never take it.
func refused(err error) bool {
	var answer *checkpoint.Error
	return errors.As(err, &answer) && !answer.Retry &&
		(answer.Kind == checkpoint.KindInvalidParams || answer.Kind == checkpoint.KindTooLarge || answer.Kind == checkpoint.KindPermissionDenied || answer.Kind == checkpoint.KindConflict)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// finding is one line of the doctor's report. Mend is what to do about it.
type finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"`
	damage  bool
}

// machine is what the checks ask, so that tests can be another one.
type machine struct {
	uid    uint32
	proc   string // "/proc"
	now    func() time.Time
	statfs func(path string, st *unix.Statfs_t) error
	lstat  func(path string) (fs.FileInfo, error)
	nofile func() (soft uint64, err error)
}

func thisMachine() machine {
	return machine{
		uid: uint32(os.Getuid()), proc: "/proc", now: time.Now, statfs: unix.Statfs, lstat: os.Lstat,
		nofile: func() (uint64, error) {
			var r unix.Rlimit
			err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r)
			return r.Cur, err
		},
	}
}

func newDoctorCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "look for what is wrong, and say how to mend it",
		Long: `Checks the configuration, the socket, permissions, the disk, the clock, the kernel's limits,
the daemon and the newest checkpoints of each session. It changes nothing and starts
nothing. Exit code 0: all is well; 1: something is not; 5: damaged data.`,
		Example: "  forge-cpd doctor\n  forge-cpd doctor --json | jq '.findings[] | select(.ok | not)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.printFindings(a.examine(ctx, thisMachine()))
		},
	}
}

// examine makes all checks that can be made.
func (a *app) examine(ctx context.Context, m machine) []finding {
	cfg, paths, err := config.Resolve(a.flags)
	if err != nil {
		return []finding{{Check: "configuration", Message: err.Error(), Mend: "correct it and run `forge-cpd config check`"}}
	}
	found := []finding{checkConfigured(cfg, paths)}
	found = append(found, m.checkSocket(paths.Socket, cfg), m.checkDataDir(paths.DataDir), m.checkDisk(paths.DataDir),
		m.checkFileSystem(paths.DataDir, cfg.Storage.AllowNetworkFS), m.checkInotify(), m.checkDescriptors(cfg))
	c := &client.Client{Socket: paths.Socket, Handshake: a.timeout, RetryFor: -1}
	defer c.Close()
	info, err := c.Info(ctx)
	found = append(found, checkDaemon(info, err))
	if err != nil {
		if !errors.Is(err, client.ErrNotRunning) {
			return found
		}
		return append(found, m.checkClock(nil))
	}
	return append(found, m.checkNewest(ctx, c), checkHealth(ctx, c))
}

func checkDaemon(info *rpc.Info, err error) finding {
	f := finding{Check: "daemon"}
	var other *client.VersionError
	switch {
	case errors.Is(err, client.ErrNotRunning):
		f.OK, f.Message = true, "not running; a client command or `forge-cpd serve` starts it"
	case errors.As(err, &other):
		f.Message, f.Mend = err.Error(), "bring both to one version"
	case err != nil:
		f.Message, f.Mend = err.Error(), "see its log; if it is stopped, `kill -CONT` its process, else restart it"
	case olderThan(info, version):
		f.Message = fmt.Sprintf("version %s runs, and this program is %s", info.Version, version)
		f.Mend = "restart it: `forge-cpd call daemon.shutdown`, then any client command starts the new one"
	default:
		f.OK, f.Message = true, fmt.Sprintf("version %s answers, pid %d", info.Version, info.PID)
	}
	return f
}

// checkNewest compares the clock with the newest checkpoint's time.
func (m machine) checkNewest(ctx context.Context, c *client.Client) finding {
	page, _, err := c.Checkpoints(ctx, &rpc.CheckpointListParams{Order: "desc", Limit: 1})
	if err != nil {
		return finding{Check: "clock", Message: "the newest checkpoint cannot be listed: " + err.Error(), Mend: "see `forge-cpd status`"}
	}
	if len(page) == 0 {
		return m.checkClock(nil)
	}
	return m.checkClock(&page[0].Timestamp)
}

// checkClock finds a clock that ran backwards.
func (m machine) checkClock(newest *time.Time) finding {
	f := finding{Check: "clock", OK: true, Message: "goes forward"}
	const slack = time.Minute
	if newest != nil && newest.After(m.now().Add(slack)) {
		f.OK = false
		f.Message = fmt.Sprintf("ran backwards: the newest checkpoint is of %s and now is %s", newest.UTC().Format(time.RFC3339), m.now().UTC().Format(time.RFC3339))
		f.Mend = "set the clock right and keep it so (`timedatectl set-ntp true`); order is kept by sequence numbers meanwhile"
	}
	return f
}

// checkHealth asks the daemon, which reads the newest checkpoints of each session again.
func checkHealth(ctx context.Context, c *client.Client) finding {
	f := finding{Check: "integrity"}
	h, err := c.Health(ctx, &rpc.HealthParams{Validate: true, Recent: 5})
	switch {
	case err != nil:
		f.Message, f.Mend = err.Error(), "see the daemon's log"
	case h.Invalid > 0:
		f.damage = true
		f.Message = fmt.Sprintf("%d of %s read again are damaged", h.Invalid, plural(h.Checked, "checkpoint"))
		f.Mend = "run `forge-cpd fsck` for the whole list; damaged files stay in quarantine/, older checkpoints are not touched"
	case !h.Healthy:
		f.Message, f.Mend = h.Message, "see `forge-cpd status` for the check that failed"
	default:
		f.OK, f.Message = true, fmt.Sprintf("%s read again, all sound", plural(h.Checked, "checkpoint"))
	}
	return f
}

func (a *app) printFindings(found []finding) error {
	code := exitOK
	for _, f := range found {
		switch {
		case f.damage:
			code = exitDamaged
		case !f.OK && code == exitOK:
			code = exitFailed
		}
	}
	if a.json {
		if err := a.printJSON(map[string]any{"healthy": code == exitOK, "findings": found}); err != nil {
			return err
		}
	} else {
		st := a.style()
		for _, f := range found {
			mark := st.good("ok  ")
			if !f.OK {
				mark = st.bad("FAIL")
			}
			if _, err := fmt.Fprintf(a.stdout, "%s  %-13s  %s\n", mark, f.Check, plain(f.Message)); err != nil {
				return err
			}
			if f.Mend != "" {
				if _, err := fmt.Fprintf(a.stdout, "      %-13s  → %s\n", "", f.Mend); err != nil {
					return err
				}
			}
		}
	}
	if code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

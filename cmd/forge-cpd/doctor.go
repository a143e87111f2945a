package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/spf13/cobra"
)

// finding is one line of the doctor's report. Mend is what to do about it.
type finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"`
	damage  bool
}

func newDoctorCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "look for what is wrong, and say how to mend it",
		Long: `Checks the configuration, the socket, permissions, the disk, the clock, the kernel's limits,
the daemon and the newest checkpoints of each session; without a daemon, the whole store. It
changes nothing and starts nothing. Exit code 0: all is well; 1: something is not; 5: damaged data.`,
		Example: "  forge-cpd doctor\n  forge-cpd doctor --json | jq '.findings[] | select(.ok | not)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.printFindings(a.examine(ctx))
		},
	}
}

// examine makes all checks that can be made.
func (a *app) examine(ctx context.Context) []finding {
	cfg, paths, err := config.Resolve(a.flags)
	if err != nil {
		return []finding{{Check: "configuration", Message: err.Error(), Mend: "correct it and run `forge-cpd config check`"}}
	}
	c := &client.Client{Socket: paths.Socket, Handshake: a.timeout, RetryFor: -1}
	defer c.Close()
	info, err := c.Info(ctx)
	pid := 0 // this process: a daemon that it starts has its limits
	var h *rpc.Health
	var healthErr error
	if err == nil {
		pid = info.PID
		h, healthErr = c.Health(ctx, &rpc.HealthParams{Validate: true, Recent: 5})
		if healthErr == nil && paths.DataDirFrom != config.FromFlag && h.DataDir() != "" {
			paths.DataDir = h.DataDir() // a daemon of other flags or another environment
		}
	}
	found := []finding{checkConfigured(cfg, paths), checkSocket(paths.Socket, cfg), checkDataDir(paths.DataDir), checkDisk(paths.DataDir),
		checkFileSystem(paths.DataDir, cfg.Storage.AllowNetworkFS), checkInotify(), checkDescriptors(cfg, pid), checkDaemon(info, err)}
	switch {
	case errors.Is(err, client.ErrNotRunning):
		return append(found, a.checkStore(ctx, cfg, paths)...)
	case err != nil:
		return found
	}
	return append(found, checkFuture(ctx, c), checkHealth(h, healthErr))
}

// checkStore reads a store that no daemon holds.
func (a *app) checkStore(ctx context.Context, cfg *config.Config, paths config.Paths) []finding {
	f := finding{Check: "integrity", OK: true}
	if cfg.Storage.Driver != config.DriverDirectory {
		f.Message = "the " + cfg.Storage.Driver + " store holds nothing while no daemon runs"
		return []finding{f}
	}
	r, err := a.readStore(ctx, cfg, paths, false)
	switch {
	case errors.Is(err, checkpoint.ErrNotFound):
		f.Message = "no store yet"
		return []finding{f}
	case errors.Is(err, storage.ErrLocked):
		f.OK, f.Message = false, err.Error()
		f.Mend = "name its socket with --socket, or wait until it has ended"
		return []finding{f}
	case err != nil:
		f.OK, f.damage, f.Message = false, errors.Is(err, checkpoint.ErrCorrupt), err.Error()
		f.Mend = "mend that, then run `forge-cpd doctor` again"
		return []finding{f}
	case len(r.Problems) > 0:
		f.OK, f.damage = false, true
		p := r.Problems[0]
		f.Message = fmt.Sprintf("%s; the first is %s: %s", plural(len(r.Problems), "damaged file"), p.Path, p.Problem)
		f.Mend = mendDamage
	case r.Skipped > 0:
		f.OK, f.Message = false, plural(r.Skipped, "file")+" could not be read"
		f.Mend = "mend the disk or the files' permissions"
	default:
		f.Message = fmt.Sprintf("%s read again, all sound", plural(r.Valid, "checkpoint"))
		if r.Invalid > 0 {
			f.Message = fmt.Sprintf("%s read again, sound; %d in quarantine since earlier", plural(r.Valid, "checkpoint"), r.Invalid)
		}
	}
	return []finding{checkClock(r.Newest, time.Now()), f}
}

const mendDamage = "`forge-cpd fsck` names every damaged file; delete its checkpoint (`forge-cpd checkpoint delete`), import it from a backup, empty quarantine/ and restart"

func checkDaemon(info *rpc.Info, err error) finding {
	f := finding{Check: "daemon"}
	var other *client.VersionError
	switch {
	case errors.Is(err, client.ErrNotRunning):
		f.OK, f.Message = true, "not running; a client command or `forge-cpd serve` starts it"
	case errors.As(err, &other):
		f.Message, f.Mend = err.Error(), "bring both to one version; until then, use the program that the daemon came with"
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

// checkFuture looks for checkpoints that are newer than now.
func checkFuture(ctx context.Context, c *client.Client) finding {
	now := time.Now()
	since := now.Add(clockSlack)
	page, _, err := c.Checkpoints(ctx, &rpc.CheckpointListParams{Since: &since, Order: "desc", Limit: 1})
	if err != nil {
		return finding{Check: "clock", Message: "the newest checkpoint cannot be listed: " + err.Error(), Mend: "see `forge-cpd status`"}
	}
	var newest time.Time
	if len(page) > 0 {
		newest = page[0].Timestamp
	}
	return checkClock(newest, now)
}

// clockSlack is what clocks of machines that an export travels between may differ.
const clockSlack = time.Minute

// checkClock finds a clock that ran backwards; a zero newest is of an empty store.
func checkClock(newest, now time.Time) finding {
	f := finding{Check: "clock", OK: true, Message: "goes forward"}
	if newest.After(now.Add(clockSlack)) {
		f.OK = false
		f.Message = fmt.Sprintf("ran backwards: a checkpoint is of %s and now is %s", newest.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		f.Mend = "set the clock right and keep it so (`timedatectl set-ntp true`); order is kept by sequence numbers meanwhile"
	}
	return f
}

// checkHealth tells what the daemon said, which read the newest checkpoints of each session again.
func checkHealth(h *rpc.Health, err error) finding {
	f := finding{Check: "integrity"}
	switch {
	case err != nil:
		f.Message, f.Mend = err.Error(), "see the daemon's log"
	case h.Invalid > 0:
		f.damage = true
		f.Message = fmt.Sprintf("%d of %s read again are damaged; %s", h.Invalid, plural(h.Checked, "checkpoint"), h.Message)
		f.Mend = mendDamage
	case !h.Healthy && (failed(h, "integrity") || failed(h, "scrub")):
		f.damage, f.Message, f.Mend = true, h.Message, mendDamage
	case !h.Healthy:
		f.Message, f.Mend = h.Message, "see `forge-cpd status` for the check that failed"
	default:
		f.OK, f.Message = true, fmt.Sprintf("%s read again, all sound", plural(h.Checked, "checkpoint"))
	}
	return f
}

func failed(h *rpc.Health, check string) bool {
	return slices.ContainsFunc(h.Checks, func(c rpc.HealthCheck) bool { return c.Name == check && !c.OK })
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

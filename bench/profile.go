package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	daemonpkg "github.com/forge-cpd/forge-cpd/daemon"
	"github.com/forge-cpd/forge-cpd/daemon/config"
)

// profile runs 64 clients that put 8 KB against the daemon and leaves what the daemon did,
// from its start until the last put, in dir: cpu, heap (allocations) and mutex.
func profile(root, dir string, d time.Duration) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	sock := filepath.Join(root, "s")
	cmd := exec.Command(self, "-serve", "profiled", "-socket", sock, "-profile", dir)
	p, err := start(cmd, root, sock)
	if err != nil {
		return err
	}
	s := p.(*daemon)
	serial := 0
	got, err := measure(unsettled{s}, 64, 8192, d, false, &serial)
	used, cpuErr := s.cpu()
	if err := errors.Join(err, cpuErr, s.close()); err != nil {
		return err
	}
	fmt.Printf("%.0f puts a second, p50 %.1f ms, p99 %.1f ms, %.0f us of processor time each; profiles in %s\n",
		got.Rate, got.P50, got.P99, used/(got.Rate*d.Seconds())*1e6, dir)
	return nil
}

// unsettled leaves what is still to be published alone.
type unsettled struct{ putter }

// serveProfiled is the daemon on its defaults, with its profiles kept.
func serveProfiled(ctx context.Context, sock, dir string) error {
	cfg := config.Default()
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	defer cpu.Close()
	runtime.SetMutexProfileFraction(10)
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		pprof.StopCPUProfile()
		var errs []error
		for _, name := range []string{"allocs", "mutex"} {
			f, err := os.Create(filepath.Join(dir, name+".pprof"))
			if err == nil {
				err = errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
			}
			errs = append(errs, err)
		}
		stopped <- errors.Join(errs...)
	}()
	data := filepath.Join(filepath.Dir(sock), "data")
	err = daemonpkg.Run(ctx, daemonpkg.Options{Config: cfg, Paths: config.Paths{Socket: sock, DataDir: data}})
	return errors.Join(err, <-stopped)
}

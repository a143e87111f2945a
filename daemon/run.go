package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// Options of Run. Config and Paths are required; config.Resolve gives both.
type Options struct {
	Config  *config.Config
	Paths   config.Paths
	Version string
	// Logger takes the daemon's log; nil discards it. Level, when not nil, is the logger's
	// own and follows log.level over reloads.
	Logger *slog.Logger
	Level  *slog.LevelVar
	// Listener is one that was inherited (socket activation): it is served, and its socket
	// file is never touched. nil makes the socket at Paths.Socket.
	Listener net.Listener
	// Reload, when not nil, is SIGHUP's channel: each receive re-reads the configuration.
	Reload <-chan os.Signal
	// Store, when not nil, is served in place of the one that Config names. Run closes it.
	Store storage.Store
	// Ready, when not nil, is called once, when clients are answered.
	Ready func(rpc.Info)
	// Progress is told while the store reads its files at start.
	Progress func(done, total int)

	started func(*service) // for tests
}

// Run is the daemon: it returns when ctx has ended, or daemon.shutdown was called, and
// all that was asked before is answered, saved and closed, within limits.drain_timeout
// for the connections. Its error is why it could not start, or what could not be saved.
// No goroutine of it is left then.
func Run(ctx context.Context, o Options) (err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = slog.New(requestHandler{o.Logger.Handler()})
	if err := checkConfig(o.Config); err != nil {
		return err
	}
	store, err := openStore(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		begin := time.Now()
		err = errors.Join(err, store.Close())
		o.Logger.Info("the store is closed", "after", time.Since(begin).Round(time.Millisecond))
	}()
	d, err := newDaemon(o, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.svc.pending.close()) }()
	listener := o.Listener
	if listener == nil {
		s, err := listen(o.Paths.Socket, o.Config.Socket.Mode, len(o.Config.Socket.AllowedUIDs)+len(o.Config.Socket.AllowedGIDs) > 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.remove()) }()
		listener = s.Listener
	}
	return d.serve(ctx, listener)
}

func openStore(ctx context.Context, o Options) (storage.Store, error) {
	if o.Store != nil {
		return o.Store, nil
	}
	c := o.Config
	opts := storage.Options{
		Dir: o.Paths.DataDir, AllowNetworkFS: c.Storage.AllowNetworkFS, EventsRetained: c.Events.Retain,
		CloseWithin: c.Limits.DrainTimeout, ImportBytes: c.Limits.ImportBytes,
		Logger: o.Logger.With("part", "storage"), Progress: o.Progress,
	}
	switch c.Storage.Driver {
	case config.DriverMemory:
		opts.Dir = ""
		return storage.OpenMemory(ctx, opts)
	case config.DriverDirectory:
		return openWhenFree(ctx, opts)
	}
	return nil, c.Errorf("storage.driver", "%q cannot be opened by this daemon: use directory or memory", c.Storage.Driver)
}

// lockPatience is how long a start waits for the store's lock: a daemon that was killed
// lets go of it only when the kernel has taken its memory back.
const lockPatience = 500 * time.Millisecond

func openWhenFree(ctx context.Context, opts storage.Options) (storage.Store, error) {
	for deadline := time.Now().Add(lockPatience); ; {
		store, err := storage.Open(ctx, opts)
		if !errors.Is(err, storage.ErrLocked) || time.Now().After(deadline) {
			return store, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// instance is one run's parts.
type instance struct {
	o        Options
	svc      *service
	server   *rpc.Server
	engine   *autotrigger.Engine
	reloader *reloader
	notify   notifier
	stop     chan struct{} // closed by daemon.shutdown
	retune   chan struct{} // a new retention.every
}

func newDaemon(o Options, store storage.Store) (*instance, error) {
	uid := uint32(os.Geteuid())
	capture, err := newCapturer(uid)
	if err != nil {
		return nil, err
	}
	spill := ""
	if dir := storeDir(o); dir != "" {
		spill = filepath.Join(dir, "tmp")
	}
	pending, err := newPendingStates(spill)
	if err != nil {
		return nil, fmt.Errorf("the place for states kept aside: %w", err)
	}
	s := &service{
		store: store, log: o.Logger, uid: uid, started: time.Now().UTC(), pending: pending, agents: newAgents(),
		hub: newEventHub(store, o.Logger), capture: capture, dataDir: storeDir(o),
	}
	s.cfg.Store(o.Config)
	s.info = rpc.Info{
		Name: "forge-cpd", Version: o.Version, API: rpc.APIVersion, StoreFormat: storage.FormatVersion, PID: os.Getpid(),
		StartedAt: s.started, Socket: o.Paths.Socket, Driver: o.Config.Storage.Driver,
		Capabilities: []string{"auto", "batch", "capture", "events", "export", "files", "lsp-framing"},
	}
	d := &instance{o: o, svc: s, notify: notifier{o.Logger}, stop: make(chan struct{}), retune: make(chan struct{}, 1)}
	d.engine = autotrigger.New(autotrigger.Options{
		Take: s.take, Save: s.saveAutoState, Report: s.report, Parser: transcript.New, Logger: o.Logger.With("part", "autotrigger"),
		Load: s.loadAutoState, StoreDir: storeDir(o), FileBytes: o.Config.Capture.FileBytes, TotalBytes: o.Config.Capture.TotalBytes,
	})
	s.auto = d.engine
	d.server = rpc.NewServer(s, rpc.Options{
		Limits: wireLimits(o.Config), Logger: o.Logger.With("part", "rpc"), Access: s.access, Lookup: lookup{store},
	})
	s.wireStats = d.server.Stats
	var once sync.Once
	s.shutdown = func() { once.Do(func() { close(d.stop) }) }
	d.reloader = &reloader{
		svc: s, paths: o.Paths, level: o.Level, notify: d.notify, wake: make(chan struct{}, 1), apply: d.apply,
	}
	s.reload = d.reloader.reload
	if o.started != nil {
		o.started(s)
	}
	return d, nil
}

// serve works until ctx ends or daemon.shutdown is called, then drains.
func (d *instance) serve(ctx context.Context, l net.Listener) error {
	// What runs in the background outlives ctx: the drain still needs it.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopWork()
	if err := d.svc.hub.start(work); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := d.svc.automateAll(ctx, d.o.Config); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := d.svc.keepConfigured(ctx, nil, d.o.Config); err != nil {
		return errors.Join(err, l.Close())
	}
	if addr := d.o.Config.Metrics.Listen; addr != "" {
		m, err := listenMetrics(addr, d.svc, d.o.Logger)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		wg.Go(func() { m.run(work) })
	}
	failed := make(chan error, 2)
	wg.Go(func() {
		if err := d.engine.Run(work); err != nil && work.Err() == nil {
			failed <- fmt.Errorf("the automatic checkpoints stopped: %w", err)
		}
	})
	wg.Go(func() { d.svc.hub.run(work) })
	wg.Go(func() { d.svc.runScrub(work, d.reloader.wake) })
	wg.Go(func() { d.runRetention(work) })
	wg.Go(func() { d.boundGarbage(work) })
	wg.Go(func() { spareCollections(work, quietTime) })
	served := make(chan struct{})
	wg.Go(func() {
		defer close(served)
		if err := d.server.Serve(work, l); err != nil && work.Err() == nil {
			failed <- fmt.Errorf("serving %s: %w", d.o.Paths.Socket, err)
		}
	})
	wg.Go(func() { d.notify.watchdog(work, d.svc.probe) })
	d.announce(ctx)
	err := d.wait(ctx, failed)
	return errors.Join(err, d.drain(served), l.Close())
}

// announce says that the daemon is ready: watches are armed, or it was told to stop first.
func (d *instance) announce(ctx context.Context) {
	select {
	case <-d.engine.Ready():
	case <-ctx.Done():
		return
	case <-d.stop:
		return
	}
	d.o.Logger.Info("ready", "socket", d.o.Paths.Socket, "data_dir", d.o.Paths.DataDir, "driver", d.svc.info.Driver, "version", d.o.Version)
	d.notify.ready("serving")
	if d.o.Ready != nil {
		d.o.Ready(d.svc.info)
	}
}

// wait returns when it is time to stop.
func (d *instance) wait(ctx context.Context, failed <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.stop:
			return nil
		case err := <-failed:
			return err
		case _, ok := <-d.o.Reload:
			if !ok {
				d.o.Reload = nil
				continue
			}
			if r, err := d.reloader.reload(ctx); err != nil {
				d.o.Logger.Error("the configuration was not reloaded", "err", err)
				d.notify.status("serving; the last reload was refused: see the log")
			} else {
				d.o.Logger.Info("the configuration was reloaded", "file", r.Config, "generation", r.Generation, "restart_to_apply", r.NeedsStart)
			}
		}
	}
}

// drain answers what was asked before, refuses creates asked later, and takes a last
// checkpoint of what agents put and nobody saved.
func (d *instance) drain(served <-chan struct{}) error {
	begin := time.Now()
	d.svc.beginDrain(begin)
	d.notify.stopping()
	d.o.Logger.Info("stopping")
	timeout := d.svc.config().Limits.DrainTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := d.server.Shutdown(ctx)
	<-served
	if errors.Is(err, context.DeadlineExceeded) {
		d.o.Logger.Warn("some requests were not answered before limits.drain_timeout", "timeout", timeout)
		err = nil
	}
	last, cancelLast := context.WithTimeout(context.Background(), timeout)
	defer cancelLast()
	for _, id := range d.svc.pending.waiting() {
		d.svc.takeUnsaved(last, id, "the daemon stopped")
	}
	d.o.Logger.Info("every request is answered; what is left is publishing the journal", "after", time.Since(begin).Round(time.Millisecond))
	return err
}

// runRetention applies the rules to all sessions every retention.every.
func (d *instance) runRetention(ctx context.Context) {
	for {
		var timer <-chan time.Time
		if every := d.svc.config().Retention.Every; every > 0 {
			timer = time.After(every)
		}
		select {
		case <-ctx.Done():
			return
		case <-d.retune:
		case <-timer:
			d.svc.retainAll(ctx)
		}
	}
}

// apply brings in what a new configuration changes outside the service.
func (d *instance) apply(cfg *config.Config) {
	d.server.SetLimits(wireLimits(cfg))
	select {
	case d.retune <- struct{}{}:
	default:
	}
}

// wireLimits are the configuration's; those that it does not name keep rpc's defaults.
func wireLimits(cfg *config.Config) rpc.Limits {
	l, c := rpc.DefaultLimits(), cfg.Limits
	l.FrameBytes, l.StateBytes, l.MetadataBytes = int(c.FrameBytes), int(c.StateBytes), int(c.MetadataBytes)
	l.InFlightBytes, l.Connections, l.InFlightPerConnection = c.InFlightBytes, c.Connections, c.InFlightPerConnection
	l.JSONDepth, l.FrameTimeout, l.WriteTimeout, l.IdleTimeout = c.JSONDepth, c.FrameTimeout, c.WriteTimeout, c.IdleTimeout
	l.MessageBytes, l.NameBytes, l.KeyBytes, l.TagCount, l.TagBytes = c.MessageBytes, c.NameBytes, c.KeyBytes, c.Tags, c.TagBytes
	l.LabelCount, l.LabelBytes, l.QueuedNotifications = c.Labels, c.LabelBytes, c.NotificationBytes
	return l
}

// lookup lets the wire order requests that name a session by its key or a checkpoint.
type lookup struct{ store storage.Store }

func (l lookup) SessionOfKey(key string) (checkpoint.ID, bool) {
	sess, err := l.store.Session(context.Background(), storage.Ref{Key: key})
	return sess.ID, err == nil
}

func (l lookup) SessionOfCheckpoint(id checkpoint.ID) (checkpoint.ID, bool) {
	sum, err := l.store.Summary(context.Background(), id)
	return sum.SessionID, err == nil
}

func (l lookup) StateBytes(ref rpc.SessionRef, id checkpoint.ID) (int64, bool) {
	if id.IsZero() {
		sess, err := l.store.Session(context.Background(), storage.Ref{ID: ref.SessionID, Key: ref.Key})
		if err != nil || sess.Last == nil {
			return 0, err == nil
		}
		id = sess.Last.ID
	}
	sum, err := l.store.Summary(context.Background(), id)
	return sum.StateBytes, err == nil
}

// storeDir is where the store is, "" when it is kept in memory.
func storeDir(o Options) string {
	if o.Config.Storage.Driver == config.DriverDirectory {
		return o.Paths.DataDir
	}
	return ""
}

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// reloader swaps the configuration, one reload at a time.
type reloader struct {
	svc    *service
	paths  config.Paths
	level  *slog.LevelVar
	notify notifier
	wake   chan struct{} // tells the scrub and retention of new schedules
	apply  func(*config.Config)

	mu         sync.Mutex // held over a reload
	generation int
}

// reload reads the file again. A bad one changes nothing. Sessions and limits follow at
// once; keys that need a restart are named in the result and keep their old meaning.
func (r *reloader) reload(ctx context.Context) (*rpc.ReloadResult, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notify.reloading()
	defer r.notify.ready("serving")
	old := r.svc.config()
	cfg, file, err := r.paths.Reload()
	if err == nil {
		err = checkConfig(cfg)
	}
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInvalidParams, "the configuration was not changed: %w", err)
	}
	level, err := LogLevel(cfg.Log.Level)
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInvalidParams, "the configuration was not changed: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	r.svc.cfg.Store(cfg)
	if err := r.svc.keepConfigured(ctx, old, cfg); err != nil {
		r.svc.cfg.Store(old)
		if back := r.svc.keepConfigured(ctx, cfg, old); back != nil {
			r.svc.log.ErrorContext(ctx, "sessions of the old configuration were not all put back", "err", back)
		}
		return nil, err
	}
	if r.level != nil && cfg.Log.Level != old.Log.Level {
		r.level.Set(level)
	}
	r.apply(cfg)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	r.generation++
	return &rpc.ReloadResult{Reloaded: true, Config: file, Generation: r.generation, NeedsStart: needsStart(old, cfg)}, nil
}

// needsStart lists the sections that changed and that only a restart brings in.
func needsStart(old, cfg *config.Config) []string {
	keys := []string{}
	for _, k := range []struct {
		key       string
		old, next any
	}{
		{"socket.path", old.Socket.Path, cfg.Socket.Path},
		{"socket.mode", old.Socket.Mode, cfg.Socket.Mode},
		{"storage", old.Storage, cfg.Storage},
		{"events.retain", old.Events.Retain, cfg.Events.Retain},
		{"capture.file_bytes", old.Capture.FileBytes, cfg.Capture.FileBytes},
		{"capture.total_bytes", old.Capture.TotalBytes, cfg.Capture.TotalBytes},
		{"log.format", old.Log.Format, cfg.Log.Format},
		{"metrics.listen", old.Metrics.Listen, cfg.Metrics.Listen},
	} {
		if !reflect.DeepEqual(k.old, k.next) {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// LogLevel reads log.level.
func LogLevel(name string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("log.level %q is none of debug, info, warn, error", name)
	}
	return l, nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// metricsServer serves /metrics over HTTP on a loopback address. Whoever can connect
// there reads counts, and never a state or a name.
type metricsServer struct {
	http *http.Server
	l    net.Listener
	log  *slog.Logger
}

func listenMetrics(addr string, svc *service, log *slog.Logger) (*metricsServer, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("metrics.listen: %s is not a loopback address: use 127.0.0.1 or [::1] and a proxy of your own", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		text, err := svc.openMetrics(r.Context())
		if err != nil {
			http.Error(w, "the store cannot be counted: see the daemon's log", http.StatusServiceUnavailable)
			log.Error("metrics were not served", "err", err)
			return
		}
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		if _, err := w.Write([]byte(text)); err != nil {
			log.Debug("a reader of metrics left", "err", err)
		}
	})
	return &metricsServer{
		http: &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10},
		l:    l, log: log,
	}, nil
}

// run serves until ctx ends.
func (m *metricsServer) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		if err := m.http.Close(); err != nil {
			m.log.Debug("closing the metrics listener", "err", err)
		}
	})
	defer stop()
	if err := m.http.Serve(m.l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		m.log.Error("metrics are no longer served", "err", err)
	}
}

package main

import (
	"context"
	"encoding/json"
	"net"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	daemonpkg "github.com/forge-cpd/forge-cpd/daemon"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// serveStub answers on a socket with nothing behind it: "plain" is jsonrpc2 as it comes,
// "wire" is forge-cpd's own server, "daemon" is all of the daemon but its store. "profiled"
// is the daemon with everything, and its profiles go to dir.
func serveStub(mode, sock, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if mode == "profiled" {
		return serveProfiled(ctx, sock, dir)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	defer l.Close()
	if mode == "daemon" {
		l.Close()
		return serveStubbedDaemon(ctx, sock)
	}
	if mode == "wire" {
		s := rpc.NewServer(&stubService{}, rpc.Options{})
		go func() {
			<-ctx.Done()
			s.Shutdown(context.Background())
		}()
		return s.Serve(context.Background(), l)
	}
	go func() {
		<-ctx.Done()
		l.Close()
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return nil // the listener was closed: the end
		}
		jsonrpc2.NewConn(ctx, jsonrpc2.NewPlainObjectStream(c), jsonrpc2.AsyncHandler(jsonrpc2.HandlerWithError(plain)))
	}
}

var stubSequence atomic.Uint64

func stubReceipt() *checkpoint.Receipt {
	return &checkpoint.Receipt{
		CheckpointID: checkpoint.NewID(), Sequence: stubSequence.Add(1), Timestamp: time.Now().UTC(), Checksum: "sha256:" + zeros,
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func plain(_ context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
	if r.Method == "daemon.sync" {
		return struct{}{}, nil
	}
	if r.Method == "session.create" {
		return checkpoint.Session{ID: checkpoint.NewID()}, nil
	}
	var p struct {
		SessionID checkpoint.ID   `json:"session_id"`
		Message   string          `json:"message"`
		State     json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(*r.Params, &p); err != nil {
		return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeInvalidParams, Message: err.Error()}
	}
	return stubReceipt(), nil
}

// serveStubbedDaemon is the daemon with its store stubbed out.
func serveStubbedDaemon(ctx context.Context, sock string) error {
	cfg := config.Default()
	cfg.Storage.Driver = config.DriverMemory
	store, err := storage.OpenMemory(ctx, storage.Options{})
	if err != nil {
		return err
	}
	return daemonpkg.Run(ctx, daemonpkg.Options{
		Config: cfg, Paths: config.Paths{Socket: sock}, Store: &stubStore{store},
	})
}

// stubStore acknowledges a create without looking at it; sessions are kept in memory.
type stubStore struct{ storage.Store }

func (*stubStore) Submit(_ context.Context, c *storage.NewCheckpoint, done func(checkpoint.Receipt, error)) {
	r := stubReceipt()
	r.SessionID = c.SessionID
	go done(*r, nil)
}

// stubService answers the two methods that the benchmark calls.
type stubService struct{ rpc.Service }

func (*stubService) SessionCreate(_ context.Context, p *rpc.SessionCreateParams) (*rpc.SessionCreateResult, error) {
	return &rpc.SessionCreateResult{Session: checkpoint.Session{ID: checkpoint.NewID(), Name: p.Name}}, nil
}

func (*stubService) CheckpointCreate(_ context.Context, p *rpc.CheckpointCreateParams) (*checkpoint.Receipt, error) {
	return stubReceipt(), nil
}

func (*stubService) Sync(context.Context, rpc.NoParams) (*rpc.SyncResult, error) {
	return &rpc.SyncResult{}, nil
}

func (*stubService) Disconnected(rpc.Peer) {}

// Command demo shows what forge-cpd is for, on a real transcript of an agent: it keeps the
// growing conversation as the state of one session, kills the daemon with -9 while creates
// are in flight, goes on, and compares byte for byte what comes back.
//
//	go run ./cmd/forge-cpd/demo bin/forge-cpd
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

//go:embed testdata/claude-code-a.jsonl
var transcript []byte

const (
	every    = 4 // lines of the transcript to a checkpoint
	inFlight = 6 // creates that were sent and not answered
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo PATH-OF-FORGE-CPD")
		os.Exit(2)
	}
	if err := demo(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(binary string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("/tmp", "forge-cpd-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	d := &demonstration{binary: binary, dir: dir, socket: filepath.Join(dir, "run", "s")}
	if err := d.start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.kill()) }()
	if err := d.replay(ctx); err != nil {
		return err
	}
	return d.compare(ctx)
}

type demonstration struct {
	binary, dir, socket string
	daemon              *exec.Cmd
	client              *client.Client
	session             checkpoint.ID
	sent                []*create
	killedWith          int // creates in flight at the kill
}

// create is one checkpoint as it was sent.
type create struct {
	params  rpc.CheckpointCreateParams
	pending *client.Pending
	acked   bool
}

func (d *demonstration) start() error {
	log, err := os.OpenFile(filepath.Join(d.dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.daemon = exec.Command(d.binary, "serve", "--socket", d.socket, "--data-dir", filepath.Join(d.dir, "data"))
	d.daemon.Stdout, d.daemon.Stderr = log, log
	if err := d.daemon.Start(); err != nil {
		return fmt.Errorf("starting %s: %w (run `make build` first)", d.binary, err)
	}
	d.client = &client.Client{Socket: d.socket}
	return d.await()
}

func (d *demonstration) await() error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		info, err := d.client.Info(context.Background())
		if err == nil {
			fmt.Printf("daemon %s is up, pid %d\n", info.Version, info.PID)
			return nil
		}
		if !errors.Is(err, client.ErrNotRunning) || time.Now().After(deadline) {
			log, readErr := os.ReadFile(filepath.Join(d.dir, "daemon.log"))
			return errors.Join(err, readErr, fmt.Errorf("its log: %s", log))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// kill ends the daemon as a crash would.
func (d *demonstration) kill() error {
	if err := d.daemon.Process.Kill(); err != nil {
		return err
	}
	var killed *exec.ExitError
	if err := d.daemon.Wait(); !errors.As(err, &killed) {
		return err
	}
	return d.client.Close()
}

// replay sends the conversation, line by line longer, and crashes the daemon half way.
func (d *demonstration) replay(ctx context.Context) error {
	lines := bytes.Split(bytes.TrimSpace(transcript), []byte("\n"))
	s, err := d.client.CreateSession(ctx, &rpc.SessionCreateParams{Name: "a real conversation", Key: "demo"})
	if err != nil {
		return err
	}
	d.session = s.ID
	fmt.Printf("replaying %d lines of a transcript, a checkpoint every %d\n", len(lines), every)
	state := []byte(`{"transcript":[`)
	crashed := false
	for i, line := range lines {
		if i > 0 {
			state = append(state, ',')
		}
		state = append(state, line...)
		if (i+1)%every != 0 && i+1 != len(lines) {
			continue
		}
		whole := append(bytes.Clone(state), "]}"...)
		if whole, err = rawjson.Compact(nil, whole, 0); err != nil {
			return fmt.Errorf("line %d of the transcript: %w", i+1, err)
		}
		d.send(ctx, fmt.Sprintf("after line %d", i+1), whole)
		switch {
		case !crashed && i > len(lines)/2:
			crashed = true
			err = d.crash(ctx)
		case len(d.sent) >= inFlight:
			err = d.settle(ctx, d.sent[len(d.sent)-inFlight])
		}
		if err != nil {
			return err
		}
	}
	return d.settleAll(ctx)
}

func (d *demonstration) send(ctx context.Context, message string, state []byte) {
	c := &create{params: rpc.CheckpointCreateParams{
		SessionRef: client.ByID(d.session), CheckpointID: checkpoint.NewID(), Message: message, State: state,
	}}
	c.pending = d.client.Send(ctx, "checkpoint.create", c.params)
	d.sent = append(d.sent, c)
}

func (d *demonstration) settle(ctx context.Context, c *create) error {
	if c.acked {
		return nil
	}
	raw, err := c.pending.Wait(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", c.params.Message, err)
	}
	var r checkpoint.Receipt
	if err := json.Unmarshal(raw, &r); err != nil {
		return err
	}
	c.acked = true
	return nil
}

func (d *demonstration) settleAll(ctx context.Context) error {
	for _, c := range d.sent {
		if err := d.settle(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// crash kills the daemon with creates in flight, starts it again, and sends once more
// what was not acknowledged: under the same ids, so that none is kept twice.
func (d *demonstration) crash(ctx context.Context) error {
	if err := d.kill(); err != nil {
		return err
	}
	var again []*create
	for _, c := range d.sent {
		err := d.settle(ctx, c)
		switch {
		case errors.Is(err, client.ErrConnectionLost), errors.Is(err, client.ErrClosed):
			again = append(again, c)
		case err != nil:
			return err
		}
	}
	d.killedWith = len(again)
	fmt.Printf("killed the daemon with -9: %d acknowledged, %d in flight\n", len(d.sent)-len(again), len(again))
	if err := d.start(); err != nil {
		return err
	}
	for _, c := range again {
		c.pending = d.client.Send(ctx, "checkpoint.create", c.params)
	}
	return nil
}

// compare restores three checkpoints, looks for every other, and tells the result.
func (d *demonstration) compare(ctx context.Context) error {
	list := exec.CommandContext(ctx, d.binary, "checkpoint", "list", "demo", "--socket", d.socket, "--no-start")
	list.Stdout, list.Stderr = os.Stdout, os.Stderr
	if err := list.Run(); err != nil {
		return fmt.Errorf("listing: %w", err)
	}
	restored := 0
	for _, n := range []int{0, len(d.sent) / 2, len(d.sent) - 1} {
		c := d.sent[n]
		r, err := d.client.Restore(ctx, &rpc.RestoreParams{SessionRef: client.ByID(d.session), CheckpointID: c.params.CheckpointID})
		if err != nil {
			return fmt.Errorf("restoring %q: %w", c.params.Message, err)
		}
		if !bytes.Equal(r.State, c.params.State) {
			return fmt.Errorf("restoring %q: %d bytes were sent and other %d came back", c.params.Message, len(c.params.State), len(r.State))
		}
		fmt.Printf("restored %q: %d bytes, each as sent\n", c.params.Message, len(r.State))
		restored++
	}
	lost, kept := 0, int64(0)
	for _, c := range d.sent {
		cp, err := d.client.Checkpoint(ctx, c.params.CheckpointID)
		switch {
		case errors.Is(err, checkpoint.ErrNotFound):
			lost++
		case err != nil:
			return err
		case !bytes.Equal(cp.State, c.params.State):
			return fmt.Errorf("%q came back with other bytes", c.params.Message)
		}
		kept += int64(len(c.params.State))
	}
	fmt.Printf("kept %d checkpoints (%d bytes of state), restored %d, lost %d\n", len(d.sent)-lost, kept, restored, lost)
	if lost > 0 {
		return fmt.Errorf("%d checkpoints were acknowledged and are gone", lost)
	}
	return nil
}

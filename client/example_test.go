package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// startDaemon runs a daemon for an example and gives its socket and what ends it. Programs
// need none of this: `forge-cpd` starts the daemon, and a zero Client finds it.
func startDaemon() (socket string, stop func()) {
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		log.Fatal(err)
	}
	bin, socket := filepath.Join(dir, "forge-cpd"), filepath.Join(dir, "d", "s")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/forge-cpd").CombinedOutput(); err != nil {
		log.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(bin, "serve", "--socket", socket, "--data-dir", filepath.Join(dir, "data"))
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			log.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // until it listens
	}
	return socket, func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	socket, stop := startDaemon()
	defer stop()
	ctx := context.Background()

	c := &client.Client{Socket: socket} // leave Socket out: the usual one is found
	defer c.Close()
	s, err := c.CreateSession(ctx, &rpc.SessionCreateParams{Name: "my agent", Key: "run-7"})
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := c.CreateCheckpoint(ctx, &rpc.CheckpointCreateParams{
		SessionRef: client.ByID(s.ID), Message: "before the refactoring", State: json.RawMessage(`{"step": 1.50}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	got, err := c.Restore(ctx, &rpc.RestoreParams{SessionRef: client.ByKey("run-7"), CheckpointID: receipt.CheckpointID})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Sequence, string(got.State))

	_, err = c.Session(ctx, client.ByKey("run-8"))
	fmt.Println(errors.Is(err, checkpoint.ErrNotFound))
	// Output:
	// 1 {"step":1.50}
	// true
}

func ExampleClient_Subscribe() {
	socket, stop := startDaemon()
	defer stop()
	ctx := context.Background()
	c := &client.Client{Socket: socket}
	defer c.Close()

	events, err := c.Subscribe(ctx, rpc.SubscribeParams{Types: []checkpoint.EventType{checkpoint.EventCreated}})
	if err != nil {
		log.Fatal(err)
	}
	defer events.Close()
	s, err := c.CreateSession(ctx, &rpc.SessionCreateParams{Name: "my agent"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.CreateCheckpoint(ctx, &rpc.CheckpointCreateParams{SessionRef: client.ByID(s.ID), Message: "m"}); err != nil {
		log.Fatal(err)
	}
	for event, err := range events.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Type, event.Sequence)
		break
	}
	// Output: created 1
}

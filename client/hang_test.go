package client

import (
	"encoding/json"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/rpc"
)

// A daemon that hangs for longer than RetryFor and is then replaced costs its clients the
// time, and nothing else.
func TestAHangIsNotCountedAsRetrying(t *testing.T) {
	const patience = 300 * time.Millisecond
	var asked atomic.Int32
	f := newFake(t, func(c net.Conn, id, method string, params json.RawMessage) {
		if asked.Add(1) == 1 {
			<-time.After(2 * patience)
			c.Close()
			return
		}
		answer(c, id, `{"message":"done"}`)
	})
	c := &Client{Socket: f.socket, RetryFor: patience}
	defer c.Close()
	if _, err := c.CreateCheckpoint(t.Context(), &rpc.CheckpointCreateParams{SessionRef: ByKey("k"), Message: "m"}); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

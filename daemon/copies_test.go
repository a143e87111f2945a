package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Between the socket and its published file, the bytes of a state are copied into new memory
// three times at most: out of the frames' buffers, and out of the journal when it goes
// through that. overhead is what a checkpoint takes besides, whatever its size.
func TestAStateIsCopiedThreeTimesAtMost(t *testing.T) {
	const copies, overhead = 3, 48 << 10
	d := start(t, directoryOptions(t))
	p := d.dial()
	var s checkpoint.Session
	p.call("session.create", map[string]any{"name": "copies"}, &s)
	for _, size := range []int{8 << 10, 60 << 10, 200 << 10, 1 << 20, 16 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			n := max(4, min(100, 8<<20/size))
			state := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), size-2)...), '"')
			line := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"checkpoint.create","params":{"session_id":"%s","message":"m","state":%s}}`+"\n", s.ID, state)
			sync := []byte(`{"jsonrpc":"2.0","id":2,"method":"daemon.sync"}` + "\n")
			ask := func(b []byte) {
				if _, err := p.c.Write(b); err != nil {
					t.Fatal(err)
				}
				reply, err := p.r.ReadBytes('\n')
				if err != nil || !json.Valid(reply) || bytes.Contains(reply, []byte(`"error"`)) {
					t.Fatalf("%v: %.300s", err, reply)
				}
			}
			ask(line) // buffers that stay are made
			ask(sync)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				ask(line)
			}
			ask(sync)
			runtime.ReadMemStats(&after)
			got := float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
			t.Logf("%.2f bytes allocated for each byte of a state of %d", got/float64(size), size)
			if got > copies*float64(size)+overhead {
				t.Errorf("%.0f bytes are allocated for a state of %d: over %d copies and %d", got, size, copies, overhead)
			}
		})
	}
}

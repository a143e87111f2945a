package rpc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
)

type putter struct{ noop }

func (putter) SessionPutState(context.Context, *PutStateParams) (*PutStateResult, error) {
	return &PutStateResult{}, nil
}

// A connection that has sent requests of all sizes and kinds and is silent now costs its
// goroutines' stacks and little else: no buffer, no frame and no reply stays with it.
func TestAnIdleConnectionHoldsNothing(t *testing.T) {
	if poison {
		t.Skip("the race detector holds memory of its own")
	}
	const conns, most = 300, 20 << 10
	_, path := serve(t, putter{}, func(o *Options) { o.Limits.Connections = conns })
	r := bufio.NewReader(nil)
	one := func(i int) {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		r.Reset(c)
		sizes := []int{1, 3 << 10, 10 << 10, 40 << 10, 200 << 10}
		for k := range sizes {
			pad := strings.Repeat("x", sizes[(i+k)%len(sizes)])
			method, more := "checkpoint.create", `,"message":"m"`
			if i%3 == 1 {
				method, more = "session.put_state", ""
			}
			msg := call(i, method, fmt.Sprintf(`{"session_id":%q,"state":%q%s}`, aSession, pad, more))
			end := "}}"
			if i%7 == 0 {
				msg, end = "["+msg+"]", "}}]"
			}
			if i%2 == 0 {
				msg += "\n"
			} else {
				msg = fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(msg), msg)
			}
			if _, err := io.WriteString(c, msg); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for !strings.HasSuffix(got.String(), end) {
				b, err := r.ReadByte()
				if err != nil {
					t.Fatal(err)
				}
				got.WriteByte(b)
			}
			if _, err := r.Discard(r.Buffered()); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(got.String(), `"error"`) {
				t.Fatal(got.String())
			}
		}
	}
	settled := func() int64 {
		runtime.GC() // twice: what a pool keeps goes with the second
		return int64(memory())
	}
	const first = 20
	for i := range first {
		one(i)
	}
	before := settled()
	for i := range conns - first {
		one(i)
	}
	if each := (settled() - before) / (conns - first); each > most {
		t.Errorf("an idle connection holds %d bytes, more than %d", each, most)
	} else {
		t.Logf("%d bytes each", each)
	}
}

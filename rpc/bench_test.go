package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// noop takes a create and does nothing with it.
type noop struct{ Service }

func (noop) Disconnected(Peer) {}

func (noop) CheckpointCreate(_ context.Context, p *CheckpointCreateParams) (*checkpoint.Receipt, error) {
	return &checkpoint.Receipt{CheckpointID: checkpoint.ID{1}, SessionID: p.SessionID, Sequence: 1, Checksum: "sha256:"}, nil
}

// state is like an agent's: messages with text, names and numbers.
func state(bytes int) string {
	var b strings.Builder
	b.WriteString(`{"turn":17,"messages":[`)
	for i := 0; b.Len() < bytes-260; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":"assistant","id":"msg_%08d","content":[{"type":"text","text":"I looked at the file and \"found\" the bug; the fix is in line %d.\n"}],"usage":{"input_tokens":%d,"cost":0.0%d}}`, i, i*7, i*131, i)
	}
	b.WriteString(`]}`)
	return b.String()
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// pump keeps depth requests in flight and reports the processor time of one put, the
// client's own small part included.
func pump(b *testing.B, path, line string, depth int) {
	c, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	out := []byte(line + "\n")
	b.SetBytes(int64(len(out)))
	b.ResetTimer()
	start := cpu()
	places := make(chan struct{}, depth)
	go func() {
		for range b.N {
			places <- struct{}{}
			if _, err := c.Write(out); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	r := bufio.NewReader(c)
	for range b.N {
		if _, err := r.ReadSlice('\n'); err != nil {
			b.Fatal(err)
		}
		<-places
	}
	b.ReportMetric(float64((cpu()-start).Microseconds())/float64(b.N), "cpu-us/op")
}

// BenchmarkPut compares this package with the jsonrpc2 library as it comes, both with a
// service that does nothing.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 10, 64 << 10, 1 << 20} {
		line := create(7, aSession, "a checkpoint", `,"state":`+state(size))
		b.Run(fmt.Sprintf("ours/%dK", size>>10), func(b *testing.B) {
			_, path := serve(b, noop{}, nil)
			pump(b, path, line, 8)
		})
		b.Run(fmt.Sprintf("asitcomes/%dK", size>>10), func(b *testing.B) {
			l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go asItComes(l)
			pump(b, l.Addr().String(), line, 8)
		})
	}
}

func asItComes(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		handler := jsonrpc2.HandlerWithError(func(ctx context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
			var p CheckpointCreateParams
			if err := json.Unmarshal(*r.Params, &p); err != nil {
				return nil, err
			}
			return noop{}.CheckpointCreate(ctx, &p)
		})
		jsonrpc2.NewConn(context.Background(), jsonrpc2.NewPlainObjectStream(c), jsonrpc2.AsyncHandler(handler))
	}
}

// TestCopiesOfAState holds the wire to what it promises of large states: the frame's buffer
// as it grows, and nothing beside it.
func TestCopiesOfAState(t *testing.T) {
	const size = 8 << 20
	_, path := serve(t, noop{}, nil)
	line := []byte(create(7, aSession, "m", `,"state":`+state(size)) + "\n")
	w := dial(t, path)
	put := func() {
		if _, err := w.Write(line); err != nil {
			t.Error(err)
		}
		w.line()
	}
	put()
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			put()
		}
	})
	if per := float64(r.AllocedBytesPerOp()) / size; per > 3 {
		t.Errorf("%.1f bytes are allocated for each byte of a state", per)
	} else {
		t.Logf("%.2f bytes for each byte", per)
	}
}

package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// latency is the time of honest requests on a connection of their own.
func latency(t *testing.T, path string, n int) time.Duration {
	t.Helper()
	w := dial(t, path)
	times := make([]time.Duration, n)
	for i := range times {
		start := time.Now()
		w.ask(create(i, aSession, "honest", ""))
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[n*99/100]
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func TestHostileClients(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it takes seconds and thousands of descriptors")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	conns := min(5000, int(files.Cur/3)-200) // each costs two sockets and a process descriptor here
	if conns < 100 {
		t.Skip("too few descriptors: raise ulimit -n")
	}
	const pace = 5 * time.Millisecond // what is tried here is holding places and memory, not burning processors
	s, path := serve(t, noop{}, func(o *Options) {
		o.Limits.Connections = conns + 100
		o.Limits.WriteTimeout = 500 * time.Millisecond
	})
	alone := latency(t, path, 200)
	before := memory()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	slow := make([]net.Conn, 0, conns)
	for range conns {
		c, err := net.Dial("unix", path)
		for errors.Is(err, syscall.EAGAIN) { // the queue of those to be accepted is full
			time.Sleep(time.Millisecond)
			c, err = net.Dial("unix", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	wg.Go(func() { // one byte a second each
		for {
			for _, c := range slow {
				c.Write([]byte("{"))
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	})
	wg.Go(func() { // headers of 4 GiB, and bodies that go on and on
		for ; !isClosed(stop); time.Sleep(pace) {
			if c, err := net.Dial("unix", path); err == nil {
				fmt.Fprintf(c, "Content-Length: %d\r\n\r\n", int64(4)<<30)
				for range 10 {
					c.Write(bytes.Repeat([]byte("x"), 64<<10))
				}
				c.Close()
			}
		}
	})
	wg.Go(func() { // resets in mid-frame
		for ; !isClosed(stop); time.Sleep(pace) {
			if c, err := net.Dial("unix", path); err == nil {
				c.Write([]byte(create(1, aSession, "m", "")[:40]))
				c.Close()
			}
		}
	})
	for s.Stats().Connections < conns {
		time.Sleep(time.Millisecond)
	}
	perConn := int(memory()-before) / conns
	beside := latency(t, path, 300)
	t.Logf("p99 alone %v, beside %v; %d bytes a connection", alone, beside, perConn)
	if beside > alone+50*time.Millisecond {
		t.Errorf("p99 alone %v, beside hostile clients %v", alone, beside)
	}
	if perConn > 64<<10 {
		t.Errorf("%d bytes a connection", perConn)
	}
	close(stop)
	wg.Wait()
	for _, c := range slow {
		c.Close()
	}
}

// neverRead has 20 clients ask for all they may, and read nothing. It returns the server, a
// client of its own, and the request for what they asked for.
func neverRead(t *testing.T, stall time.Duration) (*Server, *wire, string) {
	f := newFake()
	s, path := serve(t, f, func(o *Options) {
		o.Limits.InFlightBytes = 192 << 20
		o.Lookup = f
		o.stall = stall
	})
	w := dial(t, path)
	large := made(t, w, "large", `,"state":"`+strings.Repeat("x", 8<<20)+`"`)
	get := call(2, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, large)) + "\n"
	for range 20 {
		c := dial(t, path)
		c.send(strings.Repeat(get, 200))
	}
	return s, w, get
}

func made(t *testing.T, w *wire, message, more string) checkpoint.ID {
	t.Helper()
	var receipt checkpoint.Receipt
	if err := json.Unmarshal(parseReply(t, w.ask(create(1, aSession, message, more))).Result, &receipt); err != nil {
		t.Fatal(err)
	}
	return receipt.CheckpointID
}

// TestSmallRequestsPassThoseThatWait while the budget is full for good.
func TestSmallRequestsPassThoseThatWait(t *testing.T) {
	s, w, _ := neverRead(t, time.Hour)
	for !s.budget.full() && s.budget.tryRead() > 0 { // what is set aside here stays so
		time.Sleep(time.Millisecond)
	}
	for range 100 {
		small := made(t, w, "small", "")
		for _, c := range []struct{ method, params string }{
			{"checkpoint.restore", fmt.Sprintf(`{"session_id":%q,"checkpoint_id":%q}`, aSession, small)},
			{"checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, small)},
			{"checkpoint.latest", fmt.Sprintf(`{"session_id":%q}`, aSession)},
			{"checkpoint.list", `{"limit":2}`},
		} {
			if got := brief(t, w.ask(call(1, c.method, c.params))); got != "1 ok" {
				t.Fatalf("%s: %s", c.method, got)
			}
		}
		if held := s.Stats().InFlightBytes; held > 192<<20 {
			t.Fatalf("%d bytes are held", held)
		}
	}
}

// TestNeverReadingClients fill the budget; an honest client's requests go on, large ones
// once those that do not read are ended.
func TestNeverReadingClients(t *testing.T) {
	s, w, get := neverRead(t, stallTime)
	for range 200 { // they hold what they hold
		if held := s.Stats().InFlightBytes; held > 192<<20 {
			t.Fatalf("%d bytes are held", held)
		}
		made(t, w, "small", "")
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	w.send(get)
	w.line()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the honest client waited %v", took)
	}
}

// TestTheDaemonStaysSmall asks the real daemon for 64 GB and reads none of it.
func TestTheDaemonStaysSmall(t *testing.T) {
	path := daemon(t)
	w := dial(t, path)
	var info Info
	if err := json.Unmarshal(parseReply(t, w.ask(call(1, "daemon.info", "{}"))).Result, &info); err != nil {
		t.Fatal(err)
	}
	const id = "aaaaaaaa-0000-4000-8000-000000000001"
	w.ask(call(1, "session.create", example(`{"name":"n","session_id":"$"}`)))
	w.ask(create(1, aSession, "m", `,"checkpoint_id":"`+id+`","state":`+state(8<<20)))
	half := call(3, "session.put_state", `{"session_id":"`+aSession+`","state":`+state(15<<20)+`}`)
	var wg sync.WaitGroup
	gets := strings.Repeat(call(2, "checkpoint.get", `{"checkpoint_id":"`+id+`"}`)+"\n", 200)
	hostile := make([]*wire, 40)
	for i := range hostile {
		hostile[i] = dial(t, path)
		wg.Go(func() {
			if _, err := io.WriteString(hostile[i], gets); err == nil {
				io.WriteString(hostile[i], half[:len(half)-2]) // the daemon need not take it in
			}
		})
	}
	served := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); served++ {
		w.ask(create(1, aSession, "small", ""))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", info.PID))
	if err != nil {
		t.Skip("the daemon's memory cannot be told here: ", err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(peak)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB at most, %d small requests served meanwhile", kib>>10, served)
	if kib > 256<<10 {
		t.Errorf("the daemon took %d MiB", kib>>10)
	}
	for _, c := range hostile {
		c.Close()
	}
	wg.Wait()
}

// TestLargeFramesShareTheBudget has more bytes on the way than may be in flight.
func TestLargeFramesShareTheBudget(t *testing.T) {
	s, path := serve(t, noop{}, func(o *Options) {
		o.Limits.InFlightBytes = 8 << 20
		o.Limits.FrameBytes = 4 << 20
	})
	line := create(1, aSession, "m", `,"state":"`+strings.Repeat("x", 3<<20)+`"`) + "\n"
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			w := dial(t, path)
			for range 4 {
				if _, err := io.WriteString(w, line); err != nil {
					t.Error(err)
					return
				}
				if got, err := w.r.ReadString('\n'); err != nil || !strings.Contains(got, "result") {
					t.Errorf("got %q, %v", got, err)
					return
				}
				if held := s.Stats().InFlightBytes; held > 10<<20 {
					t.Errorf("%d bytes are held", held)
				}
			}
		})
	}
	wg.Wait()
}

// TestALargeStateDoesNotHoldUpASmallOne on another connection.
func TestALargeStateDoesNotHoldUpASmallOne(t *testing.T) {
	_, path := serve(t, noop{}, nil)
	alone := latency(t, path, 100)
	line := []byte(create(1, aSession, "m", `,"state":`+state(15<<20)) + "\n")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		w := dial(t, path)
		for !isClosed(stop) {
			if _, err := w.Write(line); err != nil {
				t.Error(err)
				return
			}
			w.line()
		}
	})
	beside := latency(t, path, 300)
	close(stop)
	wg.Wait()
	t.Logf("p99 alone %v, beside 15 MiB states %v", alone, beside)
	if beside > alone+50*time.Millisecond {
		t.Errorf("p99 alone %v, beside 15 MiB states %v", alone, beside)
	}
}

// FuzzFrames throws bytes at a server, then asks it something on another connection.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		fmt.Sprintf(info, "1"), "[" + fmt.Sprintf(info, "1") + ",7]", frame(fmt.Sprintf(info, "1")), "Content-Length: 99999999999\r\n\r\n{}",
		"Content-Length: 5\r\nX", create(1, aSession, "m", `,"state":[1]`), `{"jsonrpc":"2.0","id":"forge-cpd-1","result":{"state":1}}`, "\n\n[\n]\n", "C\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	s, path := serve(f, newFake(), func(o *Options) {
		o.Limits.FrameBytes, o.Limits.InFlightPerConnection, o.Limits.FrameTimeout = 64<<10, 4, time.Second
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		throw(t, path, in)
		if held := s.Stats().InFlightBytes; held > 64<<20 {
			t.Fatalf("%d bytes are held", held)
		}
	})
}

func throw(t testing.TB, path string, in []byte) {
	w := dial(t, path)
	defer w.Close()
	go func() {
		w.Write(in)
		w.CloseWrite()
	}()
	out, err := io.ReadAll(w.r)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("%q: %v", in, err)
	}
	if len(out) > 0 && out[0] == '{' {
		for line := range bytes.Lines(out) {
			if !json.Valid(line) {
				t.Fatalf("%q got %q", in, line)
			}
		}
	}
}

// TestManyFuzzedFrames mutates good frames: FORGE_CPD_FUZZ_FRAMES of them, 100,000 by itself.
func TestManyFuzzedFrames(t *testing.T) {
	want := 100_000
	if n, err := strconv.Atoi(os.Getenv("FORGE_CPD_FUZZ_FRAMES")); err == nil {
		want = n
	}
	svc := newFake()
	s, path := serve(t, svc, func(o *Options) { o.Limits.FrameBytes = 16 << 10 })
	good := []string{
		fmt.Sprintf(info, "1"), "[" + fmt.Sprintf(info, `"x"`) + "," + note("daemon.info") + "]", create(1, aSession, "m", `,"state":{"a":[1,2]},"tags":["x"]`),
		call(1, "checkpoint.list", `{"limit":5}`), call(1, "events.subscribe", "{}"),
	}
	random := rand.New(rand.NewPCG(1, 2))
	const bytesUsed = `{}[]",:\x00ntf0123456789.eE+- ` + "\x80\xff\r"
	frames := 0
	for frames < want {
		var b bytes.Buffer
		lsp := random.IntN(2) == 0
		for range 2500 {
			g := []byte(good[random.IntN(len(good))])
			for range random.IntN(4) {
				g[random.IntN(len(g))] = bytesUsed[random.IntN(len(bytesUsed))]
			}
			if cut := random.IntN(40); cut == 0 {
				g = g[:random.IntN(len(g))]
			}
			if lsp {
				b.WriteString(frame(string(g)))
			} else {
				b.Write(append(g, '\n'))
			}
			frames++
		}
		throw(t, path, b.Bytes())
	}
	if got := brief(t, dial(t, path).ask(fmt.Sprintf(info, "1"))); got != "1 ok" {
		t.Errorf("afterwards: %s", got)
	}
	if now := memory(); now > 256<<20 {
		t.Errorf("%d bytes of memory after %d frames", now, frames)
	}
	t.Logf("%d frames, %d errors told", frames, s.Stats().Errors)
}

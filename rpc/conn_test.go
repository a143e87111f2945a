package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if daemonDir != "" {
			os.RemoveAll(daemonDir)
		}
		os.Exit(code)
	}))
}

func call(id any, method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%v,"method":%q,"params":%s}`, id, method, params)
}

func note(method string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q}`, method) }

const aSession = "11111111-1111-4111-8111-111111111111"

func create(id any, session, message, more string) string {
	return call(id, "checkpoint.create", fmt.Sprintf(`{"session_id":%q,"message":%q%s}`, session, message, more))
}

func briefs(t *testing.T, array string) []string {
	t.Helper()
	var replies []json.RawMessage
	if err := json.Unmarshal([]byte(array), &replies); err != nil {
		t.Fatalf("%.200q is no array: %v", array, err)
	}
	out := []string{}
	for _, r := range replies {
		out = append(out, brief(t, string(r)))
	}
	sort.Strings(out)
	return out
}

func TestBatches(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	got := briefs(t, w.ask(`[`+fmt.Sprintf(info, "1")+`, 7 ,`+note("daemon.info")+`,{"jsonrpc":"2.0"},`+fmt.Sprintf(info, `"x"`)+`, [], `+call(2, "no.such", "{}")+`]`))
	want := []string{`"x" ok`, "1 ok", "2 -32601", "null -32600", "null -32600", "null -32600"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// All notifications: nothing, not even an empty array.
	w.send("[" + note("daemon.info") + "," + note("no.such") + "]\n")
	if got := briefs(t, w.ask("[1,2,3]")); len(got) != 3 || got[2] != "null -32600" {
		t.Errorf("got %q", got)
	}
	if got := brief(t, w.ask(`[{"jsonrpc":"2.0","id":1,"method":"daemon.info"},`)); got != "null -32700" {
		t.Errorf("a batch that is bad JSON got %s", got)
	}
}

func TestABatchOf100000(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	got := w.ask("[" + strings.TrimSuffix(strings.Repeat("1,", 100000), ",") + "]")
	if n := strings.Count(got, "-32600"); n != 100000 {
		t.Errorf("%d replies", n)
	}
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, ",%s", fmt.Sprintf(info, strconv.Itoa(i)))
	}
	if got := w.ask("[" + b.String()[1:] + "]"); strings.Count(got, `"result"`) != 20000 {
		t.Errorf("%d results", strings.Count(got, `"result"`))
	}
}

func TestABatchOfLargeReads(t *testing.T) {
	s, path := serve(t, newFake(), func(o *Options) { o.Limits.FrameBytes = 4 << 20 })
	w := dial(t, path)
	id := "44444444-4444-4444-8444-444444444444"
	w.ask(create(1, aSession, "m", `,"checkpoint_id":"`+id+`","state":"`+strings.Repeat("x", 1<<20)+`"`))
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, ",%s", call(i, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, id)))
	}
	for range 3 {
		w.send("[" + b.String()[1:] + "]\n")
	}
	for range 3 {
		line := w.line()
		if good, bad := strings.Count(line, `"result"`), strings.Count(line, "-32005"); good != 3 || bad != 47 || !json.Valid([]byte(line)) {
			t.Errorf("%d results, %d refusals, %d bytes", good, bad, len(line))
		}
	}
	if held := s.Stats().InFlightBytes; held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
}

// TestABatchCutOff ends a connection while its batch waits for a place; what it held is
// given back, which serve's cleanup looks at.
func TestABatchCutOff(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	s, path := serve(t, f, func(o *Options) { o.Limits.InFlightPerConnection = 2 })
	w := dial(t, path)
	w.send("[7," + create(1, aSession, "slow", "") + strings.Repeat(","+fmt.Sprintf(info, "2"), 5000) + "]\n")
	<-f.started
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	time.AfterFunc(50*time.Millisecond, func() { close(f.hold) })
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNotificationsGetNoReply(t *testing.T) {
	f := newFake()
	_, path := serve(t, f, nil)
	w := dial(t, path)
	w.send(strings.Replace(create(0, aSession, "by note", ""), `"id":0,`, "", 1) + "\n" + note("no.such") + "\n")
	if got := brief(t, w.ask(call(1, "checkpoint.latest", fmt.Sprintf(`{"session_id":%q}`, aSession)))); got != "1 ok" {
		t.Errorf("got %s", got)
	}
	if !slices.Equal(f.order, []string{"by note"}) {
		t.Errorf("the notification was not served before the read: %q", f.order)
	}
}

func frame(s string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(s), s) }

func (w *wire) frame() string {
	w.t.Helper()
	head := w.line()
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "Content-Length: ")))
	if err != nil || w.line() != "\r" {
		w.t.Fatalf("bad header %q", head)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(w.r, b); err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestLSPFraming(t *testing.T) {
	_, path := serve(t, newFake(), func(o *Options) { o.Limits.FrameBytes = 1 << 20 })
	w := dial(t, path)
	one := fmt.Sprintf(info, "1")
	for _, in := range []string{
		frame(one),
		"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n" + frame(one),
		strings.Replace(frame(one), "Content-Length: ", "content-length:", 1),
		strings.ReplaceAll(frame(one), "\r\n", "\n"),
		frame(" {\n\"jsonrpc\":\"2.0\",\n\"id\":1,\"method\":\"daemon.info\"}\n"),
	} {
		w.send(in)
		if got := brief(t, w.frame()); got != "1 ok" {
			t.Errorf("%q got %s", in, got)
		}
	}
	w.send(frame("[" + one + "," + one + "]"))
	if got := briefs(t, w.frame()); len(got) != 2 {
		t.Errorf("a batch got %q", got)
	}
	for in, want := range map[string]string{"": "null -32700", "{": "null -32700", "7": "null -32600", "[]": "null -32600"} {
		w.send(frame(in))
		if got := brief(t, w.frame()); got != want {
			t.Errorf("%q got %s, want %s", in, got, want)
		}
	}
	big := create(5, aSession, "big", `,"state":"`+strings.Repeat("x", 700<<10)+`"`)
	w.send(frame(big))
	if got := brief(t, w.frame()); got != "5 ok" {
		t.Errorf("got %s", got)
	}
	w.send(frame(strings.Repeat("x", 3<<20)) + frame(one))
	if got := brief(t, w.frame()); got != "null -32005" {
		t.Errorf("an over-long frame got %s", got)
	}
	if got := brief(t, w.frame()); got != "1 ok" {
		t.Errorf("after it: %s", got)
	}
	w.send("Content-Length: minus\r\n\r\n")
	if got := brief(t, w.frame()); got != "null -32700" {
		t.Errorf("a bad header got %s", got)
	}
	if rest := w.lines(); rest != nil {
		t.Errorf("the connection goes on after a bad header: %q", rest)
	}
}

func TestAnOverLongLineIsPassedOverInParts(t *testing.T) {
	s, path := serve(t, newFake(), func(o *Options) { o.Limits.FrameBytes = 256 << 10 })
	w := dial(t, path)
	for range 200 {
		w.send(strings.Repeat("x", 128<<10))
	}
	if got := brief(t, w.line()); got != "null -32005" { // told before the line ends
		t.Errorf("got %s", got)
	}
	if held := s.Stats().InFlightBytes; held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
	w.send("\n")
	if got := brief(t, w.ask(fmt.Sprintf(info, "1"))); got != "1 ok" {
		t.Errorf("got %s", got)
	}
}

func TestHalfClose(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	_, path := serve(t, f, nil)
	w := dial(t, path)
	w.send(create(1, aSession, "slow", "") + "\n" + fmt.Sprintf(info, "2")) // the last line has no end
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-f.started
	if got := brief(t, w.line()); got != "2 ok" {
		t.Errorf("got %s", got)
	}
	close(f.hold)
	got := w.lines()
	if len(got) != 1 || brief(t, got[0]) != "1 ok" {
		t.Errorf("got %q", got)
	}
	<-f.gone
}

func TestChangesOfOneSessionApplyInOrder(t *testing.T) {
	for _, lookup := range []bool{true, false} {
		f := newFake()
		_, path := serve(t, f, func(o *Options) {
			if lookup {
				o.Lookup = f
			}
		})
		w := dial(t, path)
		const n = 1000
		go func() {
			var b strings.Builder
			b.WriteString(call(`"s"`, "session.create", `{"name":"n","key":"k"}`) + "\n")
			for i := range n {
				fmt.Fprintf(&b, "%s\n", call(i, "checkpoint.create", fmt.Sprintf(`{"key":"k","message":"%d"}`, i)))
			}
			b.WriteString(call(`"l"`, "checkpoint.latest", `{"key":"k"}`) + "\n")
			if _, err := io.WriteString(w, b.String()); err != nil {
				t.Error(err)
			}
		}()
		var last uint64
		for i := range n + 2 {
			r := parseReply(t, w.line())
			if r.Error != nil {
				t.Fatalf("%s: %v", r.ID, r.Error)
			}
			switch {
			case i == 0:
				if string(r.ID) != `"s"` {
					t.Fatalf("first came %s", r.ID)
				}
			case i <= n:
				var receipt checkpoint.Receipt
				if err := json.Unmarshal(r.Result, &receipt); err != nil || string(r.ID) != strconv.Itoa(i-1) || receipt.Sequence <= last {
					t.Fatalf("reply %d is %s with number %d after %d, %v", i, r.ID, receipt.Sequence, last, err)
				}
				last = receipt.Sequence
			default:
				var c checkpoint.Checkpoint
				if err := json.Unmarshal(r.Result, &c); err != nil || c.Message != strconv.Itoa(n-1) {
					t.Fatalf("the read saw %q, %v", c.Message, err)
				}
			}
		}
	}
}

func TestSessionsDoNotWaitForEachOther(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	_, path := serve(t, f, nil)
	w := dial(t, path)
	other := "22222222-2222-4222-8222-222222222222"
	latest := func(id int, session string) string {
		return call(id, "checkpoint.latest", fmt.Sprintf(`{"session_id":%q}`, session))
	}
	w.send(create(1, aSession, "slow", "") + "\n")
	<-f.started
	w.send(latest(2, aSession) + "\n" + create(3, aSession, "next", "") + "\n" + create(4, other, "other", "") + "\n" + latest(5, other) + "\n")
	if got := brief(t, w.line()); got != "4 ok" {
		t.Errorf("got %s, want the other session's create", got)
	}
	if got := brief(t, w.line()); got != "5 ok" {
		t.Errorf("got %s, want the other session's read", got)
	}
	for len(f.snapshot()) < 3 { // the slow one was admitted, so the next one has started
		time.Sleep(time.Millisecond)
	}
	close(f.hold)
	got := []string{brief(t, w.line()), brief(t, w.line()), brief(t, w.line())}
	sort.Strings(got)
	if !slices.Equal(got, []string{"1 ok", "2 ok", "3 ok"}) {
		t.Errorf("got %q", got)
	}
}

func (f *fake) snapshot() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.order)
}

func TestBackPressure(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	_, path := serve(t, f, func(o *Options) { o.Limits.InFlightPerConnection = 4 })
	w := dial(t, path)
	w.send(create(0, aSession, "slow", "") + "\n")
	<-f.started
	const n = 20000
	sent := make(chan error, 1)
	go func() {
		for i := 1; i <= n; i++ {
			if _, err := io.WriteString(w, create(i, "22222222-2222-4222-8222-222222222222", "m", `,"parent_id":"22222222-2222-4222-8222-222222222222"`)+"\n"); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	time.AfterFunc(50*time.Millisecond, func() { close(f.hold) })
	for range n + 1 {
		if b := brief(t, w.line()); !strings.HasSuffix(b, " ok") {
			t.Fatal(b)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestTooManyConnections(t *testing.T) {
	_, path := serve(t, newFake(), func(o *Options) { o.Limits.Connections = 2 })
	a, b := dial(t, path), dial(t, path)
	a.ask(fmt.Sprintf(info, "1"))
	b.ask(fmt.Sprintf(info, "1"))
	got := dial(t, path).lines()
	if len(got) != 1 || brief(t, got[0]) != "null -32008" {
		t.Errorf("got %q", got)
	}
	a.Close()
	for range 1000 {
		c := dial(t, path)
		if _, err := io.WriteString(c, fmt.Sprintf(info, "1")+"\n"); err == nil {
			if line, err := c.r.ReadString('\n'); err == nil && brief(t, line) == "1 ok" {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the place was not given back")
}

func TestDeadlines(t *testing.T) {
	f := newFake()
	_, path := serve(t, f, func(o *Options) {
		o.Limits.FrameTimeout, o.Limits.IdleTimeout, o.Limits.WriteTimeout = 50*time.Millisecond, 150*time.Millisecond, 100*time.Millisecond
	})
	w := dial(t, path)
	w.send(`{"jsonrpc":`)
	if got := w.lines(); len(got) != 1 || brief(t, got[0]) != "null -32600" {
		t.Errorf("a frame that does not end got %q", got)
	}
	w = dial(t, path)
	w.ask(fmt.Sprintf(info, "1"))
	if got := w.lines(); got != nil {
		t.Errorf("an idle connection got %q", got)
	}
	<-f.gone
	<-f.gone
}

func TestAPeerThatNeverReads(t *testing.T) {
	f := newFake()
	s, path := serve(t, f, func(o *Options) { o.Limits.WriteTimeout = 200 * time.Millisecond })
	w := dial(t, path)
	r := parseReply(t, w.ask(create(1, aSession, "m", `,"state":"`+strings.Repeat("x", 8<<20)+`"`)))
	var receipt checkpoint.Receipt
	if err := json.Unmarshal(r.Result, &receipt); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := io.WriteString(w, call(2, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, receipt.CheckpointID))+"\n"); err != nil {
			break
		}
		if held := s.Stats().InFlightBytes; held > 64<<20 {
			t.Fatalf("%d bytes are held for it", held)
		}
	}
	<-f.gone
}

func TestAccess(t *testing.T) {
	own := uint32(os.Geteuid())
	person := creds{groups: []uint32{7, 8}}
	person.Uid, person.Gid = 4321, 9
	for _, c := range []struct {
		a    Access
		want bool
	}{
		{Access{}, false}, {Access{UIDs: []uint32{4321}}, true}, {Access{UIDs: []uint32{1}}, false},
		{Access{GIDs: []uint32{9}}, true}, {Access{GIDs: []uint32{8}}, true}, {Access{GIDs: []uint32{1}}, false},
	} {
		if c.a.allows(person, own) != c.want {
			t.Errorf("%+v lets %+v in: %v", c.a, person, !c.want)
		}
	}
	nobody := creds{}
	nobody.Uid = overflowUID
	if (Access{UIDs: []uint32{overflowUID}}).allows(nobody, overflowUID) {
		t.Error("the overflow uid was let in")
	}
	if !(Access{}).allows(creds{}, 1000) {
		t.Error("root was not let in")
	}
}

// peerFake hands the peer of a request out.
type peerFake struct {
	*fake
	peers chan Peer
}

func (f peerFake) Info(ctx context.Context, p NoParams) (*Info, error) {
	f.peers <- PeerFrom(ctx)
	return f.fake.Info(ctx, p)
}

func TestThePeer(t *testing.T) {
	f := peerFake{newFake(), make(chan Peer, 1)}
	_, path := serve(t, f, func(o *Options) { o.Limits.QueuedNotifications = 4096 })
	w := dial(t, path)
	w.ask(fmt.Sprintf(info, "1"))
	p := <-f.peers
	if p.UID() != uint32(os.Geteuid()) || p.GID() != uint32(os.Getegid()) || p.PID() != os.Getpid() || !p.Alive() {
		t.Errorf("peer %d %d %d alive %v", p.UID(), p.GID(), p.PID(), p.Alive())
	}
	params := map[string]string{"a": strings.Repeat("<&>", 300)}
	for full := 0; full < 20; { // the socket takes some, then the queue is full for good
		if p.Notify("event", params) {
			full = 0
		} else {
			full++
			time.Sleep(time.Millisecond)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.NotifyWait(ctx, "event", params); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("NotifyWait on a full queue: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- p.NotifyWait(t.Context(), "last", params) }()
	for i := 0; ; i++ {
		line := w.line()
		if strings.Contains(line, `"last"`) {
			break
		}
		if !strings.HasPrefix(line, `{"jsonrpc":"2.0","method":"event","params":{"a":"<&><&>`) {
			t.Fatalf("got %s", line)
		}
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	w.Close()
	<-p.Done()
	if p.Notify("event", nil) || p.NotifyWait(t.Context(), "event", nil) == nil || p.Call(t.Context(), "x", nil, nil) == nil {
		t.Error("a connection that has ended takes messages")
	}
}

func TestCallsOfThePeer(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	trigger := call(1, "auto.trigger", fmt.Sprintf(`{"session_id":%q,"cause":"error"}`, aSession))
	for reply, want := range map[string]string{
		`"result":{"state":{"b":1.0, "a":1e400}}`: `{"b":1.0,"a":1e400}`,
		`"result":{}`: ``,
		`"result":7`:  `result: must be an object with a state`,
		`"error":{"code":-32001,"message":"no such thing"}`: `no such thing`,
		`"error":7`:                           `the error in the reply is none`,
		`"result":{"state":"` + "\xff" + `"}`: `the reply is not usable`,
		`"result":{"state":"` + strings.Repeat("x", 17<<20) + `"}`: `the state is 17825794 bytes long, over the limit of 16777216`,
	} {
		w := dial(t, path)
		w.send(trigger + "\n")
		var asked struct {
			ID     json.RawMessage
			Method string
			Params CaptureRequest
		}
		if err := json.Unmarshal([]byte(w.line()), &asked); err != nil || asked.Method != "state.capture" || asked.Params.Cause != checkpoint.CauseError {
			t.Fatalf("asked %+v, %v", asked, err)
		}
		w.send(`{"jsonrpc":"2.0","id":"never asked","result":1}` + "\n")
		r := parseReply(t, w.ask(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,%s}`, asked.ID, reply)))
		var got AutoTriggerResult
		if err := json.Unmarshal(r.Result, &got); err != nil || got.Skipped != want {
			t.Errorf("%.80s: got %.300q, %v, want %q", reply, got.Skipped, err, want)
		}
	}
	w := dial(t, path)
	w.send(trigger + "\n")
	w.line()
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := w.lines(); len(got) != 1 || !strings.Contains(got[0], "closed") {
		t.Errorf("a peer that sends no more: %q", got)
	}
}

func TestTheReplyComesBeforeWhatFollowsIt(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	for range 100 {
		if got := brief(t, w.ask(call(1, "events.subscribe", "{}"))); got != "1 ok" {
			t.Fatalf("first came %s", got)
		}
		if !strings.Contains(w.line(), `"method":"event"`) {
			t.Fatal("then no event")
		}
	}
	w.send("[" + call(1, "events.subscribe", "{}") + "]\n")
	if first, second := w.line(), w.line(); first[0] != '[' || !strings.Contains(second, `"method":"event"`) {
		t.Errorf("got %s and %s", first, second)
	}
}

func TestResultsAreWrittenAsTheyAre(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	state := `{"z":1.0,"a":1e400,"a":[123456789012345678901234567890,"\u0041<&>\/\ud800"]}`
	r := parseReply(t, w.ask(create(1, aSession, "m", `,"state":`+strings.ReplaceAll(state, ",", " , "))))
	var receipt checkpoint.Receipt
	if err := json.Unmarshal(r.Result, &receipt); err != nil {
		t.Fatal(err)
	}
	get := w.ask(call(2, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, receipt.CheckpointID)))
	tail := `,"checksum":"sha256:` + strings.Repeat("0", 64) + `","annotations":[]}}`
	if !strings.Contains(get, `"state":`+state+`,"context"`) || !strings.HasSuffix(get, tail) {
		t.Errorf("get: %s", get)
	}
	restore := w.ask(call(2, "checkpoint.restore", fmt.Sprintf(`{"session_id":%q,"checkpoint_id":%q}`, aSession, receipt.CheckpointID)))
	if !strings.HasSuffix(restore, tail[:len(tail)-1]+`,"state":`+state+"}}") || strings.Count(restore, `"state":`) != 1 || !json.Valid([]byte(restore)) {
		t.Errorf("restore: %s", restore)
	}
	list := w.ask(call(2, "checkpoint.list", "{}"))
	if want := `{"jsonrpc":"2.0","id":2,"result":{"checkpoints":[{"a":"<&>"},{}],"next_cursor":"n"}}`; list != want {
		t.Errorf("list: %s", list)
	}
	none := w.ask(call(2, "checkpoint.latest", `{"session_id":"33333333-3333-4333-8333-333333333333"}`))
	if none != `{"jsonrpc":"2.0","id":2,"result":null}` {
		t.Errorf("latest: %s", none)
	}
}

func TestRestoreWithTheStateAnywhere(t *testing.T) {
	for raw, want := range map[string]string{
		`{"state":1}`:                       `{"checkpoint":{"checksum":"c","annotations":[]},"state":1}`,
		`{"state":[1],"a":2}`:               `{"checkpoint":{"a":2,"checksum":"c","annotations":[]},"state":[1]}`,
		`{"a":"\"state\":[1]","state":[1]}`: `{"checkpoint":{"a":"\"state\":[1]","checksum":"c","annotations":[]},"state":[1]}`,
	} {
		s := &StoredCheckpoint{Raw: []byte(raw), Checksum: "c"}
		for _, member := range []string{"[1]", "1"} {
			if strings.Contains(raw, `"state":`+member) {
				s.State = []byte(member) // a copy, not a part of Raw
				break
			}
		}
		pieces, err := renderRestore(s)
		got := ""
		for _, p := range pieces {
			got += string(p)
		}
		if err != nil || got != want {
			t.Errorf("%s became %s, %v; want %s", raw, got, err, want)
		}
	}
}

func TestShutdownAnswersWhatWasReceived(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	s, path := serve(t, f, nil)
	w, idle := dial(t, path), dial(t, path)
	idle.ask(fmt.Sprintf(info, "1"))
	w.send(create(1, aSession, "slow", "") + "\n")
	<-f.started
	w.send(create(2, aSession, "sent before", "") + "\n" + `{"half`)
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	if got := idle.lines(); got != nil {
		t.Errorf("the idle connection got %q", got)
	}
	close(f.hold)
	got := w.lines()
	if len(got) != 2 || brief(t, got[0]) != "1 ok" || brief(t, got[1]) != "2 ok" {
		t.Errorf("got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("unix", path); err == nil { // the listener is open, nobody accepts
		c.Close()
	}
}

func TestShutdownHasABound(t *testing.T) {
	f := newFake()
	f.hold, f.started = make(chan struct{}), make(chan string, 1)
	s, path := serve(t, f, nil)
	w := dial(t, path)
	w.send(create(1, aSession, "slow", "") + "\n")
	<-f.started
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	time.AfterFunc(300*time.Millisecond, func() { close(f.hold) })
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

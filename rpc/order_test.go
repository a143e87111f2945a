package rpc

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

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

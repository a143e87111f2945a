package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// sender writes requests in one framing and reads the replies to them.
type sender struct {
	p   *peer
	lsp bool
	lot *rand.Rand
}

func (s *sender) frame(msg string) string {
	space := []string{"", " ", "\r\n", "\t \n", strings.Repeat(" ", 900)}[s.lot.IntN(5)]
	if s.lsp {
		msg = space + msg + space
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(msg), msg)
	}
	return space + msg + []string{"\n", "\r\n", " \r\n"}[s.lot.IntN(3)]
}

func (s *sender) next() ([]byte, error) {
	if !s.lsp {
		return s.p.r.ReadBytes('\n')
	}
	length := 0
	for {
		line, err := s.p.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line = strings.TrimSpace(line); line == "" {
			break
		}
		if length, err = strconv.Atoi(strings.TrimPrefix(line, "Content-Length: ")); err != nil {
			return nil, err
		}
	}
	b := make([]byte, length)
	_, err := io.ReadFull(s.p.r, b)
	return b, err
}

// Creates of all sizes, one by one and pipelined on several connections in both framings, alone and in
// batches, as requests and as notifications: each state, metadata and message that is kept
// is byte for byte what was sent. With -race a buffer that is used again too early is spoilt.
func TestPipelinedCreatesKeepTheirBytes(t *testing.T) {
	o := directoryOptions(t)
	d := start(t, o)
	const conns, perConn = 8, 100
	type sent struct{ state, metadata, message string }
	var mu sync.Mutex
	all := map[checkpoint.ID]sent{}
	var wg sync.WaitGroup
	for i := range conns {
		s := &sender{p: d.dial(), lsp: i%2 == 1, lot: rand.New(rand.NewPCG(uint64(i), 7))}
		sessions := []checkpoint.ID{checkpoint.NewID(), checkpoint.NewID()}
		setup := d.dial()
		for _, id := range sessions {
			setup.session(obj{"session_id": id})
		}
		type frame struct {
			text    string
			replies int
		}
		var frames []frame
		replies := 0
		request := func(k int) string {
			size := []int{1, 100, 3000, 4090, 15000, 16300, 17000, 60000, 65500, 66000, 130000, 300000}[s.lot.IntN(12)]
			size = max(1, size-s.lot.IntN(40))
			id := checkpoint.NewID()
			fill := string(rune('a' + s.lot.IntN(26)))
			c := sent{
				state:    `{"c":"` + fmt.Sprint(i, "-", k) + `","s":"` + strings.Repeat(fill, size) + `"}`,
				metadata: `{"m":"` + strings.Repeat(fill, s.lot.IntN(200)) + `"}`, message: fmt.Sprint(fill, k),
			}
			mu.Lock()
			all[id] = c
			mu.Unlock()
			name := fmt.Sprintf(`"id":"%d",`, k)
			if k%11 == 10 {
				name = ""
			} else {
				replies++
			}
			return fmt.Sprintf(`{"jsonrpc":"2.0",%s"method":"checkpoint.create","params":{"session_id":%q,"checkpoint_id":%q,"message":%q,"tags":[%q],"metadata":%s,"state":%s}}`,
				name, sessions[k%2], id, c.message, c.message, c.metadata, c.state)
		}
		for k := 0; k < perConn; k++ {
			if s.lot.IntN(6) > 0 {
				before := replies
				frames = append(frames, frame{s.frame(request(k)), replies - before})
				continue
			}
			var list []string
			before := replies
			for range 1 + s.lot.IntN(5) {
				list = append(list, request(k))
				k++
			}
			k--
			frames = append(frames, frame{s.frame("[" + strings.Join(list, " , ") + "]"), replies - before})
		}
		wg.Go(func() {
			var written sync.WaitGroup
			defer written.Wait()
			answered := make(chan int, 2*perConn)
			defer close(answered)
			written.Go(func() {
				w, oneByOne := bufio.NewWriterSize(s.p.c, 1+s.lot.IntN(100_000)), i%4 > 1
				for _, f := range frames {
					_, err := w.WriteString(f.text)
					if oneByOne && err == nil {
						err = w.Flush()
					}
					if err != nil {
						t.Errorf("sending: %v", err)
						break
					}
					for got := 0; oneByOne && got < f.replies; {
						n, ok := <-answered
						if got += n; !ok {
							return
						}
					}
				}
				if err := w.Flush(); err != nil {
					t.Errorf("sending: %v", err)
				}
				if err := s.p.c.CloseWrite(); err != nil {
					t.Errorf("sending: %v", err)
				}
			})
			got := 0
			for {
				b, err := s.next()
				if err == io.EOF && got == replies {
					return
				}
				if err != nil {
					t.Errorf("%d replies of %d: %v", got, replies, err)
					return
				}
				if bytes.Contains(b, []byte(`"error"`)) {
					t.Errorf("refused: %.300s", b)
				}
				n := bytes.Count(b, []byte(`"checksum"`))
				answered <- n
				got += n
			}
		})
	}
	wg.Wait()
	look := func() {
		t.Helper()
		p := d.dial()
		for id, want := range all {
			var got struct {
				State, Metadata json.RawMessage
				Message         string
				Tags            []string
			}
			p.call("checkpoint.get", obj{"checkpoint_id": id}, &got)
			if string(got.State) != want.state || string(got.Metadata) != want.metadata || got.Message != want.message || got.Tags[0] != want.message {
				t.Fatalf("%s: %.200s instead of %.200s", id, got.State, want.state)
			}
		}
		var page struct {
			Checkpoints []struct {
				ID       checkpoint.ID `json:"id"`
				Metadata json.RawMessage
				Message  string
			}
			Next string `json:"next_cursor"`
		}
		for n := 0; ; {
			params := obj{"limit": 500}
			if page.Next != "" {
				params["cursor"] = page.Next
			}
			page.Next, page.Checkpoints = "", nil
			p.call("checkpoint.list", params, &page)
			for _, c := range page.Checkpoints {
				if want := all[c.ID]; string(c.Metadata) != want.metadata || c.Message != want.message {
					t.Fatalf("the summary of %s: %s %q instead of %s", c.ID, c.Metadata, c.Message, want.metadata)
				}
			}
			if n += len(page.Checkpoints); page.Next == "" {
				if n != len(all) {
					t.Fatalf("%d of %d are listed", n, len(all))
				}
				break
			}
		}
	}
	look() // from the journal, most of them
	d.dial().call("daemon.sync", obj{}, nil)
	look()
	d.end()
	d = start(t, o)
	look()
}

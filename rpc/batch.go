package rpc

import (
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// batch gathers the replies to one array.
type batch struct {
	mu      sync.Mutex
	open    int // requests without reply, and 1 while elements are still to come
	replies [][]byte
	bytes   int // of the replies; they count as bytes in flight
	after   []func()
	done    chan struct{} // closed when the array is on its way
}

func (b *batch) add() {
	b.mu.Lock()
	b.open++
	b.mu.Unlock()
}

// full says that a batch has no room for another large reply.
func (b *batch) full(limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes > limit
}

func (c *conn) addAfter(b *batch, after []func()) {
	b.mu.Lock()
	b.after = append(b.after, after...)
	b.mu.Unlock()
}

// batchDone takes one reply (nothing for a notification) and sends the array after the last.
func (c *conn) batchDone(b *batch, reply ...[]byte) {
	n := 0
	for _, p := range reply {
		n += len(p)
	}
	b.mu.Lock()
	if n > 0 {
		if len(b.replies) > 0 {
			b.replies = append(b.replies, []byte(","))
		}
		if b.bytes+n > c.limits.FrameBytes && n > smallFrame {
			reply = [][]byte{tooMuch(reply[0])}
			n = len(reply[0])
		}
		b.bytes += n
		b.replies = append(b.replies, reply...)
		c.srv.budget.reply(int64(n))
	}
	b.open--
	over := b.open == 0
	b.mu.Unlock()
	if !over {
		return
	}
	if len(b.replies) > 0 {
		err := c.send(join(append(append([][]byte{[]byte("[")}, b.replies...), []byte("]"))), nil)
		if err != nil {
			c.drop(err)
			b.after = nil
		}
	}
	c.srv.budget.reply(-int64(b.bytes))
	run(b.after)
	b.replies, b.after = nil, nil // the reader keeps the batch until its next one
	close(b.done)
}

var errBatchFull = &checkpoint.Error{Kind: checkpoint.KindTooLarge, Message: "the batch's replies are over the limit of a frame; ask for this by itself"}

// tooMuch replaces a reply that makes a batch's array too large.
func tooMuch(head []byte) []byte {
	const before, behind = `{"jsonrpc":"2.0","id":`, `,"result":`
	if len(head) < len(before)+len(behind) {
		return errorReply(nil, ToWire(checkpoint.ErrTooLarge))
	}
	id := head[len(before) : len(head)-len(behind)]
	return errorReply(id, ToWire(errBatchFull))
}

package rpc

import (
	"slices"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// sequencer starts one connection's requests in the order that the wire promises: changes
// of one session one after the other, a read after all changes sent before it.
type sequencer struct {
	mu    sync.Mutex
	lanes map[checkpoint.ID]*lane
	wall  *op   // the last barrier
	ops   []*op // changes that are not done, in the order sent
}

type lane struct{ last *op }

// op is one request's place. A change has been admitted when the next change of its
// session may start, and is done when it has been answered.
type op struct {
	order   order
	session checkpoint.ID
	waits   int // for how many events of others
	start   func()
	begun   bool

	admitted, done, sent    bool
	onAdmit, onDone, onSent []*op
	prev                    *op // the change before it in its lane, until that one's reply is out
	send                    func()
}

// add gives a request its place and starts it when its turn has come. Only the connection's
// reader calls it.
func (q *sequencer) add(o *op) {
	if o.order == free {
		o.start()
		return
	}
	q.mu.Lock()
	if q.lanes == nil {
		q.lanes = map[checkpoint.ID]*lane{}
	}
	switch {
	case o.order == read && !o.session.IsZero():
		for _, c := range q.ops {
			if c.order == barrier || c.session == o.session {
				o.afterDone(c)
			}
		}
	case o.order == read || o.order == barrier:
		for _, c := range q.ops {
			o.afterDone(c)
		}
	default:
		if q.wall != nil && !q.wall.admitted {
			o.afterAdmit(q.wall)
		}
		if l := q.lanes[o.session]; l != nil {
			o.afterAdmit(l.last)
			if !l.last.sent {
				o.prev = l.last
				l.last.onSent = append(l.last.onSent, o)
			}
		}
	}
	if o.order == barrier {
		q.wall = o
		q.ops = append(q.ops, o)
	} else if o.order == change {
		q.lanes[o.session] = &lane{last: o}
		q.ops = append(q.ops, o)
	}
	ready := o.waits == 0
	o.begun = ready
	q.mu.Unlock()
	if ready {
		o.start()
	}
}

func (o *op) afterAdmit(c *op) {
	if !c.admitted {
		o.waits++
		c.onAdmit = append(c.onAdmit, o)
	}
}

func (o *op) afterDone(c *op) {
	if !c.done {
		o.waits++
		c.onDone = append(c.onDone, o)
	}
}

// admit lets the next change of the session start.
func (q *sequencer) admit(o *op) {
	if o.order == free || o.order == read {
		return
	}
	q.mu.Lock()
	ready := q.admitLocked(o)
	q.mu.Unlock()
	for _, r := range ready {
		r.start()
	}
}

func (q *sequencer) admitLocked(o *op) []*op {
	if o.admitted {
		return nil
	}
	o.admitted = true
	waiting := o.onAdmit
	o.onAdmit = nil
	return countDown(waiting)
}

func countDown(waiting []*op) []*op {
	var ready []*op
	for _, w := range waiting {
		if w.waits--; w.waits == 0 && !w.begun {
			w.begun = true
			ready = append(ready, w)
		}
	}
	return ready
}

// finish marks a request as done and has its reply sent, after those of the changes of the
// same session that were sent before it.
func (q *sequencer) finish(o *op, send func()) {
	if o.order == free || o.order == read {
		send()
		return
	}
	q.mu.Lock()
	ready := q.admitLocked(o)
	o.done = true
	waiting := o.onDone
	o.onDone = nil
	ready = append(ready, countDown(waiting)...)
	if i := slices.Index(q.ops, o); i >= 0 {
		q.ops = slices.Delete(q.ops, i, i+1) // and nothing of it stays behind the end: it holds its frame
	}
	if q.wall == o {
		q.wall = nil
	}
	o.send = send
	var out []func()
	for turn := []*op{o}; len(turn) > 0; turn = turn[1:] {
		o := turn[0]
		if o.prev != nil || o.send == nil || o.sent {
			continue
		}
		o.sent = true
		out = append(out, o.send)
		for _, next := range o.onSent {
			next.prev = nil
			turn = append(turn, next)
		}
		o.onSent = nil
		if l := q.lanes[o.session]; l != nil && l.last == o {
			delete(q.lanes, o.session)
		}
	}
	// Under the lock, so that two changes' replies keep their order; send only queues.
	for _, f := range out {
		f()
	}
	q.mu.Unlock()
	for _, r := range ready {
		r.start()
	}
}

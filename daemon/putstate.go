package daemon

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// States put by agents wait here for their checkpoint. Small ones wait in memory, up to
// pendingMemory in all; the others in files, so that 10,000 agents with large states cost
// disk and not memory.
const (
	pendingSmall  = 64 << 10
	pendingMemory = 32 << 20
	spillPrefix   = "put-state-"
)

// pendingState is what session.put_state left for the next checkpoint.
type pendingState struct {
	revision uint64
	present  bool
	state    []byte // nil: in the file
	file     string
	last     checkpoint.ID // the checkpoint that took the state before this one, if any
}

// pendingStates holds them by session. Its files are this process's own and are removed
// with their state; those a crash left go when the next daemon starts.
type pendingStates struct {
	dir string // "": everything stays in memory (memory driver)

	mu    sync.Mutex // guards what follows; never held while reading or writing a file
	by    map[checkpoint.ID]*pendingState
	bytes int64 // in memory
}

func newPendingStates(dir string) (*pendingStates, error) {
	p := &pendingStates{dir: dir, by: map[checkpoint.ID]*pendingState{}}
	if dir == "" {
		return p, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), spillPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	return p, nil
}

// put replaces the session's state and returns its revision.
func (p *pendingStates) put(id checkpoint.ID, state []byte) (uint64, error) {
	inMemory := p.dir == "" || len(state) <= pendingSmall && p.reserve(int64(len(state)))
	file := ""
	if inMemory {
		state = bytes.Clone(state) // of a message, whose buffer may be larger, or is used again
	} else {
		f, err := os.CreateTemp(p.dir, spillPrefix+"*")
		if err != nil {
			return 0, checkpoint.Errorf(checkpoint.KindStorage, "keeping the state aside: %w", err)
		}
		_, err = f.Write(state)
		if err = errors.Join(err, f.Close()); err != nil {
			return 0, checkpoint.Errorf(checkpoint.KindStorage, "keeping the state aside: %w", errors.Join(err, os.Remove(f.Name())))
		}
		file, state = f.Name(), nil
	}
	p.mu.Lock()
	e := p.by[id]
	if e == nil {
		e = &pendingState{}
		p.by[id] = e
	}
	old := p.clear(e)
	e.revision++
	e.present, e.state, e.file = true, state, file
	rev := e.revision
	p.mu.Unlock()
	return rev, remove(old)
}

// reserve takes n bytes of the memory that small states may use.
func (p *pendingStates) reserve(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+n > pendingMemory {
		return false
	}
	p.bytes += n
	return true
}

// clear empties e and returns the file that is now nobody's. p.mu is held.
func (p *pendingStates) clear(e *pendingState) string {
	if p.dir != "" {
		p.bytes -= int64(len(e.state))
	}
	file := e.file
	e.present, e.state, e.file = false, nil, ""
	return file
}

func remove(file string) error {
	if file == "" {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return checkpoint.Errorf(checkpoint.KindStorage, "removing a state kept aside: %w", err)
	}
	return nil
}

// peek returns the waiting state and its revision, or false.
func (p *pendingStates) peek(id checkpoint.ID) ([]byte, uint64, bool, error) {
	for {
		p.mu.Lock()
		e := p.by[id]
		if e == nil || !e.present {
			p.mu.Unlock()
			return nil, 0, false, nil
		}
		state, file, rev := e.state, e.file, e.revision
		p.mu.Unlock()
		if file == "" {
			return state, rev, true, nil
		}
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && p.revision(id) != rev {
			continue // replaced between the two looks
		}
		if err != nil {
			return nil, 0, false, checkpoint.Errorf(checkpoint.KindStorage, "reading a state kept aside: %w", err)
		}
		return b, rev, true, nil
	}
}

// revision is that of the waiting state, 0 for none.
func (p *pendingStates) revision(id checkpoint.ID) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.by[id]; e != nil && e.present {
		return e.revision
	}
	return 0
}

// take is peek that leaves nothing behind: the state belongs to the checkpoint about to
// be made. giveBack undoes it when that fails.
func (p *pendingStates) take(id checkpoint.ID) ([]byte, uint64, bool, error) {
	state, rev, ok, err := p.peek(id)
	if err != nil || !ok {
		return nil, 0, false, err
	}
	return state, rev, true, p.drop(id, rev)
}

// drop forgets the state if it is still the one of that revision.
func (p *pendingStates) drop(id checkpoint.ID, rev uint64) error {
	p.mu.Lock()
	file := ""
	if e := p.by[id]; e != nil && e.present && e.revision == rev {
		file = p.clear(e)
	}
	p.mu.Unlock()
	return remove(file)
}

// giveBack puts a taken state back unless a newer one came.
func (p *pendingStates) giveBack(id checkpoint.ID, state []byte, rev uint64) error {
	p.mu.Lock()
	e := p.by[id]
	newer := e == nil || e.present || e.revision != rev
	p.mu.Unlock()
	if newer {
		return nil
	}
	_, err := p.put(id, state)
	return err
}

// taken remembers which checkpoint holds the newest state of a session that puts its
// state: a trigger that fires with nothing new takes that state again, and not nothing.
func (p *pendingStates) taken(id, by checkpoint.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.by[id]; e != nil {
		e.last = by
	}
}

// lastTaken is the checkpoint that taken told of; zero for none.
func (p *pendingStates) lastTaken(id checkpoint.ID) checkpoint.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.by[id]; e != nil {
		return e.last
	}
	return checkpoint.ID{}
}

// forget drops all of a deleted session.
func (p *pendingStates) forget(id checkpoint.ID) error {
	err := p.drop(id, p.revision(id))
	p.mu.Lock()
	delete(p.by, id)
	p.mu.Unlock()
	return err
}

// waiting lists the sessions that have a state nobody took.
func (p *pendingStates) waiting() []checkpoint.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []checkpoint.ID
	for id, e := range p.by {
		if e.present {
			ids = append(ids, id)
		}
	}
	return ids
}

// close removes the files.
func (p *pendingStates) close() error {
	var errs []error
	for _, id := range p.waiting() {
		errs = append(errs, p.drop(id, p.revision(id)))
	}
	return errors.Join(errs...)
}

// SessionPutState keeps a state for the session's next checkpoint.
func (s *service) SessionPutState(ctx context.Context, p *rpc.PutStateParams) (*rpc.PutStateResult, error) {
	sess, err := s.session(ctx, p.SessionRef)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, sess); err != nil {
		return nil, err
	}
	if err := s.checkState("state", p.State); err != nil {
		return nil, err
	}
	rev, err := s.pending.put(sess.ID, p.State)
	if err != nil {
		return nil, err
	}
	return &rpc.PutStateResult{Revision: rev}, nil
}

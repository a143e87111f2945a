package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

// ask and answer are one call of the history; ids are those of one session.
type ask struct {
	session int
	op      string // create, expect (a create with an expected head), delete, latest, head, restore
	id      checkpoint.ID
	expect  checkpoint.ID
}

type answer struct {
	ok       bool
	id       checkpoint.ID // latest, head; of a conflict: the head that it tells
	sequence uint64
	count    int
}

// model is a session as one client alone would see it.
type model struct {
	list []checkpoint.ID
	head checkpoint.ID
	last uint64
}

func (m model) step(in ask, out answer) (bool, model) {
	has := slices.Contains(m.list, in.id)
	switch in.op {
	case "create", "expect":
		if in.op == "expect" && in.expect != m.head {
			return !out.ok && out.id == m.head, m
		}
		next := model{append(slices.Clip(m.list), in.id), in.id, out.sequence}
		return out.ok && out.sequence > m.last, next
	case "delete":
		if !has || !out.ok {
			return has == out.ok, m
		}
		next := model{slices.DeleteFunc(slices.Clone(m.list), func(id checkpoint.ID) bool { return id == in.id }), m.head, m.last}
		if m.head == in.id {
			next.head = next.newest()
		}
		return true, next
	case "restore":
		if !has || !out.ok {
			return has == out.ok, m
		}
		return true, model{m.list, in.id, m.last}
	case "latest":
		return out.id == m.newest(), m
	case "head":
		return out.id == m.head && out.count == len(m.list), m
	}
	panic("unknown call " + in.op)
}

func (m model) newest() checkpoint.ID {
	if len(m.list) == 0 {
		return checkpoint.ID{}
	}
	return m.list[len(m.list)-1]
}

var sessionModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[int][]porcupine.Operation{}
		for _, o := range history {
			s := o.Input.(ask).session
			parts[s] = append(parts[s], o)
		}
		var list [][]porcupine.Operation
		for _, p := range parts {
			list = append(list, p)
		}
		return list
	},
	Init: func() any { return model{} },
	Step: func(state, in, out any) (bool, any) {
		return state.(model).step(in.(ask), out.(answer))
	},
	Equal: func(a, b any) bool {
		x, y := a.(model), b.(model)
		return x.head == y.head && x.last == y.last && slices.Equal(x.list, y.list)
	},
}

// call makes a random call and notes what came of it.
func call(s storage.Store, ids []checkpoint.ID, r *rand.Rand, known *sync.Map) (ask, answer, error) {
	ctx := context.Background()
	session := r.IntN(len(ids))
	in := ask{session: session, id: checkpoint.NewID()}
	some := func() checkpoint.ID {
		if v, ok := known.Load(session); ok {
			return v.(checkpoint.ID)
		}
		return checkpoint.NewID()
	}
	switch n := r.IntN(10); {
	case n < 4:
		in.op = "create"
		c := &storage.NewCheckpoint{ID: in.id, SessionID: ids[session], Trigger: checkpoint.Manual, State: json.RawMessage(`{}`)}
		if n < 2 {
			in.op, in.expect = "expect", some()
			c.ExpectedHead = &in.expect
		}
		got, err := storage.Create(ctx, s, c)
		if errors.Is(err, checkpoint.ErrConflict) {
			var e *checkpoint.Error
			errors.As(err, &e)
			var head checkpoint.ID
			if text, _ := e.Data["head_id"].(string); text != "" {
				head, err = checkpoint.ParseID(text)
			} else {
				err = nil
			}
			return in, answer{id: head}, err
		}
		if err == nil {
			known.Store(session, in.id)
		}
		return in, answer{ok: err == nil, sequence: got.Sequence}, err
	case n < 5:
		in.op, in.id = "delete", some()
		err := s.Delete(ctx, in.id)
		return in, answer{ok: err == nil}, unless(err, checkpoint.ErrNotFound)
	case n < 6:
		in.op, in.id = "restore", some()
		_, err := s.Restore(ctx, ids[session], in.id, true)
		return in, answer{ok: err == nil}, unless(err, checkpoint.ErrNotFound)
	case n < 8:
		in.op = "latest"
		st, err := s.Latest(ctx, ids[session])
		if st == nil {
			return in, answer{}, err
		}
		return in, answer{id: st.Summary.ID}, err
	default:
		in.op = "head"
		v, err := s.Session(ctx, storage.Ref{ID: ids[session]})
		return in, answer{id: v.HeadID, count: v.CheckpointCount}, err
	}
}

func unless(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// history lets 64 clients make random calls at once.
func history(t *testing.T, s storage.Store, calls int) []porcupine.Operation {
	t.Helper()
	var ids []checkpoint.ID
	for i := range 16 {
		v, _, err := s.CreateSession(t.Context(), storage.NewSession{Name: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
	}
	var known sync.Map
	var mu sync.Mutex
	var all []porcupine.Operation
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 11))
			for range calls {
				at := time.Since(begin)
				in, out, err := call(s, ids, r, &known)
				end := time.Since(begin)
				if err != nil {
					t.Errorf("%+v: %v", in, err)
					return
				}
				mu.Lock()
				all = append(all, porcupine.Operation{ClientId: c, Input: in, Output: out, Call: int64(at), Return: int64(end)})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

func linearizable(t *testing.T, calls int, wrap func(storage.Store) storage.Store) porcupine.CheckResult {
	t.Helper()
	s, err := storage.Open(t.Context(), small(vfs.NewMem()))
	if err != nil {
		t.Fatal(err)
	}
	all := history(t, wrap(s), calls)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	result := porcupine.CheckOperationsTimeout(sessionModel, all, 2*time.Minute)
	t.Logf("%d calls of 64 clients: %s", len(all), result)
	return result
}

// make test-fault runs it with the race detector, too.
func TestFaultLinearizable(t *testing.T) {
	calls := 40
	if full(t) {
		calls = 300
	}
	if r := linearizable(t, calls, func(s storage.Store) storage.Store { return s }); r != porcupine.Ok {
		t.Fatal(r)
	}
}

// late answers Latest with what it was the time before.
type late struct {
	storage.Store
	mu  sync.Mutex
	was map[checkpoint.ID]*storage.Stored
}

func (l *late) Latest(ctx context.Context, session checkpoint.ID) (*storage.Stored, error) {
	st, err := l.Store.Latest(ctx, session)
	l.mu.Lock()
	defer l.mu.Unlock()
	was, ok := l.was[session]
	l.was[session] = st
	if ok {
		st = was
	}
	return st, err
}

func TestFaultLinearizableNoticesMutants(t *testing.T) {
	full(t)
	stale := func(s storage.Store) storage.Store { return &late{Store: s, was: map[checkpoint.ID]*storage.Stored{}} }
	if r := linearizable(t, 40, stale); r != porcupine.Illegal {
		t.Fatalf("%s: stale reads were not noticed", r)
	}
}

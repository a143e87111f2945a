package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func files(t *testing.T, dir string) int {
	t.Helper()
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestPendingStatesSpillAndGo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, spillPrefix+"left-by-a-crash"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := newPendingStates(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := files(t, dir); n != 0 {
		t.Fatalf("%d files of a crashed daemon stay", n)
	}
	a, b := checkpoint.NewID(), checkpoint.NewID()
	small, large := []byte(`{"a":1}`), bytes.Repeat([]byte("9"), pendingSmall+1)
	for i, c := range []struct {
		id    checkpoint.ID
		state []byte
		rev   uint64
		files int
	}{{a, small, 1, 0}, {b, large, 1, 1}, {b, large, 2, 1}, {b, small, 3, 0}, {a, large, 2, 1}} {
		rev, err := p.put(c.id, c.state)
		if err != nil || rev != c.rev || files(t, dir) != c.files {
			t.Fatalf("put %d: revision %d, %d files, %v; want %d and %d", i, rev, files(t, dir), err, c.rev, c.files)
		}
		got, _, ok, err := p.peek(c.id)
		if err != nil || !ok || !bytes.Equal(got, c.state) {
			t.Fatalf("put %d: read back %d bytes, %v, %v", i, len(got), ok, err)
		}
	}
	state, rev, ok, err := p.take(a)
	if err != nil || !ok || !bytes.Equal(state, large) || files(t, dir) != 0 {
		t.Fatalf("take: %d bytes, %v, %v", len(state), ok, err)
	}
	if _, _, ok, _ := p.take(a); ok {
		t.Fatal("a state was taken twice")
	}
	if err := p.giveBack(a, state, rev); err != nil {
		t.Fatal(err)
	}
	if got, _, ok, _ := p.peek(a); !ok || !bytes.Equal(got, large) {
		t.Fatal("the state of a failed checkpoint is lost")
	}
	state, rev, _, _ = p.take(a)
	if _, err := p.put(a, small); err != nil {
		t.Fatal(err)
	}
	if err := p.giveBack(a, state, rev); err != nil {
		t.Fatal(err)
	}
	if got, _, _, _ := p.peek(a); !bytes.Equal(got, small) {
		t.Fatal("an old state replaced a newer one")
	}
	if err := p.close(); err != nil || files(t, dir) != 0 || p.bytes != 0 {
		t.Fatalf("after close: %d files, %d bytes counted, %v", files(t, dir), p.bytes, err)
	}
}

func TestPendingMemoryIsBounded(t *testing.T) {
	p, err := newPendingStates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.bytes = pendingMemory - 5
	id := checkpoint.NewID()
	if _, err := p.put(id, []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if p.by[id].file == "" {
		t.Fatal("a state over the bound stayed in memory")
	}
}

// What a closed session's agent put and did not keep is no failure when the daemon stops.
func TestAClosedSessionsPutStateIsLeft(t *testing.T) {
	d := start(t, memoryOptions(t))
	p := d.dial()
	s := p.session(obj{})
	p.call("session.attach", obj{"session_id": s.ID}, nil)
	p.call("session.put_state", obj{"session_id": s.ID, "state": 1}, nil)
	p.call("session.close", obj{"session_id": s.ID}, nil)
	d.end()
	if log := d.log.String(); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
		t.Error(log)
	}
}

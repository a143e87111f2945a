package rpc

import (
	"fmt"
	"strings"
	"testing"
)

// Creates of one batch run beside each other on parts of one frame, which is not used
// again before the last of them has been answered.
func TestCreatesOfABatchShareAFrame(t *testing.T) {
	f := newFake()
	_, path := serve(t, f, nil)
	w := dial(t, path)
	const n = 20
	for round := range 20 {
		var b strings.Builder
		for i := range n {
			session := fmt.Sprintf("%08d-1111-4111-8111-111111111111", i+1)
			fmt.Fprintf(&b, ",%s", create(i, session, "m", fmt.Sprintf(`,"state":"%d %s"`, i, strings.Repeat("x", 400))))
		}
		if got := w.ask("[" + b.String()[1:] + "]"); strings.Count(got, `"result"`) != n {
			t.Fatalf("round %d: %.300s", round, got)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, made := range f.made {
		if strings.Contains(string(made.State), "\xff") || len(made.State) < 400 {
			t.Fatalf("%q", made.State)
		}
	}
}

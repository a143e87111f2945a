package storage_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// A store that has no time to publish closes all the same, and the next one has it all.
func TestCloseEndsWithinItsBound(t *testing.T) {
	for range 5 { // a publisher may have been quicker than the creates
		if closeEarly(t, vfs.NewMem()) {
			return
		}
	}
	t.Error("no close was cut short")
}

// closeEarly reports whether the journal held something after the close.
func closeEarly(t *testing.T, mem *vfs.Mem) bool {
	s, err := storage.Open(t.Context(), storage.Options{FS: mem, CloseWithin: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	sess, _, err := s.CreateSession(t.Context(), storage.NewSession{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	const n = 2 * 4096 // more than one round of the publisher takes
	acked := make(chan checkpoint.Receipt, n)
	for i := range n {
		s.Submit(t.Context(), &storage.NewCheckpoint{SessionID: sess.ID, Message: fmt.Sprint(i), State: []byte("1")}, func(r checkpoint.Receipt, err error) {
			if err != nil {
				t.Error(err)
			}
			acked <- r
		})
	}
	var all []checkpoint.Receipt
	for range n {
		all = append(all, <-acked)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cut := slices.ContainsFunc(vfstest.Files(mem, "journal"), func(f string) bool { return strings.HasSuffix(f, ".jsonl") })
	if s, err = storage.Open(t.Context(), storage.Options{FS: mem}); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if st, err := s.Get(t.Context(), r.CheckpointID); err != nil || st.Summary.Sequence != r.Sequence {
			t.Fatalf("%d is %+v, %v", r.Sequence, st, err)
		}
	}
	if r, err := s.ValidateAll(t.Context(), checkpoint.ID{}, nil); err != nil || len(r.Problems) > 0 || r.Valid != n {
		t.Errorf("%+v, %v", r, err)
	}
	if files := vfstest.Files(mem, "quarantine"); len(files) > 0 {
		t.Errorf("in quarantine: %v", files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cut
}

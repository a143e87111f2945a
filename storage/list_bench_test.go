package storage_test

import (
	"context"
	"testing"

	"github.com/forge-cpd/forge-cpd/storage"
)

// BenchmarkList reads a page of 1,000 summaries that are no longer in memory.
func BenchmarkList(b *testing.B) {
	ctx := context.Background()
	s, err := storage.Open(ctx, storage.Options{Dir: b.TempDir(), SyncFS: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	sess, _, err := s.CreateSession(ctx, storage.NewSession{Name: "list"})
	if err != nil {
		b.Fatal(err)
	}
	const n = 1000
	for range n {
		if _, err := storage.Create(ctx, s, &storage.NewCheckpoint{SessionID: sess.ID, Message: "m", State: []byte(`{}`)}); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := s.Sync(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		page, err := s.List(ctx, storage.Query{SessionID: sess.ID, Limit: n})
		if err != nil || len(page.Summaries) != n {
			b.Fatal(len(page.Summaries), err)
		}
	}
}

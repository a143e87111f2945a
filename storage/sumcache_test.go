package storage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A page that comes from blocks holds what was written, whatever became of the index.
func TestAPageFromBlocksIsWhatWasWritten(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	const n = 400
	path := filepath.Join(dir, summariesPath)
	first := func() string {
		s, err := Open(ctx, Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sess, _, err := s.CreateSession(ctx, NewSession{Name: "blocks"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n { // of many lengths, one of them longer than a block
			message := strings.Repeat(fmt.Sprint(i, " "), i%200)
			if i == n/2 {
				message = strings.Repeat("x", sumBlock+5000)
			}
			if _, err := Create(ctx, s, &NewCheckpoint{SessionID: sess.ID, Message: message, State: []byte(`{}`)}); err != nil {
				t.Fatal(err)
			}
		}
		page := listAll(t, s, n) // from memory and the journal
		if _, err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for range 2 { // read, then kept
			if listAll(t, s, n) != page {
				t.Error("the published page is another one")
			}
		}
		return page
	}
	page := first()
	b, err := os.ReadFile(path)
	if err != nil || len(b) < 4*sumBlock {
		t.Fatal(len(b), err)
	}
	for name, change := range map[string]func(f *os.File) error{
		"as it was": func(*os.File) error { return nil },
		"a byte flipped": func(f *os.File) error {
			_, err := f.WriteAt([]byte{b[sumBlock+sumBlock/2] ^ 1}, sumBlock+sumBlock/2)
			return err
		},
		"cut in a block":    func(f *os.File) error { return f.Truncate(2*sumBlock + 100) },
		"a block of zeros":  func(f *os.File) error { _, err := f.WriteAt(make([]byte, sumBlock), sumBlock); return err },
		"flipped at a seam": func(f *os.File) error { _, err := f.WriteAt([]byte{b[sumBlock] ^ 1}, sumBlock); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(f); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			s, err := Open(ctx, Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for range 2 {
				if listAll(t, s, n) != page {
					t.Error("another page")
				}
			}
		})
	}
}

func listAll(t *testing.T, s Store, n int) string {
	t.Helper()
	page, err := s.List(context.Background(), Query{Limit: n})
	if err != nil || len(page.Summaries) != n {
		t.Fatal(len(page.Summaries), err)
	}
	var all bytes.Buffer
	for _, sum := range page.Summaries {
		all.Write(append(sum, '\n'))
	}
	return all.String()
}

package storage

import (
	"bytes"
	"testing"

	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

func TestPartsOfImportsAreBounded(t *testing.T) {
	p := parts{limit: 100, list: map[blob.Sum]*part{}}
	a, b, c := blob.SumOf([]byte("a")), blob.SumOf([]byte("b")), blob.SumOf([]byte("c"))
	put := func(sum blob.Sum, n int) {
		t.Helper()
		if err := p.put(sum, bytes.Repeat([]byte("x"), n)); err != nil {
			t.Fatal(err)
		}
		if p.bytes > p.limit {
			t.Fatalf("%d bytes of %d", p.bytes, p.limit)
		}
	}
	put(a, 40)
	put(b, 40)
	put(a, 60) // grows: b is the one that has not for longest
	put(c, 30)
	if p.get(b) != nil || len(p.get(a)) != 60 || len(p.get(c)) != 30 || p.bytes != 90 {
		t.Fatalf("a %d, b %d, c %d: %d bytes", len(p.get(a)), len(p.get(b)), len(p.get(c)), p.bytes)
	}
	if err := p.put(a, make([]byte, 101)); err == nil {
		t.Fatal("a file over the limit was taken")
	}
	p.drop(c)
	if p.bytes != 0 {
		t.Fatalf("%d bytes of nothing", p.bytes)
	}
}

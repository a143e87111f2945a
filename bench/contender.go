package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// putter stores one document durably; put returns when a power cut could not lose it.
// worker and n name the document: no two calls share the pair.
type putter interface {
	put(worker, n int, doc []byte) error
	close() error
}

// settler is a putter that still has work to do after the last put returned.
type settler interface{ settle() error }

// contender is one way of keeping documents.
type contender struct {
	name string
	what string
	open func(dir string) (putter, error)
	// missing says why it cannot run here, or "".
	missing func() string
	// single marks one that serves a single writer at a time: others would wait for its lock.
	single bool
}

func (c contender) absent() string {
	if c.missing == nil {
		return ""
	}
	return c.missing()
}

// document makes n bytes of JSON that neither compress to nothing nor repeat.
func document(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var b bytes.Buffer
	b.WriteString(`{"messages":[`)
	for i := 0; b.Len() < n-160; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":"tool","n":%d,"text":"`, i)
		for range 10 {
			b.WriteString(words[r.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteString(strconv.FormatUint(r.Uint64(), 36))
		b.WriteString(`"}`)
	}
	b.WriteString(`],"pad":"`)
	for b.Len() < n-2 {
		b.WriteByte(byte('a' + r.IntN(26)))
	}
	b.WriteString(`"}`)
	return b.Bytes()
}

var words = []string{
	"reads", "the", "file", "storage", "error", "return", "nil", "func", "test", "passed", "failed",
	"line", "because", "agent", "decided", "retry", "branch", "commit", "context", "window",
}

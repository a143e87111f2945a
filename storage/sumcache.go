package storage

import (
	"hash/crc32"
	"sync"
)

// What was listed a moment ago is listed again. So the blocks of index/summaries that a page
// came from stay in memory, a fixed number of them; SQLite's page cache holds as much.
const (
	sumBlock  = 64 << 10
	sumBlocks = 32
	// cachedSpan is what a page must cover to be read by blocks: a few summaries are not.
	cachedSpan = sumBlock / 2
)

// sumCache holds whole blocks, each in the one place that its number gives it. Nothing
// changes their bytes; every summary is checked each time it is taken from them.
type sumCache struct {
	mu    sync.Mutex
	slots [sumBlocks]cachedBlock
}

type cachedBlock struct {
	file *sumFile
	n    int64
	b    []byte
}

func (c *sumCache) get(f *sumFile, n int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := &c.slots[n%sumBlocks]; s.file == f && s.n == n {
		return s.b
	}
	return nil
}

func (c *sumCache) put(f *sumFile, n int64, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots[n%sumBlocks] = cachedBlock{f, n, b}
}

// sumReader takes summaries out of blocks, in the order of the file.
type sumReader struct {
	cache *sumCache
	file  *sumFile
	end   int64 // of what is asked for: the block that holds it may not be whole
	n     int64
	b     []byte
	err   error
}

// block returns a whole block, or nil.
func (r *sumReader) block(n int64) []byte {
	if r.b != nil && r.n == n {
		return r.b
	}
	b := r.cache.get(r.file, n)
	if b == nil {
		if (n+1)*sumBlock > r.end {
			return nil
		}
		b = make([]byte, sumBlock)
		if _, r.err = r.file.ReadAt(b, n*sumBlock); r.err != nil {
			return nil
		}
		r.cache.put(r.file, n, b)
	}
	r.n, r.b = n, b
	return b
}

// take returns the bytes of a summary with its end, or nil when they are not in whole
// blocks, or not those that were written.
func (r *sumReader) take(ref *summaryRef) []byte {
	size := ref.end() - ref.off
	n, from := ref.off/sumBlock, ref.off%sumBlock
	b := r.block(n)
	if b == nil {
		return nil
	}
	if from+size <= sumBlock {
		b = b[from : from+size : from+size]
	} else { // it goes on in the next blocks
		b = append(make([]byte, 0, size), b[from:]...)
		for int64(len(b)) < size {
			n++
			next := r.block(n)
			if next == nil {
				return nil
			}
			b = append(b, next[:min(sumBlock, size-int64(len(b)))]...)
		}
	}
	if crc32.Checksum(b, castagnoli) != ref.check {
		return nil
	}
	return b
}

// fill completes what it can and gives the others back.
func (r *sumReader) fill(refs []*summaryRef) (left []*summaryRef) {
	for _, ref := range refs {
		if b := r.take(ref); b != nil {
			ref.open, ref.ended = b[:ref.n], true
		} else {
			left = append(left, ref)
		}
	}
	return left
}

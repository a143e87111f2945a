package storage

import "sync"

// bodies are buffers for checkpoints that are read and not kept: to be published, or for
// their rows. Larger ones are made each time and never stay.
var bodies = bodyPool{
	small: sync.Pool{New: func() any { return new([smallBody]byte) }},
	large: sync.Pool{New: func() any { return new([pooledBody]byte) }},
}

const smallBody, pooledBody = 16 << 10, 64 << 10

type bodyPool struct{ small, large sync.Pool }

// get returns size bytes or more, with anything in them.
func (p *bodyPool) get(size int64) []byte {
	switch {
	case size <= smallBody:
		return p.small.Get().(*[smallBody]byte)[:]
	case size <= pooledBody:
		return p.large.Get().(*[pooledBody]byte)[:]
	}
	return make([]byte, size)
}

// put takes back what get gave; nothing may refer to it any more.
func (p *bodyPool) put(b []byte) {
	switch len(b) {
	case smallBody:
		p.small.Put((*[smallBody]byte)(b))
	case pooledBody:
		p.large.Put((*[pooledBody]byte)(b))
	}
}

package storage

import "sync"

// bodies are buffers for checkpoints that are read and not kept: to be published, or for
// their rows. Larger ones are made each time and never stay.
var bodies = bodyPool{sync.Pool{New: func() any { return new([pooledBody]byte) }}}

const pooledBody = 64 << 10

type bodyPool struct{ pool sync.Pool }

// get returns size bytes or more, with anything in them.
func (p *bodyPool) get(size int64) []byte {
	if size > pooledBody {
		return make([]byte, size)
	}
	return p.pool.Get().(*[pooledBody]byte)[:]
}

// put takes back what get gave; nothing may refer to it any more.
func (p *bodyPool) put(b []byte) {
	if len(b) == pooledBody {
		p.pool.Put((*[pooledBody]byte)(b))
	}
}

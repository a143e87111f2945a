package storage

import (
	"encoding/base64"
	"fmt"

	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

type importedFile struct {
	SHA256  string `json:"sha256"`
	Offset  int64  `json:"offset"`
	Content string `json:"content_base64"`
}

// parts are the contents of which the rest is still to come. Together they are bounded: an
// import that was given up must neither fill the memory nor stand in the next one's way.
type parts struct {
	limit int64
	bytes int64
	tick  uint64
	list  map[blob.Sum]*part
}

type part struct {
	content []byte
	used    uint64 // when it last grew
}

// put keeps what there is of a content. Those that have not grown for longest go for it.
func (p *parts) put(sum blob.Sum, content []byte) error {
	p.drop(sum)
	if int64(len(content)) > p.limit {
		return fmt.Errorf("a file of over %d bytes in parts: raise limits.import_bytes", p.limit)
	}
	for p.bytes+int64(len(content)) > p.limit {
		var oldest blob.Sum
		used := p.tick + 1
		for s, x := range p.list {
			if x.used < used {
				oldest, used = s, x.used
			}
		}
		p.drop(oldest)
	}
	p.tick++
	p.bytes += int64(len(content))
	p.list[sum] = &part{content, p.tick}
	return nil
}

// get gives what there is of a content, nil when nothing is.
func (p *parts) get(sum blob.Sum) []byte {
	if x := p.list[sum]; x != nil {
		return x.content
	}
	return nil
}

func (p *parts) drop(sum blob.Sum) {
	if x := p.list[sum]; x != nil {
		p.bytes -= int64(len(x.content))
		delete(p.list, sum)
	}
}

// takeFile keeps a content, or a part of one until the rest has come.
func (im *importer) takeFile(f importedFile) error {
	if im.s == nil {
		return nil // CheckPage
	}
	sum, err := blob.ParseSum(f.SHA256)
	if err != nil {
		return err
	}
	content, err := base64.StdEncoding.DecodeString(f.Content)
	if err != nil {
		return err
	}
	s := im.s
	s.importMu.Lock()
	defer s.importMu.Unlock()
	if f.Offset > 0 {
		part := s.parts.get(sum)
		if int64(len(part)) < f.Offset {
			return fmt.Errorf("the part before byte %d is missing: import the pages in order", f.Offset)
		}
		content = append(part[:f.Offset:f.Offset], content...)
	}
	if blob.SumOf(content) != sum {
		return s.parts.put(sum, content)
	}
	s.parts.drop(sum)
	got, release, err := s.blobs.Put(content)
	if err != nil {
		return err
	}
	// A checkpoint on a later page may name it: it is held until the store is closed.
	if old := s.held[got]; old != nil {
		release()
	} else {
		s.held[got] = release
	}
	return nil
}

var checksumName = []byte(`,"checksum":"sha256:`)

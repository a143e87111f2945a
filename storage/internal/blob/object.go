package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/jotfs/fastcdc-go"
	"github.com/klauspost/compress/zstd"
)

// The first byte of an object's file.
const (
	kindPlain  = 'P' // the content itself
	kindPacked = 'Z' // one zstd frame
	kindText   = 'T' // one zstd frame that needs the dictionary
	kindList   = 'L' // names of chunks, and the rest
)

// Sizes of a content's chunks, in bytes. An average of 10 KiB is where a transcript kept at
// each of its tool calls is smallest: smaller chunks compress worse and cost a directory
// entry each, larger ones leave more behind the last boundary to be kept again and again.
const (
	minChunk = 2 << 10
	avgChunk = 10 << 10
	maxChunk = 32 << 10
	// window is how much of what comes before the last chunk serves as its dictionary.
	window = 64 << 10
	// A node of a list ends after a name whose byte, chosen by the level, has these bits clear.
	nodeMask = 15
	maxNode  = minChunk / sha256.Size
	trailer  = 16
	// maxStored bounds a file: a list of 2^40 bytes of chunks stays far below.
	maxStored = 1 << 20
	maxLevels = 12
)

var errChecksum = errors.New("checksum does not match")

// object is one file to be: the name it is kept under, its bytes, and what a list names.
type object struct {
	sum    Sum
	stored []byte
	levels [][]Sum
}

// seal adds the trailer: the start of a SHA-256 over the name and everything before it.
// The name is in it so that two files put in each other's place are found, and all bytes
// are in it because zstd ignores some bits of a frame.
func seal(sum Sum, stored []byte) []byte {
	h := sha256.New()
	h.Write(sum[:])
	h.Write(stored)
	return append(stored, h.Sum(nil)[:trailer]...)
}

// decode checks the bytes of a file against its name and returns its kind and body.
func decode(sum Sum, stored []byte) (byte, []byte, error) {
	if len(stored) < 1+trailer {
		return 0, nil, errors.New("is cut short")
	}
	end := len(stored) - trailer
	if !bytes.Equal(seal(sum, stored[:end:end])[end:], stored[end:]) {
		return 0, nil, errChecksum
	}
	kind, body := stored[0], stored[1:end]
	switch kind {
	case kindList:
		return kind, body, nil
	case kindPacked, kindText:
		d := decoder()
		if kind == kindText {
			d = textDecoder()
		}
		var err error
		if body, err = unpack(d, body); err != nil {
			return 0, nil, err
		}
	case kindPlain:
	default:
		return 0, nil, errors.New("is of an unknown kind: a newer forge-cpd may read it")
	}
	if SumOf(body) != sum {
		return 0, nil, errChecksum
	}
	return kind, body, nil
}

// split turns a content into the objects that keep it; the one named sum comes last.
func split(sum Sum, content []byte) []object {
	chunks := cut(content)
	if len(chunks) <= 1 {
		return []object{chunkObject(sum, content)}
	}
	l := list{size: uint64(len(content)), levels: [][]Sum{nil}}
	var objects []object
	last := chunks[len(chunks)-1]
	for _, c := range chunks[:len(chunks)-1] {
		name := SumOf(c)
		objects = append(objects, chunkObject(name, c))
		objects = l.add(0, name, objects)
	}
	before := len(content) - len(last)
	l.rest = newEncoder(content[max(0, before-window):before]).EncodeAll(last, nil)
	if l.packed = len(l.rest) < len(last); !l.packed {
		l.rest = last
	}
	return append(objects, object{sum, seal(sum, append([]byte{kindList}, l.encode()...)), l.levels})
}

func chunkObject(sum Sum, content []byte) object {
	if packed := textEncoder().EncodeAll(content, nil); len(packed) < len(content) {
		return object{sum: sum, stored: seal(sum, append([]byte{kindText}, packed...))}
	}
	return object{sum: sum, stored: seal(sum, append([]byte{kindPlain}, content...))}
}

// cutting serializes the chunker: NewChunker of fastcdc-go writes to a table that all
// chunkers of the process read.
var cutting sync.Mutex

func cut(content []byte) [][]byte {
	if len(content) <= minChunk {
		return nil
	}
	cutting.Lock()
	defer cutting.Unlock()
	chunker, err := fastcdc.NewChunker(bytes.NewReader(content), fastcdc.Options{
		MinSize: minChunk, AverageSize: avgChunk, MaxSize: maxChunk, Normalization: 2,
	})
	if err != nil {
		panic(err) // the options are constants that it takes
	}
	var chunks [][]byte
	for {
		c, err := chunker.Next()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		if err != nil {
			panic(err) // a bytes.Reader does not fail
		}
		chunks = append(chunks, content[c.Offset:c.Offset+c.Length])
	}
}

// list is a content of several chunks. levels[0] holds the names of chunks that are in no
// node yet, levels[1] those of nodes of such names that are in no node of the next level
// yet, and so on: the content is the highest level first, and rest after the last chunk.
// That way a file that grew by a line shares all nodes but the last with what it was.
type list struct {
	size   uint64
	levels [][]Sum
	packed bool
	rest   []byte
}

func (l *list) add(level int, name Sum, objects []object) []object {
	if level == len(l.levels) {
		l.levels = append(l.levels, nil)
	}
	l.levels[level] = append(l.levels[level], name)
	names := l.levels[level]
	if name[level]&nodeMask != 0 && len(names) < maxNode {
		return objects
	}
	l.levels[level] = nil
	node := make([]byte, 0, len(names)*len(name))
	for _, n := range names {
		node = append(node, n[:]...)
	}
	sum := SumOf(node)
	return l.add(level+1, sum, append(objects, object{sum: sum, stored: seal(sum, append([]byte{kindPlain}, node...))}))
}

func (l *list) encode() []byte {
	b := binary.AppendUvarint(nil, l.size)
	b = binary.AppendUvarint(b, uint64(len(l.levels)))
	for _, names := range l.levels {
		b = binary.AppendUvarint(b, uint64(len(names)))
		for _, n := range names {
			b = append(b, n[:]...)
		}
	}
	method := byte(kindPlain)
	if l.packed {
		method = kindPacked
	}
	return append(append(b, method), l.rest...)
}

var errList = errors.New("is not a list of chunks")

func parseList(b []byte) (l list, err error) {
	number := func(limit uint64) uint64 {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > limit {
			err, b = errList, nil
			return 0
		}
		b = b[used:]
		return n
	}
	l.size = number(1 << 40)
	levels := number(maxLevels)
	for range levels {
		count := number(maxNode)
		if uint64(len(b)) < count*sha256.Size {
			return list{}, errList
		}
		names := make([]Sum, count)
		for i := range names {
			names[i], b = Sum(b[:sha256.Size]), b[sha256.Size:]
		}
		l.levels = append(l.levels, names)
	}
	if err != nil || len(b) == 0 || (b[0] != kindPlain && b[0] != kindPacked) {
		return list{}, errList
	}
	l.packed, l.rest = b[0] == kindPacked, b[1:]
	return l, nil
}

// finish appends the rest to the content of the chunks.
func (l *list) finish(content []byte) ([]byte, error) {
	rest := l.rest
	if l.packed {
		var err error
		d := newDecoder(content[max(0, len(content)-window):])
		defer d.Close()
		if rest, err = unpack(d, rest); err != nil {
			return nil, err
		}
	}
	content = append(content, rest...)
	if uint64(len(content)) != l.size {
		return nil, errors.New("its chunks have another length than it says")
	}
	return content, nil
}

var textEncoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder([]byte(dictionary)) })

// newEncoder compresses what comes after dict.
func newEncoder(dict []byte) *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true),
		zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(2*window), zstd.WithLowerEncoderMem(true), zstd.WithEncoderDictRaw(0, dict))
	if err != nil {
		panic(err) // the options are constants that it takes
	}
	return e
}

var (
	decoder     = sync.OnceValue(func() *zstd.Decoder { return newDecoder(nil) })
	textDecoder = sync.OnceValue(func() *zstd.Decoder { return newDecoder([]byte(dictionary)) })
)

func newDecoder(dict []byte) *zstd.Decoder {
	opts := []zstd.DOption{
		// No object holds more than a chunk, so a frame that says more is none of ours.
		zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxChunk), zstd.WithDecoderLowmem(true),
	}
	if len(dict) > 0 {
		opts = append(opts, zstd.WithDecoderDictRaw(0, dict))
	}
	d, err := zstd.NewReader(nil, opts...)
	if err != nil {
		panic(err) // the options are constants that it takes
	}
	return d
}

func unpack(d *zstd.Decoder, frame []byte) ([]byte, error) {
	content, err := d.DecodeAll(frame, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot be decompressed: %w", err)
	}
	return content, nil
}

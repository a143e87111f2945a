package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// maxPatchOps bounds a patch: two unlike states of 16 MiB would otherwise make one that
// no frame can hold. Beyond it, the nearest common parent is replaced whole.
const maxPatchOps = 100_000

// patch collects RFC 6902 operations between two JSON texts. It walks the texts
// themselves and goes down only where the bytes differ, so that numbers keep their
// literals (which a library that decodes into Go values rounds) and a diff of two large
// states costs little more than reading them.
type patch struct {
	buf                     bytes.Buffer
	added, removed, changed int
}

func (p *patch) op(op, path string, value []byte) {
	if p.buf.Len() > 0 {
		p.buf.WriteByte(',')
	}
	p.buf.WriteString(`{"op":"`)
	p.buf.WriteString(op)
	p.buf.WriteString(`","path":`)
	p.buf.Write(quote(path))
	if op != "remove" {
		p.buf.WriteString(`,"value":`)
		p.buf.Write(value)
	}
	p.buf.WriteByte('}')
	switch op {
	case "add":
		p.added++
	case "remove":
		p.removed++
	default:
		p.changed++
	}
}

func (p *patch) count() int { return p.added + p.removed + p.changed }

// diff appends what turns from into to at path.
func (p *patch) diff(path string, from, to []byte) error {
	if bytes.Equal(from, to) {
		return nil
	}
	if p.count() >= maxPatchOps || from[0] != to[0] {
		return p.replace(path, from, to)
	}
	switch from[0] {
	case '{':
		return p.objects(path, from, to)
	case '[':
		return p.arrays(path, from, to)
	}
	return p.replace(path, from, to)
}

func (p *patch) replace(path string, from, to []byte) error {
	same, err := equal(from, to)
	if err == nil && !same {
		p.op("replace", path, to)
	}
	return err
}

func (p *patch) objects(path string, from, to []byte) error {
	a, keysA, err := members(from)
	if err != nil {
		return err
	}
	b, keysB, err := members(to)
	if err != nil {
		return err
	}
	for _, k := range keysA {
		at := path + "/" + pointerToken(k)
		v, ok := b[k]
		if !ok {
			p.op("remove", at, nil)
			continue
		}
		if err := p.diff(at, a[k], v); err != nil {
			return err
		}
	}
	for _, k := range keysB {
		if _, ok := a[k]; !ok {
			p.op("add", path+"/"+pointerToken(k), b[k])
		}
	}
	return nil
}

// arrays keeps what is the same at both ends; what is between is compared pairwise, and
// the rest added or removed there. Lists of a growing agent's state change at their end.
func (p *patch) arrays(path string, from, to []byte) error {
	a, err := elements(from)
	if err != nil {
		return err
	}
	b, err := elements(to)
	if err != nil {
		return err
	}
	start := 0
	for start < len(a) && start < len(b) && bytes.Equal(a[start], b[start]) {
		start++
	}
	tail := 0
	for tail < len(a)-start && tail < len(b)-start && bytes.Equal(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
	}
	midA, midB := a[start:len(a)-tail], b[start:len(b)-tail]
	both := min(len(midA), len(midB))
	for i := range both {
		if err := p.diff(path+"/"+strconv.Itoa(start+i), midA[i], midB[i]); err != nil {
			return err
		}
	}
	for i := len(midA) - 1; i >= both; i-- {
		p.op("remove", path+"/"+strconv.Itoa(start+i), nil)
	}
	for i := both; i < len(midB); i++ {
		p.op("add", path+"/"+strconv.Itoa(start+i), midB[i])
	}
	return nil
}

// equal compares two values: member order and the spelling of strings do not count;
// numbers are compared as they are written.
func equal(a, b []byte) (bool, error) {
	if bytes.Equal(a, b) {
		return true, nil
	}
	if a[0] != b[0] {
		return false, nil
	}
	switch a[0] {
	case '"':
		x, err := rawjson.String(a)
		if err != nil {
			return false, err
		}
		y, err := rawjson.String(b)
		// A lone surrogate decodes to U+FFFD whichever it was: then only the bytes tell.
		return x == y && !strings.Contains(x, "\uFFFD"), err
	case '{', '[':
		var p patch
		if err := p.diff("", a, b); err != nil {
			return false, err
		}
		return p.count() == 0, nil
	}
	return false, nil
}

// members indexes an object; the last of duplicate members counts, as everywhere else.
func members(obj []byte) (map[string][]byte, []string, error) {
	m := map[string][]byte{}
	var keys []string
	err := rawjson.Members(obj, func(k string, v []byte) error {
		if _, ok := m[k]; !ok {
			keys = append(keys, k)
		}
		m[k] = v
		return nil
	})
	return m, keys, err
}

func elements(arr []byte) ([][]byte, error) {
	var out [][]byte
	err := rawjson.Elements(arr, func(_ int, v []byte) error { out = append(out, v); return nil })
	return out, err
}

func pointerToken(k string) string {
	return strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1")
}

func quote(s string) []byte {
	b, _ := json.Marshal(s) // a string always encodes
	return b
}

// CheckpointDiff compares two states.
func (s *service) CheckpointDiff(ctx context.Context, p *rpc.DiffParams) (*rpc.DiffResult, error) {
	var sides [2][]byte
	for i, id := range []checkpoint.ID{p.From, p.To} {
		st, err := s.get(ctx, id)
		if err != nil {
			return nil, err
		}
		if sides[i], err = rawjson.Pointer(st.State, p.Path); err != nil {
			return nil, checkpoint.Invalid("path", "%v", err)
		}
	}
	var d patch
	from, to := sides[0], sides[1]
	switch {
	case from == nil && to == nil:
		return nil, checkpoint.Invalid("path", "neither state has anything at %.256q", p.Path)
	case from == nil:
		d.op("add", "", to)
	case to == nil:
		d.op("remove", "", nil)
	default:
		if err := d.diff("", from, to); err != nil {
			return nil, checkpoint.Errorf(checkpoint.KindInternal, "comparing the states: %w", err)
		}
	}
	return &rpc.DiffResult{
		Patch:     slices.Concat([]byte("["), d.buf.Bytes(), []byte("]")),
		Summary:   rpc.DiffSummary{Added: d.added, Removed: d.removed, Changed: d.changed},
		Identical: d.count() == 0,
	}, nil
}

package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
)

func patchOf(t *testing.T, from, to string) ([]byte, *patch) {
	t.Helper()
	var d patch
	if err := d.diff("", []byte(from), []byte(to)); err != nil {
		t.Fatalf("diff(%s, %s): %v", from, to, err)
	}
	return slices.Concat([]byte("["), d.buf.Bytes(), []byte("]")), &d
}

func TestDiffSaysWhatChanged(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{`{}`, `{}`, `[]`},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, `[]`},
		{`{"a":"\u0041"}`, `{"a":"A"}`, `[]`},
		{`{"a":1}`, `{"a":1.0}`, `[{"op":"replace","path":"/a","value":1.0}]`},
		{`{"a":123456789012345678901234567890}`, `{"a":123456789012345678901234567891}`, `[{"op":"replace","path":"/a","value":123456789012345678901234567891}]`},
		{`{"a/b~":1}`, `{}`, `[{"op":"remove","path":"/a~1b~0"}]`},
		{`{}`, `{"x":null}`, `[{"op":"add","path":"/x","value":null}]`},
		{`[1,2,3]`, `[1,3]`, `[{"op":"remove","path":"/1"}]`},
		{`[1,2]`, `[0,1,2]`, `[{"op":"add","path":"/0","value":0}]`},
		{`{"a":[{"b":1},{"b":2}]}`, `{"a":[{"b":1},{"b":3}]}`, `[{"op":"replace","path":"/a/1/b","value":3}]`},
		{`1`, `{"a":1}`, `[{"op":"replace","path":"","value":{"a":1}}]`},
		{`{"":[1]}`, `{"":[2]}`, `[{"op":"replace","path":"//0","value":2}]`},
		{`{"a":1,"a":2}`, `{"a":2}`, `[]`},
		{`"\ud800"`, `"\ud801"`, `[{"op":"replace","path":"","value":"\ud801"}]`},
	} {
		got, d := patchOf(t, c.from, c.to)
		if string(got) != c.want {
			t.Errorf("%s -> %s: got %s, want %s", c.from, c.to, got, c.want)
		}
		if n := strings.Count(c.want, `"op"`); d.count() != n {
			t.Errorf("%s -> %s: counted %d operations, want %d", c.from, c.to, d.count(), n)
		}
	}
}

// A library that others wrote applies each patch: the result must be the second text.
func TestDiffAppliesToGiveTheOther(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		a := randomJSON(rnd, 4)
		b := mutate(rnd, a)
		from, to := encode(t, a), encode(t, b)
		p, d := patchOf(t, from, to)
		if d.count() > 0 && bytes.Contains(p, []byte(`"path":""`)) {
			continue // the library cannot replace the whole text; the table above has that case
		}
		dec, err := jsonpatch.DecodePatch(p)
		if err != nil {
			t.Fatalf("round %d: %s: %v", i, p, err)
		}
		got, err := dec.Apply([]byte(from))
		if err != nil {
			t.Fatalf("round %d: applying %s to %s: %v", i, p, from, err)
		}
		if !sameJSON(t, string(got), to) {
			t.Fatalf("round %d: %s with %s gives %s, want %s", i, from, p, got, to)
		}
		if (d.count() == 0) != sameJSON(t, from, to) {
			t.Fatalf("round %d: %d operations between %s and %s", i, d.count(), from, to)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func randomJSON(r *rand.Rand, depth int) any {
	switch n := r.IntN(7); {
	case n < 2 && depth > 0 || depth == 4:
		m := map[string]any{}
		for range r.IntN(5) {
			m[[]string{"a", "b/c", "~d", "é"}[r.IntN(4)]] = randomJSON(r, depth-1)
		}
		return m
	case n < 4 && depth > 0:
		list := []any{}
		for range r.IntN(5) {
			list = append(list, randomJSON(r, depth-1))
		}
		return list
	case n == 4:
		return fmt.Sprint("s", r.IntN(3))
	case n == 5:
		return nil
	}
	return r.IntN(4)
}

func mutate(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if r.IntN(5) > 0 {
				out[k] = mutate(r, e)
			}
		}
		if r.IntN(3) == 0 {
			out["new"] = randomJSON(r, 2)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			if r.IntN(5) > 0 {
				out = append(out, mutate(r, e))
			}
			if r.IntN(6) == 0 {
				out = append(out, randomJSON(r, 2))
			}
		}
		return out
	}
	if r.IntN(4) == 0 {
		return randomJSON(r, 2)
	}
	return v
}

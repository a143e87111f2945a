package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCompactKeepsEverythingButWhiteSpace(t *testing.T) {
	for in, want := range map[string]string{
		" { \"b\" : 1.0 ,\n\t\"a\":[ 1e400 , -0 ,123456789012345678901234567890 ] , \"b\" : null } \r\n": `{"b":1.0,"a":[1e400,-0,123456789012345678901234567890],"b":null}`,
		`"\u0041\/\ud800 \n <&> 😀"`: `"\u0041\/\ud800 \n <&> 😀"`,
		"[ ]":                       "[]",
		"{ }":                       "{}",
		"[[ ] ,{ }, [1 ]]":          "[[],{},[1]]",
		" true ":                    "true",
		"0":                         "0",
		`{"":{"":[{"":{}}]}}`:       `{"":{"":[{"":{}}]}}`,
		"[1,2,\"a long string without anything special in it, 64 bytes or more, to be sure\" ]": "[1,2,\"a long string without anything special in it, 64 bytes or more, to be sure\"]",
	} {
		got, err := Compact(nil, []byte(in), 10)
		if err != nil || string(got) != want {
			t.Errorf("Compact(%q) = %q, %v; want %q", in, got, err, want)
		}
		buf := []byte(in)
		if got, err := Compact(buf[:0], buf, 10); err != nil || string(got) != want {
			t.Errorf("in place: Compact(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestCompactRefuses(t *testing.T) {
	deep := strings.Repeat("[", 11) + strings.Repeat("]", 11)
	for _, c := range []struct {
		in     string
		kind   error
		offset int
	}{
		{"", ErrSyntax, 0}, {"  ", ErrSyntax, 2}, {"nul", ErrSyntax, 0}, {"01", ErrSyntax, 1}, {"-", ErrSyntax, 1},
		{"1.", ErrSyntax, 2}, {"1e", ErrSyntax, 2}, {"+1", ErrSyntax, 0}, {".5", ErrSyntax, 0}, {"[1,]", ErrSyntax, 3},
		{"{,}", ErrSyntax, 1}, {`{"a"}`, ErrSyntax, 4}, {`{"a":}`, ErrSyntax, 5}, {`{"a":1,}`, ErrSyntax, 7}, {"{1:2}", ErrSyntax, 1},
		{"[1}", ErrSyntax, 2}, {`{"a":1]`, ErrSyntax, 6}, {"1 2", ErrSyntax, 2}, {"\"a\nb\"", ErrSyntax, 2}, {`"\x"`, ErrSyntax, 1},
		{`"\u12g4"`, ErrSyntax, 1}, {`"abc`, ErrSyntax, 4}, {`"\`, ErrSyntax, 1}, {"'a'", ErrSyntax, 0}, {"\ufeff1", ErrSyntax, 0},
		{"[1]x", ErrSyntax, 3}, {"NaN", ErrSyntax, 0}, {"\v1", ErrSyntax, 0}, {"1\x00", ErrSyntax, 1},
		{"\"0123456789\xff\"", ErrUTF8, 11}, {"\"\xed\xa0\x80\"", ErrUTF8, 1}, {"\"\xc0\x80\"", ErrUTF8, 1}, {"\"\xe2\x82\"", ErrUTF8, 1},
		{deep, ErrDepth, 10},
	} {
		_, err := Compact(nil, []byte(c.in), 10)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, c.kind) || e.Offset != c.offset {
			t.Errorf("Compact(%q) = %v, want %v at %d", c.in, err, c.kind, c.offset)
		}
		if verr := Valid([]byte(c.in), 10); fmt.Sprint(verr) != fmt.Sprint(err) {
			t.Errorf("Valid(%q) = %v, Compact says %v", c.in, verr, err)
		}
	}
	if err := Valid([]byte(deep), 11); err != nil {
		t.Errorf("11 levels of 11: %v", err)
	}
	if err := Valid([]byte(strings.Repeat(`{"a":[`, 100000)+strings.Repeat("]}", 100000)), 0); err != nil {
		t.Errorf("no bound on depth: %v", err)
	}
	out, _, flaw, err := Lenient(nil, []byte("[ \"\xff\", [[1]] ]"), 2)
	if string(out) != "[\"\xff\",[[1]]]" || !errors.Is(flaw, ErrUTF8) || err != nil {
		t.Errorf("Lenient: %q, %v, %v", out, flaw, err)
	}
	if _, _, _, err := Lenient(nil, []byte("[[1]"), 1); !errors.Is(err, ErrSyntax) {
		t.Errorf("Lenient on bad syntax: %v", err)
	}
}

func TestMembersAndElements(t *testing.T) {
	var got []string
	doc := []byte(`{"a" : [1, {"x":"]}"}], "\u0061\ud800":"q\"\\", "a":{} , "n":-1.5e3,"t":true }`)
	err := Members(doc, func(key string, value []byte) error {
		got = append(got, fmt.Sprintf("%s|%s", key, value))
		return nil
	})
	want := []string{`a|[1, {"x":"]}"}]`, "a\uFFFD|\"q\\\"\\\\\"", `a|{}`, `n|-1.5e3`, `t|true`}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	n := 0
	if err := Elements([]byte(`[ 1 , [2,3],"]" ,{} ]`), func(int, []byte) error { n++; return nil }); err != nil || n != 4 {
		t.Fatalf("%d elements, %v", n, err)
	}
	stop := errors.New("enough")
	if err := Elements([]byte(`[1,2]`), func(int, []byte) error { return stop }); err != stop {
		t.Fatalf("got %v", err)
	}
	for _, empty := range []string{"{}", " { } "} {
		if err := Members([]byte(empty), func(string, []byte) error { return stop }); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
	for _, bad := range []string{"", "[", "{", `{"a`, `{"a"`, `{"a":`, `{"a":[`, `{"a":1`, "7", `{"a":,}`} {
		if err := Members([]byte(bad), func(string, []byte) error { return nil }); !errors.Is(err, ErrSyntax) {
			t.Errorf("Members(%q) = %v", bad, err)
		}
	}
}

func TestQuoting(t *testing.T) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\r\t\x01\u2028<é😀>", "\x7f"} {
		q := AppendQuote(nil, s)
		var std string
		if err := json.Unmarshal(q, &std); err != nil || std != s {
			t.Errorf("AppendQuote(%q) = %s: %q, %v", s, q, std, err)
		}
		if back, err := Unquote(q); err != nil || back != s {
			t.Errorf("Unquote(%s) = %q, %v", q, back, err)
		}
	}
	if got, err := Unquote([]byte(`"\ud83d\ude00\u00e9\/"`)); err != nil || got != "😀é/" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, lone := range []string{`"\ud800"`, `"\udc00\ud800"`, `"\ud800\u0041"`, `"x\ud800\n"`} {
		if _, err := Unquote([]byte(lone)); err != ErrSurrogate {
			t.Errorf("Unquote(%s) = %v", lone, err)
		}
	}
	if _, err := Unquote([]byte("7")); !errors.Is(err, ErrSyntax) {
		t.Errorf("Unquote(7) = %v", err)
	}
	if got := string(AppendQuote(nil, "a\xffb")); got != "\"a\uFFFDb\"" {
		t.Errorf("got %s", got)
	}
}

func TestMarks(t *testing.T) {
	out, marks, flaw, err := Lenient(nil, []byte(` { "a" : 1 , "p" : { "x" : [ {"q":1} , 2 ] , "y" : { "z" : { } } } ,"e":{ }, "l": [ {"no":1} ] } `), 9)
	var got []string
	for _, m := range marks {
		got = append(got, fmt.Sprintf("%d %s=%s", m.Depth, out[m.Key:m.KeyEnd], out[m.Value:m.End]))
	}
	want := []string{`1 "a"=1`, `1 "p"={"x":[{"q":1},2],"y":{"z":{}}}`, `2 "x"=[{"q":1},2]`, `2 "y"={"z":{}}`, `1 "e"={}`, `1 "l"=[{"no":1}]`}
	if fmt.Sprint(got) != fmt.Sprint(want) || flaw != nil || err != nil {
		t.Errorf("got %q, %v, %v; want %q", got, flaw, err, want)
	}
	if _, marks, _, _ := Lenient(nil, []byte(`{"a":{`+strings.Repeat(`"x":1,`, 100)+`"y":2}}`), 9); marks != nil {
		t.Errorf("%d marks of too many", len(marks))
	}
}

// FuzzCompact holds the scanner against encoding/json, which lets bad UTF-8 through and
// stops at 10,000 levels, and the walkers against the scanner.
func FuzzCompact(f *testing.F) {
	for _, s := range []string{`{"a":[1,2,{"b":"\ud83d\ude00"}],"c":-1.5e+3}`, " [ ] ", `"\u12`, "\"\xff\"", "[[[[", `{"a":1,}`, "01", "tru", `"a\`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Compact(nil, in, 10000)
		if ok := json.Valid(in) && utf8.Valid(in); ok != (err == nil) {
			t.Fatalf("Compact(%q): %v, encoding/json valid: %v", in, err, ok)
		}
		Members(in, func(string, []byte) error { return nil })
		Elements(in, func(int, []byte) error { return nil })
		Pointer(in, "/a/0")
		if err != nil {
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, in); err != nil || want.String() != string(got) {
			t.Fatalf("Compact(%q) = %q, want %q", in, got, want.Bytes())
		}
		if bytes.ContainsAny(got, "\n\r") {
			t.Fatalf("a raw new line in %q", got)
		}
		buf := bytes.Clone(in)
		if again, err := Compact(buf[:0], buf, 10000); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("in place %q, %v; want %q", again, err, got)
		}
		checkWalk(t, got)
		checkMarks(t, in, got)
	})
}

// checkMarks holds the marks against the walk.
func checkMarks(t *testing.T, in, compact []byte) {
	_, marks, _, err := Lenient(nil, in, 10000)
	if err != nil {
		t.Fatalf("Lenient(%q): %v", in, err)
	}
	if marks == nil || compact[0] != '{' {
		return
	}
	n := 0
	match := func(depth int) func(key, value []byte) error {
		return func(key, value []byte) error {
			for n < len(marks) && marks[n].Depth > depth {
				n++ // of a member that is walked below
			}
			if n == len(marks) {
				t.Fatalf("%q has more members than %v", compact, marks)
			}
			m := marks[n]
			if n++; m.Depth != depth || string(compact[m.Key:m.KeyEnd]) != string(key) || string(compact[m.Value:m.End]) != string(value) {
				t.Fatalf("%q: mark %v is not %s=%s", compact, m, key, value)
			}
			return nil
		}
	}
	if err := RawMembers(compact, match(1)); err != nil {
		t.Fatal(err)
	}
}

func checkWalk(t *testing.T, v []byte) {
	switch v[0] {
	case '{':
		out := []byte{'{'}
		err := RawMembers(v, func(raw, value []byte) error {
			key, _ := unquote(raw)
			out = append(append(append(append(out, raw...), ':'), value...), ',')
			var want string
			if err := json.Unmarshal(raw, &want); err != nil || want != key {
				t.Fatalf("key %s decoded to %q, want %q, %v", raw, key, want, err)
			}
			checkWalk(t, value)
			return nil
		})
		if len(out) > 1 {
			out = out[:len(out)-1]
		}
		if out = append(out, '}'); err != nil || !bytes.Equal(out, v) {
			t.Fatalf("Members of %s gave %s, %v", v, out, err)
		}
	case '[':
		out := []byte{'['}
		err := Elements(v, func(_ int, value []byte) error {
			out = append(append(out, value...), ',')
			checkWalk(t, value)
			return nil
		})
		if len(out) > 1 {
			out = out[:len(out)-1]
		}
		if out = append(out, ']'); err != nil || !bytes.Equal(out, v) {
			t.Fatalf("Elements of %s gave %s, %v", v, out, err)
		}
	case '"':
		var want string
		s, lone := unquote(v)
		if err := json.Unmarshal(v, &want); err != nil || s != want {
			t.Fatalf("unquote(%s) = %q %v, want %q, %v", v, s, lone, want, err)
		}
	}
}

// document8K is like an agent's state: nested messages, short and long strings, numbers.
func document8K() []byte {
	var b bytes.Buffer
	b.WriteString(`{"turn":17,"messages":[`)
	for i := 0; b.Len() < 8<<10-300; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":"assistant","id":"msg_%08d","content":[{"type":"text","text":"I looked at the file and \"found\" the bug; the fix is in line %d.\n"}],"usage":{"input_tokens":%d,"cost":0.0%d}}`, i, i*7, i*131, i)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func BenchmarkCompact8K(b *testing.B) {
	doc := document8K()
	dst := make([]byte, 0, len(doc))
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := Compact(dst, doc, 1000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMembers8K(b *testing.B) {
	doc := document8K()
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if err := RawMembers(doc, func(_, _ []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodingJSONValid8K(b *testing.B) {
	doc := document8K()
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if !json.Valid(doc) {
			b.Fatal("not valid")
		}
	}
}

package rawjson

import (
	"errors"
	"strings"
	"testing"
)

func TestCompactKeepsWhatWasSent(t *testing.T) {
	for in, want := range map[string]string{
		" { \"b\" : 1.0 , \"a\" : [ 1e400 , 123456789012345678901234567890 ] , \"b\" : null } \n": `{"b":1.0,"a":[1e400,123456789012345678901234567890],"b":null}`,
		`"\u00e9\/\ud800 <&>"`: `"\u00e9\/\ud800 <&>"`,
		"[\t]":                 "[]", "{ }": "{}", "-0.0e-0": "-0.0e-0", " true": "true",
	} {
		got, err := Compact(nil, []byte(in), 10)
		if err != nil || string(got) != want {
			t.Errorf("Compact(%q) = %q, %v, want %q", in, got, err, want)
		}
		buf := []byte(in)
		if got, err = Compact(buf[:0], buf, 10); err != nil || string(got) != want {
			t.Errorf("in place: Compact(%q) = %q, %v", in, got, err)
		}
	}
}

func TestCompactRefusesByKind(t *testing.T) {
	for in, want := range map[string]error{
		"": ErrSyntax, "{": ErrSyntax, "[1,]": ErrSyntax, `{"a":1,}`: ErrSyntax, "01": ErrSyntax, "1.": ErrSyntax,
		"1e": ErrSyntax, "-": ErrSyntax, "nul": ErrSyntax, "1 2": ErrSyntax, `"\x"`: ErrSyntax, `"\u12g4"`: ErrSyntax,
		"\"\n\"": ErrSyntax, `{"a" 1}`: ErrSyntax, "{1:2}": ErrSyntax, "[}": ErrSyntax, `"`: ErrSyntax, "\ufeff1": ErrSyntax,
		"\"\xff\"": ErrUTF8, "\"\xed\xa0\x80\"": ErrUTF8, "\"\xc0\x80\"": ErrUTF8,
		"[[[[1]]]]": ErrDepth, strings.Repeat("[", 100000): ErrDepth, strings.Repeat(`{"a":`, 100000): ErrDepth,
	} {
		if _, err := Compact(nil, []byte(in), 3); !errors.Is(err, want) {
			t.Errorf("Compact(%.20q) = %v, want %v", in, err, want)
		}
	}
	if err := Valid([]byte("[[[1]]]"), 3); err != nil {
		t.Error(err)
	}
}

func TestMembersAndPointer(t *testing.T) {
	doc := []byte(`{"a":1,"\u0062":{"x/y~":[10,{"k":"v"}]},"a":2}`)
	var got []string
	if err := Members(doc, func(k string, v []byte) error { got = append(got, k+"="+string(v)); return nil }); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(got, ";"); s != `a=1;b={"x/y~":[10,{"k":"v"}]};a=2` {
		t.Fatal(s)
	}
	for p, want := range map[string]string{"/a": "2", "/b/x~1y~0/1/k": `"v"`, "/b/x~1y~0/0": "10", "/b/x~1y~0/00": "", "/c": "", "/a/b": ""} {
		if v, err := Pointer(doc, p); err != nil || string(v) != want {
			t.Errorf("%s = %q, %v, want %q", p, v, err, want)
		}
	}
	for _, bad := range []string{"a", "/~", "/~2"} {
		if _, err := Pointer(doc, bad); err == nil {
			t.Errorf("pointer %q was taken", bad)
		}
	}
	for in, want := range map[string]bool{`"\ud83d\ude00"`: false, `"\ud83d"`: true, `"\ude00"`: true, `"\\ud83d"`: false, `"\ud83d\u0041"`: true} {
		if LoneSurrogate([]byte(in)) != want {
			t.Errorf("LoneSurrogate(%s) is not %v", in, want)
		}
	}
}

func BenchmarkCompact(b *testing.B) {
	doc := []byte(`[` + strings.Repeat(`{"role":"tool","n":12,"text":"the agent reads a file and decides what to do next"},`, 100) + `1]`)
	dst := make([]byte, 0, len(doc))
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := Compact(dst, doc, 1000); err != nil {
			b.Fatal(err)
		}
	}
}

// Package rawjson handles a client's JSON without ever turning it into Go values, so that
// what was sent is what is kept: member order, duplicate members, number literals and
// escapes stay byte for byte, and only white space between tokens goes.
//
// Compact and Valid are strict (RFC 8259, UTF-8, a bound on depth) and are meant for bytes
// from outside. Members, Elements, Member, Pointer and Unquote are meant for bytes that one of those
// two has let through; on others they never panic, but need not notice every mistake.
//
// Compact JSON holds no raw new line: inside strings one must be escaped, and between
// tokens it is white space.
package rawjson

import "errors"

// The three ways in which a text can be bad. Every *Error matches one with errors.Is.
var (
	ErrSyntax = errors.New("invalid JSON")
	ErrDepth  = errors.New("JSON nested too deep")
	ErrUTF8   = errors.New("invalid UTF-8 in a JSON string")
)

// Error says what is wrong with a text and where.
type Error struct {
	Err    error // ErrSyntax, ErrDepth or ErrUTF8
	Offset int   // in bytes from the start of the text
	Detail string
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Err.Error() + " at byte " + itoa(e.Offset)
	}
	return e.Err.Error() + " at byte " + itoa(e.Offset) + ": " + e.Detail
}

// Unwrap gives ErrSyntax, ErrDepth or ErrUTF8.
func (e *Error) Unwrap() error { return e.Err }

// Compact appends src to dst without the white space between its tokens. src must be one
// JSON value; arrays and objects may nest maxDepth deep (0: no bound). dst may be src[:0],
// to work in place. Lone surrogate escapes (`\ud800`) are let through; Unquote tells them.
// On error dst is returned as it came, but in place src is then spoilt.
func Compact(dst, src []byte, maxDepth int) ([]byte, error) {
	s := scanner{src: src, dst: dst, compact: true, maxDepth: maxDepth}
	if err := s.document(); err != nil {
		return dst, err
	}
	return s.dst, nil
}

// Valid says what Compact would find wrong with src, or nil.
func Valid(src []byte, maxDepth int) error {
	s := scanner{src: src, maxDepth: maxDepth}
	return s.document()
}

// Value checks the one JSON value that starts at src[i] (after white space) and returns
// where it starts and ends.
func Value(src []byte, i, maxDepth int) (start, end int, err error) {
	s := scanner{src: src, i: i, maxDepth: maxDepth}
	s.space()
	start = s.i
	err = s.value()
	return start, s.i, err
}

func itoa(n int) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}

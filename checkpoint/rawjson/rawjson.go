// Package rawjson keeps the client's JSON as it was sent: it validates, drops the white
// space between tokens and finds members, and never turns a value into a Go value, so
// that member order, duplicate members, number literals and escapes survive.
package rawjson

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Why a text is refused; an *Error matches one of them with errors.Is.
var (
	ErrSyntax = errors.New("not valid JSON")
	ErrUTF8   = errors.New("not valid UTF-8")
	ErrDepth  = errors.New("nested too deeply")
)

// Error says what is wrong with a text and where.
type Error struct {
	Err    error // ErrSyntax, ErrUTF8 or ErrDepth
	Offset int   // in bytes from the start of the text
	What   string
}

func (e *Error) Error() string {
	if e.What == "" {
		return fmt.Sprintf("%v at byte %d", e.Err, e.Offset)
	}
	return fmt.Sprintf("%v at byte %d: %s", e.Err, e.Offset, e.What)
}

// Unwrap gives the class.
func (e *Error) Unwrap() error { return e.Err }

// Compact checks that src is one JSON value (RFC 8259, UTF-8, at most depth levels of
// arrays and objects) and appends it to dst without the white space between its tokens.
// Lone surrogate escapes are let through. dst may be src[:0].
func Compact(dst, src []byte, depth int) ([]byte, error) {
	s := scanner{src: src, dst: dst, depth: depth, copy: true}
	err := s.document()
	return s.dst, err
}

// Valid is Compact without the copy.
func Valid(src []byte, depth int) error {
	s := scanner{src: src, depth: depth}
	return s.document()
}

// Value checks the one JSON value that starts at src[i] (after white space) and returns
// where it starts and ends.
func Value(src []byte, i, depth int) (start, end int, err error) {
	s := scanner{src: src, i: i, mark: i, depth: depth}
	s.space()
	start = s.i
	err = s.value()
	return start, s.i, err
}

// Space returns the index of the first byte at or after i that is not white space.
func Space(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\t' || src[i] == '\r') {
		i++
	}
	return i
}

// scanner walks over src once. With copy, dst gets what lies between white spaces, in
// runs that start at mark.
type scanner struct {
	src, dst []byte
	i, mark  int
	depth    int
	copy     bool
}

func (s *scanner) document() error {
	s.space()
	if err := s.value(); err != nil {
		return err
	}
	s.space()
	if s.i < len(s.src) {
		return s.syntax("text after the value")
	}
	s.flush()
	return nil
}

func (s *scanner) syntax(what string) error {
	if s.i >= len(s.src) {
		what = "it ends too early"
	}
	return &Error{ErrSyntax, s.i, what}
}

func (s *scanner) flush() {
	if s.copy {
		s.dst = append(s.dst, s.src[s.mark:s.i]...)
	}
}

func (s *scanner) space() {
	if s.i < len(s.src) && s.src[s.i] > ' ' {
		return
	}
	if end := Space(s.src, s.i); end > s.i {
		s.flush()
		s.i, s.mark = end, end
	}
}

// value scans one value without recursion: a text of any depth costs no stack.
func (s *scanner) value() error {
	var small [64]byte
	open := small[:0] // the brackets that are open
	for {
		// A value is due.
		if s.i >= len(s.src) {
			return s.syntax("")
		}
		var err error
		switch c := s.src[s.i]; {
		case c == '"':
			err = s.str()
		case c == '{' || c == '[':
			if len(open) >= s.depth {
				return &Error{ErrDepth, s.i, fmt.Sprintf("more than %d levels", s.depth)}
			}
			s.i++
			s.space()
			if s.i < len(s.src) && s.src[s.i] == c+2 { // '}' and ']' are two after their openers
				s.i++
				break
			}
			open = append(open, c)
			if c == '{' {
				if err := s.key(); err != nil {
					return err
				}
			}
			continue
		case c == '-' || c >= '0' && c <= '9':
			err = s.number()
		case c == 't':
			err = s.word("true")
		case c == 'f':
			err = s.word("false")
		case c == 'n':
			err = s.word("null")
		default:
			err = s.syntax("a value is due")
		}
		if err != nil {
			return err
		}
		// A value has ended: close what it ends.
		for {
			if len(open) == 0 {
				return nil
			}
			s.space()
			if s.i >= len(s.src) {
				return s.syntax("")
			}
			c := s.src[s.i]
			in := open[len(open)-1]
			if c == in+2 {
				s.i++
				open = open[:len(open)-1]
				continue
			}
			if c != ',' {
				return s.syntax("a comma or the end of the array or object is due")
			}
			s.i++
			s.space()
			if in == '{' {
				if err := s.key(); err != nil {
					return err
				}
			}
			break
		}
	}
}

// key scans `"name" :` and the white space behind it.
func (s *scanner) key() error {
	if s.i >= len(s.src) || s.src[s.i] != '"' {
		return s.syntax("a member name is due")
	}
	if err := s.str(); err != nil {
		return err
	}
	s.space()
	if s.i >= len(s.src) || s.src[s.i] != ':' {
		return s.syntax("a colon is due")
	}
	s.i++
	s.space()
	return nil
}

func (s *scanner) word(w string) error {
	if len(s.src)-s.i < len(w) || string(s.src[s.i:s.i+len(w)]) != w {
		return s.syntax("a value is due")
	}
	s.i += len(w)
	return nil
}

// plain marks the bytes of a string that need no look: ASCII but quote, backslash, controls.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return
}()

func (s *scanner) str() error {
	src := s.src
	i := s.i + 1
	for {
		for i+8 <= len(src) && plain[src[i]] && plain[src[i+1]] && plain[src[i+2]] && plain[src[i+3]] &&
			plain[src[i+4]] && plain[src[i+5]] && plain[src[i+6]] && plain[src[i+7]] {
			i += 8
		}
		for i < len(src) && plain[src[i]] {
			i++
		}
		s.i = i
		if i >= len(src) {
			return s.syntax("")
		}
		switch c := src[i]; {
		case c == '"':
			s.i++
			return nil
		case c == '\\':
			n := escape(src[i:])
			if n == 0 {
				return s.syntax("a bad escape in a string")
			}
			i += n
		case c < 0x20:
			return s.syntax("a control character in a string")
		default:
			r, n := utf8.DecodeRune(src[i:])
			if r == utf8.RuneError && n <= 1 {
				return &Error{ErrUTF8, i, ""}
			}
			i += n
		}
	}
}

// escape returns the length of the escape that b starts with, 0 for a bad one.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) >= 6 && hex(b[2]) >= 0 && hex(b[3]) >= 0 && hex(b[4]) >= 0 && hex(b[5]) >= 0 {
			return 6
		}
	}
	return 0
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.src) && s.src[s.i] >= '0' && s.src[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) number() error {
	if s.src[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.src) && s.src[s.i] == '0' {
		s.i++
	} else if !s.digits() {
		return s.syntax("a digit is due")
	}
	if s.i < len(s.src) && s.src[s.i] == '.' {
		s.i++
		if !s.digits() {
			return s.syntax("a digit is due after the point")
		}
	}
	if s.i < len(s.src) && (s.src[s.i] == 'e' || s.src[s.i] == 'E') {
		s.i++
		if s.i < len(s.src) && (s.src[s.i] == '+' || s.src[s.i] == '-') {
			s.i++
		}
		if !s.digits() {
			return s.syntax("a digit is due in the exponent")
		}
	}
	return nil
}

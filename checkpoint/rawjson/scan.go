package rawjson

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// scanner reads one value in one pass, without recursion.
type scanner struct {
	src      []byte
	i        int
	dst      []byte // with compact: what was kept so far, less src[run:i]
	run      int
	compact  bool
	lenient  bool // note what is too deep or not UTF-8 in flaw and go on
	flaw     error
	marks    *[]Mark // nil: none are wanted
	marked   int     // down to this depth
	open     [maxMarked + 1]int
	maxDepth int
}

func (s *scanner) fail(at int, detail string) error {
	return &Error{Err: ErrSyntax, Offset: at, Detail: detail}
}

func (s *scanner) flawed(err *Error) error {
	if !s.lenient {
		return err
	}
	if s.flaw == nil {
		s.flaw = err
	}
	return nil
}

// document is one value with nothing but white space around it.
func (s *scanner) document() error {
	s.space()
	if err := s.value(); err != nil {
		return err
	}
	s.space()
	if s.i < len(s.src) {
		return s.fail(s.i, "something follows the value")
	}
	s.flush()
	return nil
}

func (s *scanner) flush() {
	if s.compact {
		s.dst = append(s.dst, s.src[s.run:s.i]...)
		s.run = s.i
	}
}

// space skips white space. Callers on the fast path look at the byte first.
func (s *scanner) space() {
	i := s.i
	for i < len(s.src) && (s.src[i] == ' ' || s.src[i] == '\n' || s.src[i] == '\r' || s.src[i] == '\t') {
		i++
	}
	if i == s.i {
		return
	}
	s.flush()
	s.i, s.run = i, i
}

// next skips white space and gives the byte there, 0 at the end (which fits no token).
func (s *scanner) next() byte {
	if s.i < len(s.src) {
		if c := s.src[s.i]; c > ' ' {
			return c
		}
		s.space()
		if s.i < len(s.src) {
			return s.src[s.i]
		}
	}
	return 0
}

// value reads one value from s.i, which is not white space. The kinds of the containers
// that are open are bits: 1 an object, 0 an array.
func (s *scanner) value() error {
	var few [16]uint64
	open := few[:]
	depth := 0
	inObject := false
	for {
		c := s.next()
		switch {
		case c == '"':
			if err := s.string(); err != nil {
				return err
			}
		case c == '{' || c == '[':
			depth++
			if s.maxDepth > 0 && depth > s.maxDepth {
				if err := s.flawed(&Error{Err: ErrDepth, Offset: s.i, Detail: "at most " + itoa(s.maxDepth) + " levels are allowed"}); err != nil {
					return err
				}
			}
			if depth>>6 >= len(open) {
				open = append(open, make([]uint64, len(open))...)
			}
			inObject = c == '{'
			if inObject {
				open[depth>>6] |= 1 << (depth & 63)
			} else {
				open[depth>>6] &^= 1 << (depth & 63)
			}
			s.i++
			if n := s.next(); n != c+2 { // '{'+2 is '}', '['+2 is ']'
				if inObject {
					if err := s.key(depth); err != nil {
						return err
					}
				}
				continue
			}
			s.i++
			depth--
			inObject = open[depth>>6]>>(depth&63)&1 == 1
		case c == '-' || '0' <= c && c <= '9':
			if err := s.number(); err != nil {
				return err
			}
		case c == 't':
			if err := s.literal("true"); err != nil {
				return err
			}
		case c == 'f':
			if err := s.literal("false"); err != nil {
				return err
			}
		case c == 'n':
			if err := s.literal("null"); err != nil {
				return err
			}
		default:
			return s.unexpected("a value")
		}
		if depth <= s.marked && inObject {
			s.endMark(depth)
		}
		// A value has ended: close what ends with it, then step to the next.
		for {
			if depth == 0 {
				return nil
			}
			c = s.next()
			if c == ',' {
				s.i++
				break
			}
			if inObject && c != '}' || !inObject && c != ']' {
				return s.unexpected("a comma or the closing bracket")
			}
			s.i++
			depth--
			inObject = open[depth>>6]>>(depth&63)&1 == 1
			if depth <= s.marked && inObject {
				s.endMark(depth)
			}
		}
		if inObject {
			if err := s.key(depth); err != nil {
				return err
			}
		}
	}
}

// key reads a member's name and its colon.
func (s *scanner) key(depth int) error {
	if s.next() != '"' {
		return s.unexpected("a member name")
	}
	from := len(s.dst) + s.i - s.run
	if err := s.string(); err != nil {
		return err
	}
	to := len(s.dst) + s.i - s.run
	if s.next() != ':' {
		return s.unexpected("a colon")
	}
	s.i++
	if depth <= s.marked {
		s.startMark(depth, from, to)
	}
	return nil
}

func (s *scanner) unexpected(want string) error {
	if s.i >= len(s.src) {
		return s.fail(s.i, "it ends where "+want+" should be")
	}
	return s.fail(s.i, want+" should be here")
}

func (s *scanner) literal(word string) error {
	if len(s.src)-s.i < len(word) || string(s.src[s.i:s.i+len(word)]) != word {
		return s.fail(s.i, "only true, false and null are words")
	}
	s.i += len(word)
	return nil
}

func (s *scanner) number() error {
	src, i := s.src, s.i
	if src[i] == '-' {
		i++
	}
	switch {
	case i < len(src) && src[i] == '0':
		i++
	case i < len(src) && '1' <= src[i] && src[i] <= '9':
		i = digits(src, i)
	default:
		return s.fail(i, "a digit should be here")
	}
	if i < len(src) && src[i] == '.' {
		end := digits(src, i+1)
		if end == i+1 {
			return s.fail(end, "a digit should be here")
		}
		i = end
	}
	if i < len(src) && (src[i] == 'e' || src[i] == 'E') {
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		end := digits(src, i)
		if end == i {
			return s.fail(end, "a digit should be here")
		}
		i = end
	}
	s.i = i
	return nil
}

func digits(src []byte, i int) int {
	for i < len(src) && src[i]-'0' <= 9 {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// string reads a string from its opening quote on, eight bytes at a time where nothing in
// them is a quote, a backslash, a control character or not ASCII.
func (s *scanner) string() error {
	src, i := s.src, s.i+1
	for {
		for i+8 <= len(src) {
			x := binary.LittleEndian.Uint64(src[i:])
			q, b := x^(ones*'"'), x^(ones*'\\')
			// A byte's high bit is set where it is special; borrows make false marks only above a true one.
			m := (x-ones*0x20)&^x | (q-ones)&^q | (b-ones)&^b | x
			if m &= highs; m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) >> 3
			break
		}
		if i >= len(src) {
			return s.fail(len(src), "a string does not end")
		}
		switch c := src[i]; {
		case c == '"':
			s.i = i + 1
			return nil
		case c == '\\':
			n := escape(src[i+1:])
			if n == 0 {
				return s.fail(i, "no such escape")
			}
			i += 1 + n
		case c < ' ':
			return s.fail(i, "a control character must be escaped")
		case c < utf8.RuneSelf:
			i++
		default:
			_, n := utf8.DecodeRune(src[i:])
			if n == 1 {
				if err := s.flawed(&Error{Err: ErrUTF8, Offset: i}); err != nil {
					return err
				}
			}
			i += n
		}
	}
}

// escape gives the length of what follows a backslash, 0 when it is no escape.
func escape(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if _, ok := hex4(b[1:]); ok {
			return 5
		}
	}
	return 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

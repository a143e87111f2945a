package rawjson

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
)

// Members calls fn for each member of an object, in order and duplicates included. key is
// the name decoded (a lone surrogate in it becomes U+FFFD), value is the part of obj, with
// no white space around it. An error of fn ends the walk and is returned as it is.
func Members(obj []byte, fn func(key string, value []byte) error) error {
	return RawMembers(obj, func(rawKey, value []byte) error {
		key, _ := unquote(rawKey)
		return fn(key, value)
	})
}

// RawMembers is Members with the name as it is written, quotes included.
func RawMembers(obj []byte, fn func(rawKey, value []byte) error) error {
	i, err := enter(obj, '{')
	if err != nil || i < 0 {
		return err
	}
	for {
		i = Space(obj, i)
		keyEnd := i
		if i < len(obj) && obj[i] == '"' {
			keyEnd = skipString(obj, i)
		}
		if keyEnd <= i {
			return &Error{Err: ErrSyntax, Offset: i, Detail: "a member name should be here"}
		}
		colon := Space(obj, keyEnd)
		if colon >= len(obj) || obj[colon] != ':' {
			return &Error{Err: ErrSyntax, Offset: colon, Detail: "a colon should be here"}
		}
		start := Space(obj, colon+1)
		end := skip(obj, start)
		if end < 0 {
			return &Error{Err: ErrSyntax, Offset: start, Detail: "a value should be here"}
		}
		if err := fn(obj[i:keyEnd:keyEnd], obj[start:end:end]); err != nil {
			return err
		}
		next, more, err := step(obj, end, '}')
		if err != nil || !more {
			return err
		}
		i = next
	}
}

// Elements calls fn for each element of an array, in order.
func Elements(arr []byte, fn func(n int, value []byte) error) error {
	i, err := enter(arr, '[')
	if err != nil || i < 0 {
		return err
	}
	for n := 0; ; n++ {
		start := Space(arr, i)
		end := skip(arr, start)
		if end < 0 {
			return &Error{Err: ErrSyntax, Offset: start, Detail: "a value should be here"}
		}
		if err := fn(n, arr[start:end:end]); err != nil {
			return err
		}
		next, more, err := step(arr, end, ']')
		if err != nil || !more {
			return err
		}
		i = next
	}
}

// Member returns the value of an object's last member of that name, as most readers would
// choose; nil when there is none or obj is no object.
func Member(obj []byte, name string) []byte {
	var found []byte
	if err := Members(obj, func(key string, value []byte) error {
		if key == name {
			found = value
		}
		return nil
	}); err != nil {
		return nil
	}
	return found
}

// Pointer gives the part of doc that a JSON Pointer (RFC 6901) names, nil where it leads
// nowhere. The pointer "" is the whole document. One that is none is ErrSyntax.
func Pointer(doc []byte, pointer string) ([]byte, error) {
	if pointer == "" {
		return doc, nil
	}
	if pointer[0] != '/' {
		return nil, &Error{Err: ErrSyntax, Detail: "a JSON Pointer is empty or starts with a slash"}
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		for i := 0; i < len(token); i++ {
			if token[i] == '~' && (i+1 == len(token) || token[i+1] != '0' && token[i+1] != '1') {
				return nil, &Error{Err: ErrSyntax, Detail: "in a JSON Pointer ~ is written ~0 and / is written ~1"}
			}
		}
		if doc == nil {
			continue // the rest is still looked at for mistakes
		}
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		switch i := Space(doc, 0); {
		case i < len(doc) && doc[i] == '{':
			doc = Member(doc, token)
		case i < len(doc) && doc[i] == '[':
			doc = element(doc, token)
		default:
			doc = nil
		}
	}
	return doc, nil
}

func element(arr []byte, token string) []byte {
	want, err := strconv.ParseUint(token, 10, 31)
	if err != nil || token != strconv.FormatUint(want, 10) {
		return nil
	}
	var found []byte
	if err := Elements(arr, func(n int, value []byte) error {
		if n == int(want) {
			found = value
		}
		return nil
	}); err != nil {
		return nil
	}
	return found
}

// enter steps into a container; -1 says that it is empty.
func enter(b []byte, bracket byte) (int, error) {
	i := Space(b, 0)
	if i >= len(b) || b[i] != bracket {
		want := "an object"
		if bracket == '[' {
			want = "an array"
		}
		return 0, &Error{Err: ErrSyntax, Offset: i, Detail: want + " should be here"}
	}
	i = Space(b, i+1)
	if i < len(b) && b[i] == bracket+2 {
		return -1, nil
	}
	return i, nil
}

// step goes over a comma, or says that the container ends.
func step(b []byte, i int, closing byte) (next int, more bool, err error) {
	i = Space(b, i)
	switch {
	case i < len(b) && b[i] == ',':
		return i + 1, true, nil
	case i < len(b) && b[i] == closing:
		return i + 1, false, nil
	}
	return i, false, &Error{Err: ErrSyntax, Offset: i, Detail: "a comma or the closing bracket should be here"}
}

// Space returns the index of the first byte at or after i that is not white space.
func Space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skip gives the end of the value at i, or -1. It trusts that the value is valid.
func skip(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipContainer(b, i)
	}
	start := i
	for i < len(b) && b[i] > ' ' && b[i] != ',' && b[i] != '}' && b[i] != ']' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		end := i + n
		k := end
		for k > i && b[k-1] == '\\' {
			k--
		}
		i = end + 1
		if (end-k)&1 == 0 {
			return i
		}
	}
}

// skipContainer counts brackets, which outside strings match in valid JSON.
func skipContainer(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			q := x ^ (ones * '"')
			lower := x | ones*0x20 // '[' and '{', ']' and '}' differ in that bit alone
			o, c := lower^(ones*'{'), lower^(ones*'}')
			m := (q-ones)&^q | (o-ones)&^o | (c-ones)&^c
			if m &= highs; m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) >> 3
			break
		}
		if i >= len(b) {
			break
		}
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}

// Next takes the next element out of what is left of an array behind its opening bracket:
// nil at its end. It is Elements for one who cannot be called back.
func Next(rest []byte) (value, left []byte, err error) {
	i := Space(rest, 0)
	if i < len(rest) && rest[i] == ',' {
		i = Space(rest, i+1)
	}
	if i < len(rest) && rest[i] == ']' {
		return nil, nil, nil
	}
	end := skip(rest, i)
	if end < 0 {
		return nil, nil, &Error{Err: ErrSyntax, Offset: i, Detail: "a value should be here"}
	}
	return rest[i:end:end], rest[end:], nil
}

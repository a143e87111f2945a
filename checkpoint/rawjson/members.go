package rawjson

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxWalk bounds what Members and Elements walk over: they are for texts that were
// checked before with a depth of the caller's.
const maxWalk = 1 << 20

// Members calls f with each member of an object, in order, duplicates included: its name
// decoded and its value as written. An error of f ends the walk and is returned.
func Members(obj []byte, f func(key string, value []byte) error) error {
	return walk(obj, '{', func(key, value []byte, _ int) error {
		k, err := String(key)
		if err != nil {
			return err
		}
		return f(k, value)
	})
}

// Elements calls f with each element of an array.
func Elements(arr []byte, f func(i int, value []byte) error) error {
	return walk(arr, '[', func(_, value []byte, i int) error { return f(i, value) })
}

func walk(src []byte, open byte, f func(key, value []byte, n int) error) error {
	s := scanner{src: src, depth: maxWalk}
	s.space()
	if s.i >= len(src) || src[s.i] != open {
		return s.syntax(map[byte]string{'{': "an object is due", '[': "an array is due"}[open])
	}
	s.i++
	s.space()
	for n := 0; ; n++ {
		if s.i < len(src) && src[s.i] == open+2 {
			if n == 0 {
				break
			}
			return s.syntax("a value is due")
		}
		var key []byte
		if open == '{' {
			from := s.i
			if err := s.key(); err != nil {
				return err
			}
			end := from + 1
			for src[end] != '"' { // s.key has checked it: only escapes are in the way
				if src[end] == '\\' {
					end++
				}
				end++
			}
			key = src[from : end+1]
		}
		from := s.i
		if err := s.value(); err != nil {
			return err
		}
		if err := f(key, src[from:s.i:s.i], n); err != nil {
			return err
		}
		s.space()
		if s.i < len(src) && src[s.i] == ',' {
			s.i++
			s.space()
			continue
		}
		if s.i < len(src) && src[s.i] == open+2 {
			break
		}
		return s.syntax("a comma or the end of the array or object is due")
	}
	s.i++
	s.space()
	if s.i < len(src) {
		return s.syntax("text after the value")
	}
	return nil
}

// Member returns the value of an object's last member of that name, as encoding/json
// would choose; nil when there is none or obj is no object.
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

// Pointer follows a JSON Pointer (RFC 6901); nil where it leads nowhere.
func Pointer(doc []byte, pointer string) ([]byte, error) {
	if pointer == "" {
		return doc, nil
	}
	if pointer[0] != '/' {
		return nil, fmt.Errorf("a JSON Pointer is empty or starts with a slash")
	}
	for _, token := range strings.Split(pointer[1:], "/") {
		for i := 0; i < len(token); i++ {
			if token[i] == '~' && (i+1 == len(token) || token[i+1] != '0' && token[i+1] != '1') {
				return nil, fmt.Errorf("in a JSON Pointer ~ is written ~0 and / is written ~1")
			}
		}
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		i := Space(doc, 0)
		switch {
		case i < len(doc) && doc[i] == '{':
			doc = Member(doc, token)
		case i < len(doc) && doc[i] == '[':
			doc = element(doc, token)
		default:
			doc = nil
		}
		if doc == nil {
			return nil, nil
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
	if err := Elements(arr, func(i int, value []byte) error {
		if i == int(want) {
			found = value
		}
		return nil
	}); err != nil {
		return nil
	}
	return found
}

// String decodes a JSON string. A lone surrogate escape becomes U+FFFD.
func String(raw []byte) (string, error) {
	if len(raw) >= 2 && raw[0] == '"' && raw[len(raw)-1] == '"' {
		simple := true
		for _, c := range raw[1 : len(raw)-1] {
			if !plain[c] {
				simple = false
				break
			}
		}
		if simple {
			return string(raw[1 : len(raw)-1]), nil
		}
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// LoneSurrogate reports whether a valid JSON text has an escape of half a character.
func LoneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			i++
			continue
		}
		r, n := unit(raw[i:])
		if n != 6 || !utf16.IsSurrogate(r) {
			i += max(n, 2)
			continue
		}
		low, m := unit(raw[i+n:])
		if m != 6 || utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		i += n + m
	}
	return false
}

// unit decodes a \uXXXX escape.
func unit(b []byte) (rune, int) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, 0
	}
	var r rune
	for _, c := range b[2:6] {
		r = r<<4 | rune(hex(c))
	}
	return r, 6
}

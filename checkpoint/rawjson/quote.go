package rawjson

import (
	"bytes"
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrSurrogate says that a string holds half of a surrogate pair, which is no character.
var ErrSurrogate = errors.New("a lone surrogate escape stands for no character")

// Unquote decodes a JSON string, quotes included. A lone surrogate escape is ErrSurrogate,
// anything but a string ErrSyntax.
func Unquote(token []byte) (string, error) {
	if !IsString(token) {
		return "", &Error{Err: ErrSyntax, Detail: "a string should be here"}
	}
	s, lone := unquote(token)
	if lone {
		return "", ErrSurrogate
	}
	return s, nil
}

// String is Unquote that takes U+FFFD for a lone surrogate escape.
func String(token []byte) (string, error) {
	if !IsString(token) {
		return "", &Error{Err: ErrSyntax, Detail: "a string should be here"}
	}
	s, _ := unquote(token)
	return s, nil
}

// LoneSurrogate reports whether a valid JSON text has an escape of half a character.
func LoneSurrogate(text []byte) bool {
	for i := 0; ; {
		n := bytes.IndexByte(text[i:], '\\')
		if n < 0 || i+n+1 >= len(text) {
			return false
		}
		i += n
		if text[i+1] != 'u' {
			i += 2
			continue
		}
		r, ok := hex4(text[i+2:])
		i += 2
		if !ok || !utf16.IsSurrogate(r) {
			continue
		}
		if i += 4; i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return true
		}
		if low, ok := hex4(text[i+2:]); !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		i += 6
	}
}

// IsString says whether a value is a string.
func IsString(value []byte) bool {
	return len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"'
}

// unquote decodes a string known to be valid and says whether a lone surrogate became U+FFFD.
func unquote(token []byte) (string, bool) {
	in := token[1 : len(token)-1]
	at := bytes.IndexByte(in, '\\')
	if at < 0 {
		return string(in), false
	}
	out := append(make([]byte, 0, len(in)), in[:at]...)
	lone := false
	for in = in[at:]; len(in) > 0; {
		if in[0] != '\\' || len(in) < 2 {
			n := bytes.IndexByte(in[1:], '\\') + 1
			if n == 0 {
				n = len(in)
			}
			out = append(out, in[:n]...)
			in = in[n:]
			continue
		}
		c := in[1]
		in = in[2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := hex4(in)
			if !ok {
				return string(out), true
			}
			in = in[4:]
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if len(in) >= 6 && in[0] == '\\' && in[1] == 'u' {
					if low, ok := hex4(in[2:]); ok {
						pair = utf16.DecodeRune(r, low)
					}
				}
				if r = pair; r == utf8.RuneError {
					lone = true
				} else {
					in = in[6:]
				}
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		out = append(out, c)
	}
	return string(out), lone
}

// AppendQuote appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendQuote(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

package storage

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// decodeRecord reads the value of a record's line. Every start and every audit reads many:
// those spelled as encodeRecord spells them take a short way, encoding/json the rest.
func decodeRecord(l line) (r record, err error) {
	if !r.plain(l.body) {
		r = record{}
		err = json.Unmarshal(l.body, &r)
	}
	r.sum = l.sum
	return r, err
}

// plain is false for what it does not know to mean the same to encoding/json.
func (r *record) plain(b []byte) bool {
	if len(b) < 2 || b[0] != '{' {
		return false
	}
	for at := 1; ; at++ {
		name, ok := plainText(b[at:])
		at += len(name) + 3
		if !ok || at >= len(b)-1 || b[at-1] != ':' {
			return false
		}
		var n int
		switch c := b[at]; {
		case c == '"':
			text, ok := plainText(b[at:])
			if n = len(text) + 2; !ok || !r.text(string(name), text) {
				return false
			}
		case '0' <= c && c <= '9':
			for n < len(b)-at && '0' <= b[at+n] && b[at+n] <= '9' {
				n++
			}
			if !r.number(string(name), b[at:at+n]) {
				return false
			}
		case c == '{':
			from, to, err := rawjson.Value(b, at, 1100)
			if n = to - at; err != nil || from != at || !r.object(string(name), b[from:to]) {
				return false
			}
		default:
			return false
		}
		switch at += n; {
		case at == len(b)-1 && b[at] == '}':
			return true
		case at >= len(b)-1 || b[at] != ',':
			return false
		}
	}
}

// plainText is what stands between quotes, if it stands for itself.
func plainText(b []byte) (text []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, false
	}
	n := bytes.IndexByte(b[1:], '"')
	for _, c := range b[1 : 1+max(0, n)] {
		if c < ' ' || c > '~' || c == '\\' {
			return nil, false
		}
	}
	return b[1 : 1+max(0, n)], n >= 0
}

func (r *record) text(name string, text []byte) bool {
	var err error
	switch name {
	case "type":
		r.Type = string(text)
	case "session_id":
		err = r.SessionID.UnmarshalText(text)
	case "checkpoint_id":
		err = r.CheckpointID.UnmarshalText(text)
	case "store":
		err = r.Store.UnmarshalText(text)
	case "at":
		err = r.At.UnmarshalText(text)
	case "digest":
		r.Digest = string(text)
	case "previous":
		r.Previous = string(text)
	case "sha256":
		r.Sum = string(text)
	case "file":
		r.File = string(text)
	default:
		return false
	}
	return err == nil
}

func (r *record) number(name string, digits []byte) bool {
	n, err := strconv.ParseUint(string(digits), 10, 63)
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	if int64(int(n)) != int64(n) {
		return false
	}
	switch name {
	case "version":
		r.Version = int(n)
	case "segment":
		r.Segment = n
	case "group":
		r.Group = n
	case "lines":
		r.Lines = int(n)
	case "first_event":
		r.FirstEvent = n
	case "count":
		r.Count = int(n)
	case "number":
		r.Number = n
	case "bytes":
		r.Bytes = int64(n)
	case "sessions_created":
		r.Created = n
	default:
		return false
	}
	return true
}

func (r *record) object(name string, raw []byte) bool {
	switch {
	case name == "event" && r.Event == nil:
		r.Event = new(checkpoint.Event)
		return json.Unmarshal(raw, r.Event) == nil
	case name == "session" && r.Session == nil:
		r.Session = new(sessionMeta)
		return json.Unmarshal(raw, r.Session) == nil
	}
	return false
}

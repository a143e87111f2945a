package transcript

import (
	"bytes"
	"iter"
)

// lines gives each line with its line feed, and its place. The last may have none.
func lines(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for at := 0; at < len(data); {
			end := len(data)
			if n := bytes.IndexByte(data[at:], '\n'); n >= 0 {
				end = at + n + 1
			}
			if !yield(at, data[at:end]) {
				return
			}
			at = end
		}
	}
}

// Cut gives the part of a transcript from which its agent can go on: the longest prefix
// that ends in a tool result after which no call is open. Where no call was ever
// finished it is all that stands before the first call. tail keeps what follows the last
// result as well, words of user and agent, up to a call without result.
// A last line that was torn (by a crash, or by a copy taken while it was written) is
// dropped. A user's next prompt ends the calls before it: they will have no result.
func Cut(format string, data []byte, tail bool) []byte {
	decode := decoders[format]
	if decode == nil {
		return nil
	}
	var atResult, atRest int
	sawResult := false
	open := map[string]bool{}
	for at, line := range lines(data) {
		if line[len(line)-1] != '\n' && !whole(line) {
			break
		}
		e := decode(line)
		if e.prompt != "" {
			clear(open)
		}
		for _, o := range e.opened {
			open[o.id] = true
		}
		for _, r := range e.done {
			delete(open, r.id)
		}
		if len(open) > 0 {
			continue
		}
		atRest = at + len(line)
		if len(e.done) > 0 {
			atResult, sawResult = atRest, true
		}
	}
	if sawResult && !tail {
		return data[:atResult]
	}
	return data[:atRest]
}

// whole says that a line without line feed is an object to its end.
func whole(line []byte) bool {
	var any struct{}
	return decode(line, &any) && bytes.HasPrefix(bytes.TrimSpace(line), []byte("{"))
}

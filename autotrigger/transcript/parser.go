// Package transcript reads agents' transcripts: the JSON lines that they append as they work.
package transcript

import "github.com/forge-cpd/forge-cpd/checkpoint"

// Call is a tool call that a line shows to be finished.
type Call struct {
	Cause checkpoint.Cause // tool_call, or error when the call failed
	Tool  string           // its name, "" when no line told it
	ID    string           // the agent's id of the call, "" when it has none
}

// Parser takes a transcript's lines in order and remembers what later ones refer to, such
// as the names of calls. It is not safe for concurrent use.
type Parser interface {
	// Line takes line n, counted from 1, without its line feed, and returns the calls that
	// it finishes. A line that is no JSON, or of an unknown type, finishes none. b is only
	// valid during the call.
	Line(n int, b []byte) []Call
}

package autotrigger

import (
	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// NewParser makes a parser of a watch's format; for jsonl with the watch's match.
type NewParser func(format string, match *checkpoint.Match) (transcript.Parser, error)

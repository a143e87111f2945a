package storage

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// appendContext renders a context as encoding/json would, for less: it is a part of each create.
func appendContext(b []byte, c *checkpoint.Context) ([]byte, error) {
	b = appendTime(append(b, `{"captured_at":`...), c.CapturedAt)
	b = appendTime(append(b, `,"started_at":`...), c.StartedAt)
	if c.PID != 0 {
		b = strconv.AppendInt(append(b, `,"pid":`...), int64(c.PID), 10)
	}
	if c.UID != nil {
		b = strconv.AppendUint(append(b, `,"uid":`...), uint64(*c.UID), 10)
	}
	if c.WorkingDir != "" {
		b = rawjson.AppendQuote(append(b, `,"working_dir":`...), c.WorkingDir)
	}
	b = appendMap(append(b, `,"env_vars":`...), c.EnvVars, rawjson.AppendQuote)
	b = rawjson.AppendQuote(append(b, `,"hostname":`...), c.Hostname)
	if c.Git != nil {
		git, err := encode(c.Git)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"git":`...), git...)
	}
	if len(c.Files) > 0 {
		files, err := encode(c.Files)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"files":`...), files...)
	}
	b = rawjson.AppendQuote(append(b, `,"state_source":`...), string(c.StateSource))
	b = appendMap(append(b, `,"metrics":`...), c.Metrics, func(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) })
	if len(c.Detail) > 0 {
		detail, err := encode(c.Detail)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"trigger_detail":`...), detail...)
	}
	if c.ImportedSequence != 0 {
		b = strconv.AppendUint(append(b, `,"imported_sequence_number":`...), c.ImportedSequence, 10)
	}
	return append(b, '}'), nil
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

func appendMap[V any](b []byte, m map[string]V, value func([]byte, V) []byte) []byte {
	b = append(b, '{')
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = value(append(rawjson.AppendQuote(b, k), ':'), m[k])
	}
	return append(b, '}')
}

func appendTags(b []byte, tags []string) []byte {
	b = append(b, '[')
	for i, tag := range tags {
		if i > 0 {
			b = append(b, ',')
		}
		b = rawjson.AppendQuote(b, tag)
	}
	return append(b, ']')
}

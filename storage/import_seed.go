package storage

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// seedCheckpoint reads an entry of forge-reasoning 0.1. Its checksum was over another
// program's rendering, so it comes in unverified, as metadata.
func seedCheckpoint(raw []byte) (incoming, error) {
	var e struct {
		ID        string          `json:"id"`
		SessionID string          `json:"session_id"`
		Sequence  uint64          `json:"sequence_number"`
		Timestamp time.Time       `json:"timestamp"`
		Message   string          `json:"message"`
		Tags      []string        `json:"tags"`
		Trigger   json.RawMessage `json:"trigger"`
		Parent    *string         `json:"parent_id"`
		Checksum  string          `json:"checksum"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return incoming{}, err
	}
	c := &NewCheckpoint{Message: e.Message, Tags: e.Tags}
	var err error
	if c.ID, err = checkpoint.ParseID(e.ID); err != nil {
		return incoming{}, err
	}
	if c.SessionID, err = checkpoint.ParseID(e.SessionID); err != nil {
		return incoming{}, fmt.Errorf("session_id: %w", err)
	}
	if e.Parent != nil {
		if c.ParentID, err = checkpoint.ParseID(*e.Parent); err != nil {
			return incoming{}, fmt.Errorf("parent_id: %w", err)
		}
	}
	if c.Trigger, c.Cause, err = seedTrigger(e.Trigger); err != nil {
		return incoming{}, err
	}
	if c.State, err = rawjson.Compact(nil, orNull(rawjson.Member(raw, "state")), 1000); err != nil {
		return incoming{}, fmt.Errorf("state: %w", err)
	}
	meta, err := rawjson.Compact(nil, orObject(rawjson.Member(raw, "metadata")), 1000)
	if err != nil || meta[0] != '{' {
		return incoming{}, fmt.Errorf("metadata is no object")
	}
	text, err := encode(e.Checksum)
	if err != nil {
		return incoming{}, err
	}
	sep := ","
	if len(meta) == 2 {
		sep = ""
	}
	c.Metadata = append(meta[:len(meta)-1], sep+`"unverified_checksum":`+string(text)+"}"...)
	c.Context = checkpoint.Context{CapturedAt: e.Timestamp.UTC(), StartedAt: e.Timestamp.UTC()}
	d, err := newDraft(c)
	if err != nil {
		return incoming{}, err
	}
	d.number(e.Sequence, e.Timestamp.UTC(), checkpoint.ID{})
	in := incoming{draft: d, again: c}
	if notes := rawjson.Member(raw, "annotations"); notes != nil {
		if err := json.Unmarshal(notes, &in.notes); err != nil {
			in.notes = nil // of an unknown shape: the checkpoint itself is what counts
		}
	}
	return in, nil
}

func orNull(b []byte) []byte {
	if b == nil {
		return []byte("null")
	}
	return b
}

func orObject(b []byte) []byte {
	if b == nil || string(b) == "null" {
		return []byte("{}")
	}
	return b
}

// seedTrigger reads "Manual", "Scheduled" and {"Automatic":"HypothesisStatusChange"}.
func seedTrigger(raw []byte) (checkpoint.Trigger, checkpoint.Cause, error) {
	if name, err := rawjson.String(raw); err == nil {
		switch name {
		case "Manual":
			return checkpoint.Manual, "", nil
		case "Scheduled":
			return checkpoint.Scheduled, checkpoint.CauseInterval, nil
		}
	} else if name, err := rawjson.String(rawjson.Member(raw, "Automatic")); err == nil {
		if c := checkpoint.Cause(snake(name)); slices.Contains(checkpoint.Causes, c) {
			return checkpoint.Automatic, c, nil
		}
	}
	return "", "", fmt.Errorf("trigger %.64s is not known", raw)
}

// snake writes CamelCase as camel_case and leaves camel_case alone.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

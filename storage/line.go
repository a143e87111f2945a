package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// Every line of every file of the store looks like one of these two, byte for byte:
//
//	{"checksum":"sha256:<64 hex>","checkpoint":{…}}
//	{"checksum":"sha256:<64 hex>","record":{…}}
//
// The checksum is over the bytes of the second value.
const (
	lineStart       = `{"checksum":"sha256:`
	checkpointStart = `","checkpoint":`
	recordStart     = `","record":`
	lineEnd         = "}\n"
	hexBytes        = 2 * sha256.Size

	checkpointHeader = len(lineStart) + hexBytes + len(checkpointStart)
	recordHeader     = len(lineStart) + hexBytes + len(recordStart)
)

// line is one line taken apart.
type line struct {
	sum  string // 64 hex digits
	body []byte // what the checksum is over
	// isCheckpoint tells the two kinds apart.
	isCheckpoint bool
}

// parseLine takes a line with its new line and verifies it; no other spelling passes.
func parseLine(b []byte) (line, error) {
	if len(b) < recordHeader+2+len(lineEnd) || string(b[:len(lineStart)]) != lineStart {
		return line{}, fmt.Errorf("the line does not start with its checksum")
	}
	l := line{sum: string(b[len(lineStart) : len(lineStart)+hexBytes])}
	rest := b[len(lineStart)+hexBytes:]
	switch {
	case bytes.HasPrefix(rest, []byte(recordStart)):
		rest = rest[len(recordStart):]
	case bytes.HasPrefix(rest, []byte(checkpointStart)):
		rest, l.isCheckpoint = rest[len(checkpointStart):], true
	default:
		return line{}, fmt.Errorf("the line is neither a checkpoint nor a record")
	}
	if !bytes.HasSuffix(rest, []byte(lineEnd)) {
		return line{}, fmt.Errorf("the line does not end as it must")
	}
	l.body = rest[:len(rest)-len(lineEnd)]
	sum := sha256.Sum256(l.body)
	var got [hexBytes]byte
	if hex.Encode(got[:], sum[:]); string(got[:]) != l.sum {
		return line{}, fmt.Errorf("checksum is sha256:%s, the line says sha256:%.64s", got[:], l.sum)
	}
	return l, nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// encodeRecord renders a record as a line and returns its checksum.
func encodeRecord(r any) (b []byte, sum string, err error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, "", err
	}
	raw := body.Bytes()[:body.Len()-1]
	sum = hexSum(raw)
	b = make([]byte, 0, recordHeader+len(raw)+len(lineEnd))
	b = append(b, lineStart...)
	b = append(b, sum...)
	b = append(b, recordStart...)
	b = append(b, raw...)
	return append(b, lineEnd...), sum, nil
}

var errNoRecord = errors.New("a checkpoint is where a record is due")

// parseRecord is parseLine for a record, decoded.
func parseRecord(b []byte) (record, error) {
	l, err := parseLine(b)
	if err != nil {
		return record{}, err
	}
	if l.isCheckpoint {
		return record{}, errNoRecord
	}
	return decodeRecord(l)
}

// Types of records.
const (
	recSegment       = "segment"        // first line of a journal segment
	recCommit        = "commit"         // last line of a group: the lines before it count
	recEnd           = "end"            // last line of a closed segment
	recSession       = "session"        // a session was made
	recChange        = "change"         // a session was changed
	recSessionDelete = "session_delete" // a session and its checkpoints are gone
	recDelete        = "delete"         // checkpoints are gone
	recAnnotate      = "annotate"       // a note was added
	recEvent         = "event"          // something else that subscribers hear of
	recLarge         = "large"          // a checkpoint whose body is in its own file

	recAdded       = "added"       // manifest: a checkpoint's file
	recRemoved     = "removed"     // manifest: checkpoints whose files are going
	recAnnotations = "annotations" // manifest: an annotations file as it stands
	recDescribed   = "described"   // manifest: session.json as it stands
	recQuarantine  = "quarantine"  // a note of what was found damaged
	recHead        = "head"        // events/head.json
)

// noRecord stands where a line is a checkpoint; it is never changed.
var noRecord = &record{}

// record is every line that is no checkpoint; FORMAT.md says which type has which members.
type record struct {
	Type         string        `json:"type"`
	SessionID    checkpoint.ID `json:"session_id,omitzero"`
	CheckpointID checkpoint.ID `json:"checkpoint_id,omitzero"`
	At           time.Time     `json:"at,omitzero"`

	Version  int           `json:"version,omitempty"`
	Store    checkpoint.ID `json:"store,omitzero"`
	Segment  uint64        `json:"segment,omitempty"`
	Group    uint64        `json:"group,omitempty"`
	Lines    int           `json:"lines,omitempty"`
	Digest   string        `json:"digest,omitempty"`
	Previous string        `json:"previous,omitempty"`
	// FirstEvent is the number of a group's first event.
	FirstEvent uint64 `json:"first_event,omitempty"`

	Session    *sessionMeta           `json:"session,omitempty"`
	Change     *sessionChange         `json:"change,omitempty"`
	Restored   bool                   `json:"restored,omitempty"`
	IDs        []checkpoint.ID        `json:"checkpoint_ids,omitempty"`
	Numbers    []uint64               `json:"numbers,omitempty"`
	Compacted  bool                   `json:"compacted,omitempty"`
	HasFiles   bool                   `json:"has_files,omitempty"`
	Count      int                    `json:"count,omitempty"`
	OwnerUID   *uint32                `json:"owner_uid,omitempty"` // of a session that goes
	Annotation *checkpoint.Annotation `json:"annotation,omitempty"`
	Event      *checkpoint.Event      `json:"event,omitempty"`

	Number  uint64          `json:"number,omitempty"`
	Bytes   int64           `json:"bytes,omitempty"`
	Sum     string          `json:"sha256,omitempty"`
	File    string          `json:"file,omitempty"`
	Summary json.RawMessage `json:"summary,omitempty"`
	Path    string          `json:"path,omitempty"`
	Problem string          `json:"problem,omitempty"`
	Created uint64          `json:"sessions_created,omitempty"`

	sum string // of the line it came from
}

// sessionMeta is a session without what its checkpoints tell.
type sessionMeta struct {
	checkpoint.Session
	AutoState json.RawMessage `json:"auto_state,omitempty"`
	// Imported ones come with their own times and head.
	Imported bool `json:"imported,omitempty"`
}

// sessionChange holds what changed; HeadID null takes the head away.
type sessionChange struct {
	Status    checkpoint.Status      `json:"status,omitempty"`
	SetAuto   bool                   `json:"set_auto,omitempty"`
	Auto      *checkpoint.AutoConfig `json:"auto,omitempty"`
	AutoState json.RawMessage        `json:"auto_state,omitempty"`
	Name      *string                `json:"name,omitempty"`
	Labels    *map[string]string     `json:"labels,omitempty"`
	SetHead   bool                   `json:"set_head,omitempty"`
	HeadID    checkpoint.ID          `json:"head_id,omitzero"`
}

// clone copies a hash with what it has taken in.
func clone(h hash.Hash) hash.Hash {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // crypto/sha256 implements Cloner
	}
	return c
}

package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"strconv"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// draft is a checkpoint on its way in: everything but the few bytes that wait for the
// number. The state is not copied; it is the caller's until the create is answered.
type draft struct {
	id, session checkpoint.ID
	head        []byte // {"id":…,"state":
	state       []byte
	mid         hash.Hash // over head and state
	headBytes   int       // of a body that is not in memory
	stateBytes  int
	files       bool   // its context names captured files
	tail        []byte // [,"parent_id":…],"sequence_number":…,"timestamp":…}

	message, tags, metadata []byte // as rendered, for the summary
	trigger                 checkpoint.Trigger
	cause                   checkpoint.Cause
	given                   checkpoint.ID // the parent that the client named
	autoState               json.RawMessage

	parent   checkpoint.ID
	sequence uint64
	at       time.Time
	sum      string
}

// encode renders JSON the way the store keeps it: no HTML escapes, no new line.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes()[:b.Len()-1], nil
}

func newDraft(c *NewCheckpoint) (*draft, error) {
	d := &draft{
		id: c.ID, session: c.SessionID, state: c.State, metadata: c.Metadata,
		trigger: c.Trigger, cause: c.Cause, given: c.ParentID, files: len(c.Context.Files) > 0,
		autoState: c.AutoState,
	}
	tags := c.Tags
	if tags == nil {
		tags = []string{}
	}
	fill(&c.Context)
	d.message = rawjson.AppendQuote(make([]byte, 0, len(c.Message)+16), c.Message)
	d.tags = appendTags(nil, tags)
	b := make([]byte, 0, 1024+len(d.message)+len(d.tags)+len(c.Metadata))
	b = append(b, `{"id":"`...)
	b = append(b, c.ID.String()...)
	b = append(b, `","session_id":"`...)
	b = append(b, c.SessionID.String()...)
	b = append(b, `","message":`...)
	b = append(b, d.message...)
	b = append(b, `,"tags":`...)
	b = append(b, d.tags...)
	b = appendTrigger(b, c.Trigger, c.Cause)
	if !c.ParentID.IsZero() {
		b = appendID(b, "parent_id", c.ParentID)
	}
	if c.Metadata != nil {
		b = append(b, `,"metadata":`...)
		b = append(b, c.Metadata...)
	}
	b, err := appendContext(append(b, `,"context":`...), &c.Context)
	if err != nil {
		return nil, checkpoint.Errorf(checkpoint.KindInvalidParams, "context: %w", err)
	}
	b = append(b, `,"state":`...)
	d.head = b
	d.mid = sha256.New()
	d.mid.Write(d.head)
	d.mid.Write(d.state)
	d.headBytes, d.stateBytes = len(d.head), len(d.state)
	return d, nil
}

// fill gives the members of a context that the wire always shows their empty values.
func fill(c *checkpoint.Context) {
	if c.EnvVars == nil {
		c.EnvVars = map[string]string{}
	}
	if c.Metrics == nil {
		c.Metrics = map[string]uint64{}
	}
	if c.StateSource == "" {
		c.StateSource = checkpoint.StateGiven
	}
}

func appendTrigger(b []byte, t checkpoint.Trigger, c checkpoint.Cause) []byte {
	b = append(b, `,"trigger":"`...)
	b = append(b, t...)
	b = append(b, '"')
	if c != "" {
		b = append(b, `,"cause":"`...)
		b = append(b, c...)
		b = append(b, '"')
	}
	return b
}

func appendID(b []byte, name string, id checkpoint.ID) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	b = append(b, id.String()...)
	return append(b, '"')
}

// number gives the draft what only the committer knows, and its checksum.
func (d *draft) number(sequence uint64, at time.Time, head checkpoint.ID) {
	d.sequence, d.at, d.parent = sequence, at, d.given
	var assigned checkpoint.ID
	if d.given.IsZero() {
		d.parent, assigned = head, head
	}
	d.tail = tail(assigned, sequence, at)
	h := clone(d.mid)
	h.Write(d.tail)
	d.sum = hex.EncodeToString(h.Sum(nil))
}

// tail renders the end of a checkpoint; assigned is the parent that the client did not name.
func tail(assigned checkpoint.ID, sequence uint64, at time.Time) []byte {
	b := make([]byte, 0, 160)
	if !assigned.IsZero() {
		b = appendID(b, "parent_id", assigned)
	}
	b = append(b, `,"sequence_number":`...)
	b = strconv.AppendUint(b, sequence, 10)
	b = append(b, `,"timestamp":"`...)
	b = at.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"', '}')
}

// header is the start of a checkpoint's line.
func header(sum string) []byte {
	b := make([]byte, 0, checkpointHeader)
	b = append(b, lineStart...)
	b = append(b, sum...)
	return append(b, checkpointStart...)
}

// lineBytes is the length of the draft's line.
func (d *draft) lineBytes() int64 {
	return int64(checkpointHeader + d.headBytes + d.stateBytes + len(d.tail) + len(lineEnd))
}

// summary renders what List shows, open at its end: the counts of notes follow.
func (d *draft) summary() []byte {
	b := make([]byte, 0, 420+len(d.message)+len(d.tags)+len(d.metadata))
	b = append(b, `{"id":"`...)
	b = append(b, d.id.String()...)
	b = append(b, `","session_id":"`...)
	b = append(b, d.session.String()...)
	b = append(b, `","sequence_number":`...)
	b = strconv.AppendUint(b, d.sequence, 10)
	b = append(b, `,"timestamp":"`...)
	b = d.at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","message":`...)
	b = append(b, d.message...)
	b = append(b, `,"tags":`...)
	b = append(b, d.tags...)
	b = appendTrigger(b, d.trigger, d.cause)
	if !d.parent.IsZero() {
		b = appendID(b, "parent_id", d.parent)
	}
	if d.metadata != nil {
		b = append(b, `,"metadata":`...)
		b = append(b, d.metadata...)
	}
	b = append(b, `,"checksum":"sha256:`...)
	b = append(b, d.sum...)
	b = append(b, `","state_bytes":`...)
	return strconv.AppendInt(b, int64(d.stateBytes), 10)
}

// plainEnd completes the summary of a sound checkpoint without notes. The index keeps
// summaries with it, so that nearly all of a list is the index's bytes as they are.
const plainEnd = `,"has_notes":false,"annotation_count":0}`

// closeSummary completes a summary for the wire.
func closeSummary(dst, open []byte, notes int, corrupt bool) []byte {
	dst = append(dst, open...)
	if notes > 0 {
		dst = append(dst, `,"has_notes":true,"annotation_count":`...)
	} else {
		dst = append(dst, `,"has_notes":false,"annotation_count":`...)
	}
	dst = strconv.AppendInt(dst, int64(notes), 10)
	if corrupt {
		dst = append(dst, `,"corrupt":true`...)
	}
	return append(dst, '}')
}

// parsed is a stored checkpoint taken apart again. Its slices are parts of raw.
type parsed struct {
	draft
	raw     []byte
	context []byte
}

var (
	stateName     = []byte(`"state":`)
	sequenceName  = []byte(`,"sequence_number":`)
	timestampName = []byte(`,"timestamp":"`)
	parentName    = []byte(`,"parent_id":"`)
)

// parseCheckpoint takes verified bytes apart and checks that they are laid out as the
// store lays them out. Only the members before the state are scanned.
func parseCheckpoint(raw []byte, sum string) (*parsed, error) {
	p := &parsed{raw: raw}
	p.sum = sum
	end := len(raw)
	at := bytes.LastIndex(raw[max(0, end-120):], sequenceName)
	if at < 0 || raw[0] != '{' || raw[end-1] != '}' {
		return nil, fmt.Errorf("it does not end with a number and a time")
	}
	at += max(0, end-120)
	number, when, ok := bytes.Cut(raw[at+len(sequenceName):end-1], timestampName)
	if !ok || len(when) == 0 || when[len(when)-1] != '"' || len(number) > 1 && number[0] == '0' {
		return nil, fmt.Errorf("it does not end with a number and a time")
	}
	var err error
	if p.sequence, err = strconv.ParseUint(string(number), 10, 64); err != nil {
		return nil, err
	}
	if err := p.at.UnmarshalText(when[:len(when)-1]); err != nil {
		return nil, err
	}
	if from := at - len(parentName) - 37; from > 0 && bytes.HasPrefix(raw[from:], parentName) {
		id, err := checkpoint.ParseID(string(raw[at-37 : at-1]))
		if err != nil {
			return nil, err
		}
		p.parent, at = id, from
	}
	p.tail = raw[at:]
	if err := p.members(raw, at); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *parsed) members(raw []byte, end int) error {
	for i := 1; i < end; {
		if raw[i] != '"' {
			return fmt.Errorf("a member name is due at byte %d", i)
		}
		if bytes.HasPrefix(raw[i:end], stateName) {
			i += len(stateName)
			p.head, p.state = raw[:i:i], raw[i:end:end]
			p.headBytes, p.stateBytes = len(p.head), len(p.state)
			return nil
		}
		n := bytes.IndexByte(raw[i+1:end], '"')
		if n < 0 {
			break
		}
		name := string(raw[i+1 : i+1+n])
		i += n + 3
		from, to, err := rawjson.Value(raw[:end], i, 1100)
		if err != nil {
			return err
		}
		if err := p.member(name, raw[from:to:to]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		i = to + 1
	}
	return fmt.Errorf("it has no state")
}

func (p *parsed) member(name string, value []byte) error {
	var err error
	text := func() string {
		s, e := rawjson.String(value)
		if e != nil {
			err = e
		}
		return s
	}
	id := func() checkpoint.ID {
		v, e := checkpoint.ParseID(text())
		if e != nil {
			err = e
		}
		return v
	}
	switch name {
	case "id":
		p.id = id()
	case "session_id":
		p.session = id()
	case "message":
		p.message = value
	case "tags":
		p.tags = value
	case "trigger":
		p.trigger = checkpoint.Trigger(text())
	case "cause":
		p.cause = checkpoint.Cause(text())
	case "parent_id":
		p.given = id()
		p.parent = p.given
	case "metadata":
		p.metadata = value
	case "context":
		p.context = value
		p.draft.files = bytes.Contains(value, []byte(`,"files":[`))
	default:
		return fmt.Errorf("an unknown member")
	}
	return err
}

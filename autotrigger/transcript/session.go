package transcript

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// NewSessionID makes a session id as the agent makes its own.
func NewSessionID(format string) string {
	if format == Codex {
		return uuid.Must(uuid.NewV7()).String()
	}
	return uuid.NewString()
}

var uuidPattern = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// SessionID finds the id of the session that a transcript belongs to: Claude Code goes by
// the file's name (members of lines can be those of a session it grew from), Codex and
// Gemini by the first line. "" when there is none.
func SessionID(format, path string, data []byte) string {
	if format == ClaudeCode {
		if name := strings.TrimSuffix(filepath.Base(path), ".jsonl"); uuidPattern.FindString(name) == name && name != "" {
			return name
		}
	}
	if decode := decoders[format]; decode != nil {
		for _, line := range lines(data) {
			if e := decode(line); e.session != "" {
				return e.session
			}
		}
	}
	return ""
}

var hookContext = regexp.MustCompile(`("text":\s*")<hook_context>.*?</hook_context>(?:\\n)*`)

// WithSession gives a copy of a transcript another session id: the old one is replaced
// wherever it stands, so the rest keeps its bytes and, ids being of one length, its
// places. Gemini's <hook_context> prefix goes as well: on resuming, Gemini would drop the
// prompt that carries it. old must be what SessionID gave.
func WithSession(format string, data []byte, old, id string) ([]byte, error) {
	if old == "" {
		return nil, checkpoint.Errorf(checkpoint.KindInvalidState, "the transcript names no session: it may not be one of %s", format)
	}
	if _, err := uuid.Parse(id); err != nil {
		return nil, checkpoint.Invalid("session_id", "%.64q is not a UUID", id)
	}
	out := bytes.ReplaceAll(data, []byte(old), []byte(id))
	if format != Gemini {
		return out, nil
	}
	var edited bytes.Buffer
	for _, line := range lines(out) {
		if e := decodeGemini(line); e.prompt != "" {
			line = hookContext.ReplaceAll(line, []byte("$1"))
		}
		edited.Write(line)
	}
	return edited.Bytes(), nil
}

// FileName is the name under which the agent finds a session's transcript in the folder
// of the old one.
func FileName(format, id string, now time.Time) (string, error) {
	switch format {
	case ClaudeCode:
		return id + ".jsonl", nil
	case Codex:
		return fmt.Sprintf("rollout-%s-%s.jsonl", now.Format("2006-01-02T15-04-05"), id), nil
	case Gemini:
		return fmt.Sprintf("session-%s-%.8s.jsonl", now.UTC().Format("2006-01-02T15-04"), id), nil
	}
	return "", checkpoint.Errorf(checkpoint.KindInvalidState, "sessions of %q cannot be resumed from a file: use --recap", format)
}

// Guess tells the format by a transcript's first lines, "" when it is none of ours.
func Guess(data []byte) string {
	n := 0
	for _, line := range lines(data) {
		var l struct {
			Type, SessionID, ProjectHash string
			Payload                      *struct{}
			UUID                         string
		}
		decode(line, &l)
		switch {
		case l.Type == "session_meta" && l.Payload != nil:
			return Codex
		case l.ProjectHash != "":
			return Gemini
		case l.SessionID != "" && l.Type != "":
			return ClaudeCode
		}
		if n++; n == 20 {
			break
		}
	}
	return ""
}

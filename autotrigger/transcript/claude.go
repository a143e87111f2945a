package transcript

import (
	"encoding/json"
	"strings"
)

type claudeLine struct {
	Type      string `json:"type"`
	SessionID string `json:"sessionId"`
	CWD       string `json:"cwd"`
	Meta      bool   `json:"isMeta"`
	Summary   bool   `json:"isCompactSummary"`
	Message   struct {
		Content json.RawMessage `json:"content"`
	} `json:"message"`
}

type claudeBlock struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	IsError   bool            `json:"is_error"`
}

// decodeClaude reads a line of Claude Code. Only message.content of the types user and
// assistant counts: progress and api-request-blob lines carry copies of messages.
func decodeClaude(b []byte) entry {
	var l claudeLine
	if !decode(b, &l) {
		return entry{}
	}
	e := entry{session: l.SessionID, cwd: l.CWD}
	if l.Type != "user" && l.Type != "assistant" || len(l.Message.Content) == 0 {
		return e
	}
	var words []string
	var text string
	if json.Unmarshal(l.Message.Content, &text) == nil {
		words = append(words, text)
	} else {
		var blocks []claudeBlock
		decode(l.Message.Content, &blocks)
		for _, c := range blocks {
			switch {
			case c.Type == "text":
				words = append(words, c.Text)
			case c.Type == "tool_use" && l.Type == "assistant" && c.ID != "":
				e.opened = append(e.opened, opened{c.ID, c.Name, c.Input})
			case c.Type == "tool_result" && l.Type == "user" && c.ToolUseID != "":
				e.done = append(e.done, result{id: c.ToolUseID, failed: c.IsError, text: plainText(c.Content)})
			}
		}
	}
	said := strings.Join(words, "\n")
	switch {
	case l.Type == "assistant":
		e.said = said
	case !l.Meta && !l.Summary && len(e.done) == 0 && !fromMachine(said):
		e.prompt = said
	}
	return e
}

// fromMachine tells texts in the user's place that no user wrote: they are in tags.
func fromMachine(text string) bool {
	text = strings.TrimSpace(text)
	for _, tag := range []string{
		"<command-", "<local-command", "<task-notification", "<system-reminder", "<bash-", "<environment_context",
		"<user_instructions", "<INSTRUCTIONS", "# AGENTS.md", "<permissions", "<skills_instructions", "<session_context", "<turn_aborted",
	} {
		if strings.HasPrefix(text, tag) {
			return true
		}
	}
	return text == ""
}

// plainText finds the words in a result, which is a text, a list of {text} or an object
// with one of the usual members.
func plainText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if len(raw) > 0 && raw[0] == '[' && decode(raw, &parts) {
		words := make([]string, 0, len(parts))
		for _, p := range parts {
			words = append(words, p.Text)
		}
		return strings.Join(words, "\n")
	}
	var object struct {
		Output, Content, Error json.RawMessage
	}
	if len(raw) > 0 && raw[0] == '{' && decode(raw, &object) {
		for _, member := range []json.RawMessage{object.Output, object.Content, object.Error} {
			if s := plainText(member); s != "" {
				return s
			}
		}
	}
	return ""
}

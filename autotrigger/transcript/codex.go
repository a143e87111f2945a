package transcript

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

type codexLine struct {
	Type    string `json:"type"`
	Payload struct {
		Type      string          `json:"type"`
		ID        string          `json:"id"`
		CallID    string          `json:"call_id"`
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
		Input     json.RawMessage `json:"input"`
		Action    json.RawMessage `json:"action"`
		Output    json.RawMessage `json:"output"`
		Role      string          `json:"role"`
		Content   json.RawMessage `json:"content"`
		Message   string          `json:"message"`
		CWD       string          `json:"cwd"`
	} `json:"payload"`
}

// decodeCodex reads a line of Codex. Only response_item lines are calls: event_msg lines
// hold copies of them, and the errors of the model's API.
func decodeCodex(b []byte) entry {
	var l codexLine
	if !decode(b, &l) {
		return entry{}
	}
	p := &l.Payload
	switch l.Type {
	case "session_meta":
		return entry{session: p.ID, cwd: p.CWD}
	case "turn_context":
		return entry{cwd: p.CWD}
	case "event_msg":
		if p.Type == "error" {
			return entry{failure: orElse(p.Message, "error")}
		}
	case "response_item":
		return codexItem(&l)
	}
	return entry{}
}

func codexItem(l *codexLine) entry {
	p := &l.Payload
	switch p.Type {
	case "function_call", "custom_tool_call", "local_shell_call":
		if id := orElse(p.CallID, p.ID); id != "" {
			input := p.Arguments
			for _, other := range []json.RawMessage{p.Input, p.Action} {
				if len(input) == 0 {
					input = other
				}
			}
			var text string // arguments are JSON in a string
			if json.Unmarshal(input, &text) == nil && json.Valid([]byte(text)) {
				input = json.RawMessage(text)
			}
			return entry{opened: []opened{{id, orElse(p.Name, "shell"), input}}}
		}
	case "function_call_output", "custom_tool_call_output":
		if p.CallID != "" {
			text := plainText(p.Output)
			return entry{done: []result{{id: p.CallID, failed: codexFailed(p.Output, text), text: text}}}
		}
	case "message":
		text := plainText(p.Content)
		if p.Role == "assistant" {
			return entry{said: text}
		}
		if p.Role == "user" && !fromMachine(text) {
			return entry{prompt: text}
		}
	}
	return entry{}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// exitLine is how tools tell an exit status in the text they give the model.
var exitLine = regexp.MustCompile(`(?m)^(?:Process exited with code|Exit code:|Exit Code:) (-?\d+)\s*$`)

// codexFailed tells a failure in an output: success false, JSON text with
// metadata.exit_code (older versions), or a line above "Output:" (newer ones). Below
// "Output:" stand the program's own words.
func codexFailed(raw json.RawMessage, text string) bool {
	var object struct {
		Success  *bool `json:"success"`
		Metadata struct {
			ExitCode int `json:"exit_code"`
		} `json:"metadata"`
	}
	if json.Unmarshal(raw, &object) == nil && object.Success != nil && !*object.Success {
		return true
	}
	if strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &object) == nil {
		return object.Metadata.ExitCode != 0
	}
	head, _, _ := strings.Cut(text, "\nOutput:")
	return exitStatus(head) != 0 || strings.HasPrefix(text, "aborted by user") || strings.HasPrefix(text, "execution error") ||
		strings.HasPrefix(text, "apply_patch verification failed")
}

func exitStatus(text string) int {
	if m := exitLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			return n
		}
		return 1
	}
	return 0
}

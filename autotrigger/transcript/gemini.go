package transcript

import (
	"encoding/json"
	"strings"
)

type geminiLine struct {
	SessionID string          `json:"sessionId"`
	Type      string          `json:"type"`
	Content   json.RawMessage `json:"content"`
	ToolCalls []struct {
		ID     string            `json:"id"`
		Name   string            `json:"name"`
		Args   json.RawMessage   `json:"args"`
		Status string            `json:"status"`
		Result []json.RawMessage `json:"result"`
	} `json:"toolCalls"`
}

type geminiResponse struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Response struct {
		Output string          `json:"output"`
		Error  json.RawMessage `json:"error"`
	} `json:"response"`
}

func (r *geminiResponse) result() result {
	// A program's exit status is told only in the text, after its output: the last such
	// line is the tool's own.
	text, status := r.Response.Output, 0
	if at := strings.LastIndex(text, "\nExit Code: "); at >= 0 {
		status = exitStatus(text[at+1:])
	}
	failed := len(r.Response.Error) > 0 && string(r.Response.Error) != "null" || status != 0
	return result{id: r.ID, name: r.Name, failed: failed, text: text}
}

// decodeGemini reads a line of Gemini CLI. A message with toolCalls is written when they
// have ended, but only with the line of functionResponse parts after it can the session be
// resumed behind them: that one finishes the calls. After a cancelled call none follows.
func decodeGemini(b []byte) entry {
	var l geminiLine
	if !decode(b, &l) {
		return entry{}
	}
	e := entry{session: l.SessionID}
	for _, c := range l.ToolCalls {
		switch {
		case c.ID == "":
		case c.Status == "cancelled" && len(c.Result) == 0:
			e.done = append(e.done, result{id: c.ID, name: c.Name, failed: true})
		default:
			e.opened = append(e.opened, opened{c.ID, c.Name, c.Args})
		}
	}
	switch l.Type {
	case "user":
		geminiUser(&e, l.Content)
	case "gemini":
		e.said = plainText(l.Content)
	}
	return e
}

func geminiUser(e *entry, content json.RawMessage) {
	var parts []struct {
		FunctionResponse *geminiResponse `json:"functionResponse"`
	}
	decode(content, &parts)
	for _, p := range parts {
		if p.FunctionResponse != nil && p.FunctionResponse.ID != "" {
			e.done = append(e.done, p.FunctionResponse.result())
		}
	}
	if text := withoutHookContext(plainText(content)); len(e.done) == 0 && !fromMachine(text) {
		e.prompt = text
	}
}

func withoutHookContext(text string) string {
	if rest, ok := strings.CutPrefix(text, "<hook_context>"); ok {
		if _, after, ok := strings.Cut(rest, "</hook_context>"); ok {
			return strings.TrimLeft(after, "\n")
		}
	}
	return text
}

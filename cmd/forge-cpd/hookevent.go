package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// hookKind is what an agent's event means here.
type hookKind int

const (
	hookOther  hookKind = iota // opens the session, takes no checkpoint
	hookPrompt                 // the user's words
	hookTool                   // a tool call has ended
	hookBatch                  // several have, with their results in the transcript
	hookFailure
	hookCompact
	hookEnd
)

// hookAgent is how one agent tells its events.
type hookAgent struct {
	name   string
	format string // of its transcripts; "" when they are only captured
	kinds  map[string]hookKind
}

// hookAgents are those that hook takes. Gemini's PreCompress is not among the events: it
// fires before every request to the model, compressed or not.
var hookAgents = map[string]*hookAgent{
	"claude-code": {name: "claude-code", format: transcript.ClaudeCode, kinds: map[string]hookKind{
		"UserPromptSubmit": hookPrompt, "PostToolUse": hookTool, "PostToolUseFailure": hookTool, "PostToolBatch": hookBatch,
		"StopFailure": hookFailure, "PreCompact": hookCompact, "SessionEnd": hookEnd,
	}},
	"codex": {name: "codex", format: transcript.Codex, kinds: map[string]hookKind{
		"UserPromptSubmit": hookPrompt, "PostToolUse": hookTool, "PreCompact": hookCompact, "SessionEnd": hookEnd, "StopFailure": hookFailure,
	}},
	"gemini": {name: "gemini", format: transcript.Gemini, kinds: map[string]hookKind{
		"BeforeAgent": hookPrompt, "AfterTool": hookTool, "SessionEnd": hookEnd,
	}},
	"cursor": {name: "cursor", kinds: map[string]hookKind{
		"beforeSubmitPrompt": hookPrompt, "postToolUse": hookTool, "postToolUseFailure": hookTool, "stop": hookFailure,
		"preCompact": hookCompact, "sessionEnd": hookEnd,
	}},
}

// hookEvent is one event of any agent, by common names.
type hookEvent struct {
	agent      *hookAgent
	kind       hookKind
	name       string
	session    string
	transcript string // absolute, or ""
	subagent   string // a sub-agent's transcript, or ""
	cwd        string
	prompt     string
	startup    bool // the session has no history
	failed     bool
	words      string // of a failure, a reason, a trigger
	calls      []hookCall
	payload    json.RawMessage // the event itself, when it is whole and not too long
}

// hookCall is a tool call that an event names.
type hookCall struct{ tool, id string }

// payloadBytes bounds what of an event is kept where there is no transcript to keep.
const payloadBytes = 256 << 10

// parseHookEvent reads an event. Of one that was cut off it takes the members that are
// whole. It reports false when no session is named.
func parseHookEvent(agent *hookAgent, raw []byte) (hookEvent, bool) {
	m := members(raw)
	e := hookEvent{
		agent: agent, name: m.text("hook_event_name"), session: m.text("session_id", "conversation_id", "sessionID"),
		cwd: m.text("cwd"), prompt: transcriptPrompt(m.text("prompt")), words: m.text("error", "error_message", "reason", "trigger"),
		startup: m.text("source") == "startup",
	}
	if e.session == "" || len(e.session) > 200 {
		return e, false
	}
	e.kind = agent.kinds[e.name]
	if e.cwd == "" {
		var roots []string
		if json.Unmarshal(m["workspace_roots"], &roots) == nil && len(roots) > 0 {
			e.cwd = roots[0]
		}
	}
	if path := m.text("transcript_path"); filepath.IsAbs(path) {
		e.transcript = filepath.Clean(path)
	}
	if path := m.text("agent_transcript_path"); filepath.IsAbs(path) {
		e.subagent = filepath.Clean(path)
	}
	e.readTools(m)
	if agent.name == "cursor" && e.kind == hookFailure && m.text("status") != "error" {
		e.kind = hookOther // stop fires at every end of a turn
	}
	if e.kind == hookFailure {
		e.words = strings.TrimSuffix(e.words+": "+m.text("error_details", "last_assistant_message"), ": ")
	}
	if len(raw) <= payloadBytes && json.Valid(raw) {
		e.payload = raw
	}
	return e, true
}

func (e *hookEvent) readTools(m jsonMembers) {
	if tool := m.text("tool_name", "tool"); tool != "" {
		e.calls = []hookCall{{tool, m.text("tool_use_id", "call_id")}}
	}
	var batch []struct {
		Tool string `json:"tool_name"`
		ID   string `json:"tool_use_id"`
	}
	if json.Unmarshal(m["tool_calls"], &batch) == nil {
		for _, c := range batch {
			e.calls = append(e.calls, hookCall{c.Tool, c.ID})
		}
	}
	e.failed = strings.HasSuffix(strings.ToLower(e.name), "failure")
	if e.agent.name == "gemini" {
		var response struct {
			Content any             `json:"llmContent"`
			Error   json.RawMessage `json:"error"`
		}
		if json.Unmarshal(m["tool_response"], &response) == nil {
			text, _ := response.Content.(string)
			e.failed = len(response.Error) > 0 && string(response.Error) != "null" || strings.Contains(text, "\nExit Code: ")
		}
	}
}

// transcriptPrompt drops what another hook put before a prompt (Gemini CLI).
func transcriptPrompt(s string) string {
	if rest, ok := strings.CutPrefix(s, "<hook_context>"); ok {
		if _, after, ok := strings.Cut(rest, "</hook_context>"); ok {
			return strings.TrimLeft(after, "\n")
		}
	}
	return s
}

// key is the session's key in the store.
func (e *hookEvent) key() string { return e.agent.name + ":" + e.session }

// messageBytes keeps a prompt in a checkpoint's message within what every list can show.
const messageBytes = 16 << 10

// trigger gives the cause and the message of the checkpoint that an event asks for; no
// cause for one that asks for none.
func (e *hookEvent) trigger() (checkpoint.Cause, string) {
	switch e.kind {
	case hookPrompt:
		return checkpoint.CausePrompt, shortText(e.prompt, "a prompt")
	case hookFailure:
		return checkpoint.CauseError, shortText(e.words, "the turn failed")
	case hookCompact:
		return checkpoint.CauseContextCompactionWarning, "before compaction" + inBrackets(e.words)
	case hookEnd:
		return checkpoint.CauseDisconnect, "session ended" + inBrackets(e.words)
	}
	return "", ""
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + shortText(s, "") + ")"
}

func shortText(s, otherwise string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "�")
	if s == "" {
		return otherwise
	}
	if len(s) > messageBytes {
		s = strings.ToValidUTF8(s[:messageBytes], "") + " […]"
	}
	return s
}

// state is what a checkpoint holds when there is no transcript to capture: the event.
func (e *hookEvent) state() json.RawMessage {
	state := map[string]any{"agent": e.agent.name, "session_id": e.session, "event_name": e.name}
	for name, value := range map[string]string{"cwd": e.cwd, "transcript_path": e.transcript, "prompt": shortText(e.prompt, ""), "error": shortText(e.words, "")} {
		if value != "" {
			state[name] = value
		}
	}
	if e.payload != nil {
		state["event"] = e.payload
	} else if len(e.calls) > 0 {
		state["tool"], state["tool_use_id"] = e.calls[0].tool, e.calls[0].id
	}
	raw, err := json.Marshal(state)
	if err != nil { // the payload is valid JSON and the rest are strings
		panic(fmt.Sprintf("rendering a hook's event: %v", err))
	}
	return raw
}

// jsonMembers are an object's top-level members.
type jsonMembers map[string]json.RawMessage

// members finds the members that are whole, up to the first that is not. They are checked
// when they are used: an event may hold megabytes of a tool's output.
func members(raw []byte) jsonMembers {
	m := jsonMembers{}
	_ = rawjson.Members(raw, func(name string, value []byte) error {
		m[name] = value
		return nil
	})
	return m
}

// text gives the first member of these names that is a string and not empty.
func (m jsonMembers) text(names ...string) string {
	for _, n := range names {
		var s string
		if json.Unmarshal(m[n], &s) == nil && s != "" {
			return s
		}
	}
	return ""
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// stubStep is one answer of the stub model: words, and a call of the agent's own shell tool.
type stubStep struct{ say, sh string }

// stubModel speaks the three APIs that the agents use: Messages, Responses and
// generateContent. It plays the steps it was given, one for each request, and keeps the
// requests. Requests without tools are side work (titles and the like) and use no step.
type stubModel struct {
	mu       sync.Mutex
	steps    []stubStep
	calls    int
	requests []string // the conversations, as JSON
}

func (m *stubModel) play(steps ...stubStep) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps, m.requests = steps, nil
}

// seen gives the conversations of the main requests since play.
func (m *stubModel) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.requests...)
}

func (m *stubModel) next(conversation []byte) (stubStep, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, string(conversation))
	m.calls++
	step := stubStep{say: "nothing more to do"}
	if len(m.steps) > 0 {
		step, m.steps = m.steps[0], m.steps[1:]
	}
	return step, fmt.Sprintf("stub%06d", m.calls)
}

type object = map[string]any

type stubRequest struct {
	Messages json.RawMessage `json:"messages"`
	Input    json.RawMessage `json:"input"`
	Contents json.RawMessage `json:"contents"`
	Tools    []struct {
		Name         string `json:"name"`
		Type         string `json:"type"`
		Declarations []struct {
			Name string `json:"name"`
		} `json:"functionDeclarations"`
	} `json:"tools"`
}

// serve answers until the listener is closed.
func (m *stubModel) serve(l net.Listener) error {
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var q stubRequest
		if err == nil && r.Method == http.MethodPost {
			err = json.Unmarshal(body, &q)
		}
		path := r.URL.Path
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case strings.HasSuffix(path, "/count_tokens"):
			reply(w, object{"input_tokens": 10})
		case strings.HasSuffix(path, ":countTokens"):
			reply(w, object{"totalTokens": 10})
		case strings.HasSuffix(path, "/messages"):
			step, id := m.step(&q, q.Messages)
			stream(w, true, messagesAPI(step, id))
		case strings.HasSuffix(path, "/responses"):
			step, id := m.step(&q, q.Input)
			stream(w, true, responsesAPI(step, id, &q))
		case strings.HasSuffix(path, ":streamGenerateContent"):
			step, id := m.step(&q, q.Contents)
			stream(w, false, []object{generateContentAPI(step, id)})
		case strings.HasSuffix(path, ":generateContent"):
			step, id := m.step(&q, q.Contents)
			reply(w, generateContentAPI(step, id))
		case strings.HasSuffix(path, "/models"):
			reply(w, object{"data": []object{}, "models": []object{}})
		default:
			http.NotFound(w, r)
		}
	}))
}

func (m *stubModel) step(q *stubRequest, conversation []byte) (stubStep, string) {
	if len(q.Tools) == 0 {
		return stubStep{say: "a side answer"}, "side"
	}
	return m.next(conversation)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// stream writes server-sent events; named ones carry their type as the event's name.
func stream(w http.ResponseWriter, named bool, events []object) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range events {
		data, _ := json.Marshal(e)
		if named {
			fmt.Fprintf(w, "event: %s\n", e["type"])
		}
		fmt.Fprintf(w, "data: %s\n\n", data)
	}
}

func messagesAPI(s stubStep, id string) []object {
	usage := object{"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
	events := []object{{"type": "message_start", "message": object{
		"id": "msg_" + id, "type": "message", "role": "assistant", "model": "stub", "content": []object{}, "stop_reason": nil, "stop_sequence": nil, "usage": usage,
	}}}
	n := 0
	block := func(start, delta object) {
		events = append(events, object{"type": "content_block_start", "index": n, "content_block": start},
			object{"type": "content_block_delta", "index": n, "delta": delta}, object{"type": "content_block_stop", "index": n})
		n++
	}
	reason := "end_turn"
	if s.say != "" {
		block(object{"type": "text", "text": ""}, object{"type": "text_delta", "text": s.say})
	}
	if s.sh != "" {
		reason = "tool_use"
		input, _ := json.Marshal(object{"command": s.sh, "description": "a step"})
		block(object{"type": "tool_use", "id": "toolu_" + id, "name": "Bash", "input": object{}}, object{"type": "input_json_delta", "partial_json": string(input)})
	}
	return append(events, object{"type": "message_delta", "delta": object{"stop_reason": reason, "stop_sequence": nil}, "usage": usage}, object{"type": "message_stop"})
}

func responsesAPI(s stubStep, id string, q *stubRequest) []object {
	var items []object
	if s.say != "" {
		items = append(items, object{"type": "message", "id": "msg_" + id, "role": "assistant", "status": "completed",
			"content": []object{{"type": "output_text", "text": s.say, "annotations": []object{}}}})
	}
	if s.sh != "" {
		name, args := "exec_command", object{"cmd": s.sh}
		for _, t := range q.Tools {
			switch t.Name {
			case "shell_command":
				name, args = t.Name, object{"command": s.sh}
			case "shell":
				name, args = t.Name, object{"command": []string{"bash", "-lc", s.sh}}
			}
		}
		text, _ := json.Marshal(args)
		items = append(items, object{"type": "function_call", "id": "fc_" + id, "call_id": "call_" + id, "name": name, "arguments": string(text), "status": "completed"})
	}
	answer := object{"id": "resp_" + id, "object": "response", "status": "completed", "model": "stub", "output": items, "usage": object{
		"input_tokens": 10, "input_tokens_details": object{"cached_tokens": 0}, "output_tokens": 5, "output_tokens_details": object{"reasoning_tokens": 0}, "total_tokens": 15,
	}}
	events := []object{{"type": "response.created", "response": object{"id": "resp_" + id, "object": "response", "status": "in_progress", "output": []object{}}}}
	for i, item := range items {
		events = append(events, object{"type": "response.output_item.added", "output_index": i, "item": item}, object{"type": "response.output_item.done", "output_index": i, "item": item})
	}
	return append(events, object{"type": "response.completed", "response": answer})
}

func generateContentAPI(s stubStep, id string) object {
	var parts []object
	if s.say != "" {
		parts = append(parts, object{"text": s.say})
	}
	if s.sh != "" {
		parts = append(parts, object{"functionCall": object{"id": "fc_" + id, "name": "run_shell_command", "args": object{"command": s.sh, "description": "a step"}}})
	}
	return object{
		"candidates":    []object{{"content": object{"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}},
		"usageMetadata": object{"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}, "modelVersion": "stub",
	}
}

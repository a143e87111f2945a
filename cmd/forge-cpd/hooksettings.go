package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// hookSettings is how one agent is told of hooks.
type hookSettings struct {
	file    func(getenv func(string) string) (string, error)
	events  []string
	handler func(event, command string) map[string]any
	flat    bool           // handlers stand in the event's list themselves, without a matcher's group
	extra   map[string]any // members that the file must have
	note    string
}

// settingsOf knows where each agent looks. Every hook is a process, so events that tell
// nothing which others or the transcript do not tell (PostToolBatch, Stop, AfterAgent …) are left out.
var settingsOf = map[string]hookSettings{
	"claude-code": {
		file:   settingsIn("CLAUDE_CONFIG_DIR", ".claude", "settings.json"),
		events: []string{"SessionStart", "UserPromptSubmit", "PostToolUse", "PostToolUseFailure", "StopFailure", "PreCompact", "SessionEnd"},
		// async: Claude Code does not wait for the hook.
		handler: func(_, command string) map[string]any {
			return map[string]any{"type": "command", "command": command, "timeout": 5, "async": true}
		},
	},
	"codex": {
		file:   settingsIn("CODEX_HOME", ".codex", "hooks.json"),
		events: []string{"SessionStart", "UserPromptSubmit", "PostToolUse", "PreCompact", "SubagentStop", "SessionEnd"},
		// SessionEnd runs in line whatever async says, for 3 s at most, and warns of more.
		handler: func(event, command string) map[string]any {
			h := map[string]any{"type": "command", "command": command, "timeout": 3}
			if event != "SessionEnd" {
				h["async"] = true
			}
			return h
		},
		note: "Codex skips hooks that nobody trusts, without a word: start codex once and trust them with /hooks.",
	},
	"gemini": {
		file:   settingsIn("", ".gemini", "settings.json"),
		events: []string{"SessionStart", "BeforeAgent", "AfterTool", "SessionEnd"},
		handler: func(_, command string) map[string]any { // the timeout is in milliseconds
			return map[string]any{"name": "forge-cpd", "type": "command", "command": command, "timeout": 3000}
		},
	},
	"cursor": {
		file:    settingsIn("", ".cursor", "hooks.json"),
		events:  []string{"sessionStart", "beforeSubmitPrompt", "postToolUse", "postToolUseFailure", "stop", "preCompact", "sessionEnd"},
		handler: func(_, command string) map[string]any { return map[string]any{"command": command, "timeout": 5} },
		flat:    true,
		extra:   map[string]any{"version": 1},
	},
}

func settingsIn(variable, folder, file string) func(func(string) string) (string, error) {
	return func(getenv func(string) string) (string, error) {
		if variable != "" {
			if dir := getenv(variable); dir != "" {
				dir, err := filepath.Abs(dir)
				return filepath.Join(dir, file), err
			}
		}
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("HOME is not set, so there is no %s/%s to edit: set it", folder, file)
		}
		return filepath.Join(home, folder, file), nil
	}
}

// ours tells a handler that `hook install` wrote, of this or an earlier version, by its command.
func ours(handler *jsonNode, data []byte, agent string) bool {
	c := handler.member("command")
	var command string
	return c != nil && json.Unmarshal(data[c.start:c.end], &command) == nil && isHookCommand(command, agent)
}

func isHookCommand(command, agent string) bool {
	words := strings.Fields(command)
	n := len(words)
	return n >= 3 && words[n-1] == agent && words[n-2] == "hook" && slices.ContainsFunc(words[:n-2], func(w string) bool {
		return strings.HasPrefix(filepath.Base(strings.Trim(w, `'"`)), "forge-cpd")
	})
}

// installed gives the settings with the agent's hooks in them. What is as it should be
// stays; what an earlier version wrote otherwise is replaced.
func (s *hookSettings) installed(data []byte, agent, command string) ([]byte, error) {
	if len(strings.TrimSpace(string(data))) == 0 {
		data = []byte("{}\n")
	}
	if s.isInstalled(data, agent, command) {
		return data, nil
	}
	data, err := s.uninstalled(data, agent)
	if err != nil {
		return nil, err
	}
	root, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	for _, key := range sortedKeys(s.extra) {
		if root.member(key) == nil {
			data = root.insert(data, root, key, s.extra[key])
			root, _ = parseJSON(data)
		}
	}
	for _, event := range s.events {
		if data, err = s.add(data, event, s.handler(event, command)); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (s *hookSettings) add(data []byte, event string, handler map[string]any) ([]byte, error) {
	root, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	var entry any = handler
	if !s.flat {
		entry = map[string]any{"hooks": []any{handler}}
	}
	hooks := root.member("hooks")
	if hooks == nil {
		return root.insert(data, root, "hooks", map[string]any{event: []any{entry}}), nil
	}
	list := hooks.member(event)
	if list == nil {
		return hooks.insert(data, root, event, []any{entry}), nil
	}
	return list.insert(data, root, "", entry), nil
}

// shape checks that the settings are built as the agent wants them.
func (s *hookSettings) shape(data []byte) (*jsonNode, error) {
	root, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	if root.kind != '{' {
		return nil, fmt.Errorf("it is no JSON object")
	}
	hooks := root.member("hooks")
	if hooks != nil && hooks.kind != '{' {
		return nil, fmt.Errorf("its member hooks is no object")
	}
	if hooks != nil {
		for i, list := range hooks.kids {
			if list.kind != '[' && slices.Contains(s.events, hooks.keys[i]) {
				return nil, fmt.Errorf("its member hooks.%s is no array", hooks.keys[i])
			}
		}
	}
	return root, nil
}

// handlers calls f with each handler in the settings: the event, the list it stands in,
// its place there, and the list and place of its group (the same for flat settings).
func (s *hookSettings) handlers(root *jsonNode, f func(event string, group *jsonNode, g int, list *jsonNode, i int) bool) {
	hooks := root.member("hooks")
	if hooks == nil {
		return
	}
	for e, groups := range hooks.kids {
		if groups.kind != '[' {
			continue
		}
		for g, entry := range groups.kids {
			list := entry.member("hooks")
			if s.flat {
				if !f(hooks.keys[e], groups, g, groups, g) {
					return
				}
			} else if list != nil && list.kind == '[' {
				for i := range list.kids {
					if !f(hooks.keys[e], groups, g, list, i) {
						return
					}
				}
			}
		}
	}
}

func (s *hookSettings) isInstalled(data []byte, agent, command string) bool {
	root, err := s.shape(data)
	if err != nil {
		return false
	}
	have, same := map[string]int{}, true
	s.handlers(root, func(event string, _ *jsonNode, _ int, list *jsonNode, i int) bool {
		n := list.kids[i]
		if ours(n, data, agent) {
			have[event]++
			var got map[string]any
			_ = json.Unmarshal(data[n.start:n.end], &got)
			same = same && slices.Contains(s.events, event) && renderJSON(got, "", "") == renderJSON(s.handler(event, command), "", "")
		}
		return true
	})
	for _, event := range s.events {
		same = same && have[event] == 1
	}
	for key := range s.extra {
		same = same && root.member(key) != nil
	}
	return same
}

// uninstalled gives the settings without the agent's hooks. Groups, events and the member
// hooks go when nothing else is in them.
func (s *hookSettings) uninstalled(data []byte, agent string) ([]byte, error) {
	for {
		root, err := s.shape(data)
		if err != nil {
			return nil, err
		}
		changed := false
		s.handlers(root, func(event string, groups *jsonNode, g int, list *jsonNode, i int) bool {
			if !ours(list.kids[i], data, agent) {
				return true
			}
			changed = true
			hooks := root.member("hooks")
			switch {
			case len(list.kids) > 1 && !s.flat:
				data = list.remove(data, i)
			case len(groups.kids) > 1:
				data = groups.remove(data, g)
			case len(hooks.kids) > 1:
				data = hooks.remove(data, slices.Index(hooks.keys, event))
			default:
				data = root.remove(data, slices.Index(root.keys, "hooks"))
			}
			return false
		})
		if !changed {
			return data, nil
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

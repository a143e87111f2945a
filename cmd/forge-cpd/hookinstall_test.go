package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHookSettingsKeepWhatIsThere(t *testing.T) {
	const command = "forge-cpd hook "
	for name, before := range map[string]string{
		"none":     "",
		"empty":    "{}\n",
		"one line": `{"model":"opus", "permissions": {"allow": ["Bash(ls:*)"]}}`,
		"tabs":     "{\n\t\"model\": \"opus\",\n\t\"n\": 1.0\n}\n",
		"other hooks": `{
    "hooks": {
        "PostToolUse": [
            {"matcher": "Edit|Write", "hooks": [{"type": "command", "command": "gofmt -w"}]}
        ],
        "Odd": []
    },
    "path": "caf\u00e9 \/ \"x\"",
    "big": 123456789012345678901234567890
}
`,
		"empty hooks":  "{\n  \"hooks\": {},\n  \"a\": [ ]\n}",
		"a user's own": `{"hooks":{"SessionEnd":[{"hooks":[{"type":"command","command":"echo forge-cpd hook"},{"type":"command","command":"other"}]}]}}`,
	} {
		for agent, s := range settingsOf {
			if s.flat && strings.Contains(before, "PostToolUse\"") {
				continue
			}
			after, err := s.installed([]byte(before), agent, command+agent)
			if err != nil {
				t.Errorf("%s, %s: %v", name, agent, err)
				continue
			}
			var got struct {
				Hooks map[string][]json.RawMessage `json:"hooks"`
			}
			if err := json.Unmarshal(after, &got); err != nil {
				t.Errorf("%s, %s: %v\n%s", name, agent, err, after)
				continue
			}
			for _, event := range s.events {
				n := 0
				for _, entry := range got.Hooks[event] {
					n += bytes.Count(entry, []byte(command+agent))
				}
				if n != 1 {
					t.Errorf("%s, %s: %d hooks for %s\n%s", name, agent, n, event, after)
				}
			}
			again, err := s.installed(after, agent, command+agent)
			if err != nil || !bytes.Equal(again, after) {
				t.Errorf("%s, %s: installing again changes the file", name, agent)
			}
			moved, err := s.installed(after, agent, "/opt/forge-cpd --socket /s hook "+agent)
			if err != nil || bytes.Contains(moved, []byte(`"`+command)) || bytes.Count(moved, []byte("/opt/forge-cpd")) != len(s.events) {
				t.Errorf("%s, %s: another command does not take the old one's place: %v\n%s", name, agent, err, moved)
			}
			back, err := s.uninstalled(moved, agent)
			if err != nil {
				t.Fatal(err)
			}
			if want := before; want != "" && s.extra == nil && name != "empty hooks" && string(back) != want && name != "empty" {
				t.Errorf("%s, %s: uninstalling gives\n%s\nwant\n%s", name, agent, back, want)
			}
			if bytes.Contains(back, []byte("hook "+agent+`"`)) {
				t.Errorf("%s, %s: still there\n%s", name, agent, back)
			}
		}
	}
	for _, bad := range []string{"[]", "{", `{"hooks":[]}`, `{"hooks":{"SessionStart":{}}}`, "{// why\n}", "7", `"x"`} {
		s := settingsOf["claude-code"]
		if out, err := s.installed([]byte(bad), "claude-code", command); err == nil {
			t.Errorf("%s was edited to %s", bad, out)
		}
	}
}

func TestHookInstallCommand(t *testing.T) {
	dir, socket := hookHome(t)
	t.Setenv("CLAUDE_CONFIG_DIR", filepath.Join(dir, "cfg"))
	path, link := filepath.Join(dir, "dotfiles.json"), filepath.Join(dir, "cfg", "settings.json")
	before := []byte("{\n  \"model\": \"opus\"\n}\n")
	if err := os.WriteFile(path, before, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	call := func(want int, args ...string) (string, string) {
		t.Helper()
		var out, talk bytes.Buffer
		if code := run(t.Context(), append([]string{"hook"}, args...), strings.NewReader(""), &out, &talk); code != want {
			t.Fatalf("%v: exit %d, %s", args, code, talk.String())
		}
		return out.String(), talk.String()
	}
	diff, talk := call(2, "install", "claude-code")
	if now, _ := os.ReadFile(path); !bytes.Equal(now, before) || !strings.Contains(talk, "--yes") || !strings.Contains(diff, "+      {\n") && !strings.Contains(diff, `+    "SessionStart"`) {
		t.Errorf("with no terminal: %s\n%s", talk, diff)
	}
	call(0, "install", "claude-code", "--yes", "--socket", socket)
	after, _ := os.ReadFile(path)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	if !bytes.Contains(after, []byte("--socket "+socket+" hook claude-code")) || !bytes.Contains(after, []byte(`"async": true`)) {
		t.Errorf("written:\n%s", after)
	}
	if _, talk := call(0, "install", "claude-code", "--yes", "--socket", socket); !strings.Contains(talk, "nothing to change") {
		t.Errorf("again: %s", talk)
	}
	call(0, "uninstall", "claude-code", "--yes")
	if now, _ := os.ReadFile(path); !bytes.Equal(now, before) {
		t.Errorf("uninstalled:\n%s", now)
	}
	if err := os.WriteFile(path, []byte("{ // comment\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, talk := call(1, "install", "claude-code", "--yes"); !strings.Contains(talk, path) || !strings.Contains(talk, "comments") {
		t.Errorf("a file with comments: %s", talk)
	}
	if _, talk := call(0, "install", "codex", "--yes"); !strings.Contains(talk, "/hooks") {
		t.Errorf("codex: %s", talk)
	}
}

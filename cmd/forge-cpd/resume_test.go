package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// hold makes a checkpoint of the fake daemon's that holds files.
func (d *fakeDaemon) hold(key string, labels map[string]string, files map[string][]byte) checkpoint.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.byKey[key]
	if s == nil {
		s = &checkpoint.Session{ID: checkpoint.NewID(), Key: key, Labels: labels}
		d.byKey[key] = s
	}
	c := &checkpoint.Checkpoint{ID: checkpoint.NewID(), SessionID: s.ID, Tags: []string{}, State: json.RawMessage("{}")}
	for path, data := range files {
		sum := sha256.Sum256(data)
		c.Context.Files = append(c.Context.Files, checkpoint.File{Path: path, Mode: "0600", Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	}
	d.made[c.ID], d.files = c, files
	return c.ID
}

func resumeRun(t *testing.T, want int, args ...string) (out, talk string) {
	t.Helper()
	var o, e bytes.Buffer
	if code := run(t.Context(), append([]string{"resume"}, args...), strings.NewReader(""), &o, &e); code != want {
		t.Fatalf("resume %v: exit %d, want %d: %s", args, code, want, e.String())
	}
	return o.String(), e.String()
}

// At every finished tool call of two real conversations: the original is gone, and the
// file that resume writes is a prefix of it up to that call's result, but for the session id.
func TestResumeAtEveryToolCall(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	for file, session := range map[string]string{
		"claude-code-a.jsonl": "cc432c40-914a-4c1a-a972-0103199a736a", "claude-code-b.jsonl": "f736da47-b2ca-4f86-bb32-a1bbe582e464",
	} {
		data, err := os.ReadFile("../../autotrigger/transcript/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, ".claude", "projects", "-w", session+".jsonl")
		parser, _ := transcript.New(transcript.ClaudeCode, nil)
		end, calls := 0, 0
		for line := range bytes.Lines(data) {
			end += len(line)
			finished := parser.Line(1, line)
			if len(finished) == 0 {
				continue
			}
			calls += len(finished)
			id := d.hold("claude-code:"+session, map[string]string{"cwd": dir}, map[string][]byte{
				path: data[:end], filepath.Join(strings.TrimSuffix(path, ".jsonl"), "subagents", "agent-1.jsonl"): data, "/notes.md": []byte("# notes"),
			})
			out, _ := resumeRun(t, 0, id.String(), "--json")
			var got resumed
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			written, err := os.ReadFile(got.Path)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Dir(got.Path) != filepath.Dir(path) || got.Path == path || filepath.Base(got.Path) != got.SessionID+".jsonl" {
				t.Fatalf("written to %s", got.Path)
			}
			back := bytes.ReplaceAll(written, []byte(got.SessionID), []byte(session))
			if bytes.Contains(written, []byte(session)) || !bytes.HasPrefix(data[:end], back) {
				t.Fatalf("%s, call %d: no prefix of the original", file, calls)
			}
			open := transcript.Read(transcript.ClaudeCode, back)
			// Of calls made at once, the first to end leaves the others open.
			last := back[bytes.LastIndexByte(back[:len(back)-1], '\n')+1:]
			if open.Open != "" || open.Calls > 0 && !bytes.Contains(last, []byte(`"tool_result"`)) {
				t.Fatalf("%s, call %d: ends in %.80s, open %q", file, calls, last, open.Open)
			}
			if atOnce := transcript.Read(transcript.ClaudeCode, data[:end]).Open != ""; !atOnce && (len(back) != end || open.Calls != calls) {
				t.Fatalf("%s, call %d: only %d calls are kept", file, calls, open.Calls)
			}
			if want := "cd " + shellQuote(dir) + " && claude --resume " + got.SessionID; got.Command != want {
				t.Fatalf("command %q, want %q", got.Command, want)
			}
		}
		if want := map[string]int{"claude-code-a.jsonl": 28, "claude-code-b.jsonl": 52}[file]; calls != want {
			t.Errorf("%s: %d calls, want %d", file, calls, want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the original's place was written to")
		}
	}
}

func TestResumeAgain(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	data, err := os.ReadFile("../../autotrigger/transcript/testdata/codex-stub.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	const session = "01a2052d-0c16-7ab2-841c-cdb8a6890173"
	folder := filepath.Join(dir, "elsewhere", "sessions", "2026", "11", "22")
	path := filepath.Join(folder, "rollout-2026-11-22T21-32-48-"+session+".jsonl")
	id := d.hold("codex:"+session, nil, map[string][]byte{path: data})
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	first, talk := resumeRun(t, 0, id.String())
	second, _ := resumeRun(t, 0, id.String())
	if first == second || !strings.HasPrefix(first, "cd /tmp/agent/proj && CODEX_HOME="+filepath.Join(dir, "elsewhere")+" codex resume ") || !strings.Contains(talk, "is gone") {
		t.Errorf("commands %q and %q, said %q", first, second, talk)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "rollout-*.jsonl"))
	if now, _ := os.ReadFile(path); len(files) != 3 || !bytes.Equal(now, data) {
		t.Errorf("%d files, the original is as it was: %v", len(files), bytes.Equal(now, data))
	}
	text, _ := resumeRun(t, 0, id.String(), "--recap")
	if len(text) >= transcript.RecapBytes || !strings.Contains(text, "please do STUB:") || !strings.Contains(text, "exec_command") {
		t.Errorf("recap:\n%s", text)
	}
	d.files[path] = append(bytes.Clone(data), 'x')
	if _, talk := resumeRun(t, 5, id.String()); !strings.Contains(talk, path) {
		t.Errorf("damaged: %s", talk)
	}
}

func TestResumeOfNothing(t *testing.T) {
	_, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	id := d.hold("x", nil, map[string][]byte{"/w/notes.md": []byte("x"), "/w/log.jsonl": []byte("{\"a\":1}\n")})
	if _, talk := resumeRun(t, 4, id.String()); !strings.Contains(talk, "--recap") {
		t.Errorf("said %q", talk)
	}
	if text, _ := resumeRun(t, 0, id.String(), "--recap"); !strings.Contains(text, "0 tool calls done") {
		t.Errorf("recap %q", text)
	}
	call := []byte(`{"type":"assistant","sessionId":"s","message":{"content":[{"type":"tool_use","id":"a","name":"Bash"}]}}` + "\n")
	id = d.hold("y", nil, map[string][]byte{"/w/a.jsonl": call, "/w/b.jsonl": call})
	if _, talk := resumeRun(t, 2, id.String()); !strings.Contains(talk, "/w/b.jsonl") {
		t.Errorf("said %q", talk)
	}
	if _, talk := resumeRun(t, 4, id.String(), "--file", "/w/a.jsonl"); !strings.Contains(talk, "before anything was finished") {
		t.Errorf("said %q", talk)
	}
}

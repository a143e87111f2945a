package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// payloads are the real events of an agent, with the transcript moved into dir.
func payloads(t *testing.T, agent, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join("testdata", "hooks", agent, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no payloads", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".json")] = bytes.ReplaceAll(b, []byte("/tmp/agent"), []byte(dir))
	}
	return out
}

// wantTold is what each kind of event must make of itself where there is no transcript to follow.
var wantTold = map[string]checkpoint.Cause{
	"UserPromptSubmit": "prompt", "BeforeAgent": "prompt", "PostToolUse": "tool_call", "AfterTool": "tool_call", "PostToolUseFailure": "error",
	"PostToolBatch": "tool_call", "StopFailure": "error", "PreCompact": "context_compaction_warning", "SessionEnd": "disconnect",
}

func TestHookTakesEveryRealEvent(t *testing.T) {
	for _, agent := range []string{"claude-code", "codex", "gemini"} {
		dir, socket := hookHome(t)
		for name, event := range payloads(t, agent, dir) {
			os.Remove(socket)
			d := newFakeDaemon(t, socket)
			hookRun(t, agent, event)
			kind, _, _ := strings.Cut(name, "-")
			want := wantTold[kind]
			if name == "AfterTool-2" || name == "AfterTool-read_file" {
				want = "error" // the exit status is in the words, and the error in the response
			}
			told := d.told()
			var got checkpoint.Cause
			if len(told) > 0 {
				got = told[0].Cause
			}
			if got != want || len(told) > 1 {
				t.Errorf("%s %s: told %d, %q; want %q", agent, name, len(told), got, want)
			}
			for _, p := range told {
				var detail hookDetail
				if json.Unmarshal(p.Detail, &detail) != nil || detail.EventID == "" || (detail.ID == "") != (textOf(event, "tool_use_id") == "" && kind != "PostToolBatch") || detail.Event != kind || len(p.State) < 10 || p.Message == "" {
					t.Errorf("%s %s: detail %s, message %q, state %.40s", agent, name, p.Detail, p.Message, p.State)
				}
			}
			s := d.byKey[agent+":"+textOf(event, "session_id")]
			if s == nil || s.Labels["agent"] != agent || s.Labels["cwd"] != dir+"/proj" || !s.Auto.OnToolCall || len(s.Auto.Watch) == 0 || s.Auto.Watch[0].Path != textOf(event, "transcript_path") {
				t.Errorf("%s %s: the session is %+v", agent, name, s)
			}
			if ends := d.count("session.detach"); ends != map[bool]int{true: 1}[kind == "SessionEnd"] {
				t.Errorf("%s %s: %d detaches", agent, name, ends)
			}
			d.l.Close()
		}
	}
}

func textOf(event []byte, member string) string {
	m := members(event)
	return m.text(member)
}

func TestHookPromptIsTheMessage(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	hookRun(t, "claude-code", payloads(t, "claude-code", dir)["UserPromptSubmit"])
	hookRun(t, "gemini", payloads(t, "gemini", dir)["BeforeAgent"])
	hookRun(t, "cursor", []byte(`{"conversation_id":"c1","hook_event_name":"beforeSubmitPrompt","prompt":"mend it","workspace_roots":["/w"],"transcript_path":null}`))
	told := d.told()
	if len(told) != 3 {
		t.Fatalf("told %d", len(told))
	}
	for i, want := range []string{"please do STUB:[", "please do STUB:[", "mend it"} {
		if !strings.HasPrefix(told[i].Message, want) {
			t.Errorf("message %q, want %q", told[i].Message, want)
		}
	}
}

// With a transcript that the daemon follows, tool calls are its business.
func TestHookLeavesToolCallsToTheTranscript(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	events := payloads(t, "claude-code", dir)
	hookRun(t, "claude-code", events["SessionStart"])
	path := textOf(events["PostToolUse"], "transcript_path")
	content, err := os.ReadFile("../../autotrigger/transcript/testdata/claude-stub.jsonl")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"PostToolUse", "PostToolBatch", "PostToolUseFailure", "PostToolBatch-2"} {
		hookRun(t, "claude-code", events[name])
	}
	if told := d.told(); len(told) != 0 {
		t.Errorf("told %d calls that the followed transcript shows", len(told))
	}
	s := d.byKey["claude-code:04daf0ea-6ac3-4f34-9d27-b3685a908016"]
	if !s.Auto.Watch[0].FromStart || s.Auto.Watch[0].Format != "claude-code" || !strings.HasSuffix(s.Auto.Watch[1].Path, "/04daf0ea-6ac3-4f34-9d27-b3685a908016/subagents/*.jsonl") {
		t.Errorf("watches %+v", s.Auto.Watch)
	}

	// A session that is new to the daemon, with calls in its past: only this one is told.
	delete(d.byKey, s.Key)
	hookRun(t, "claude-code", events["PostToolUseFailure"])
	told := d.told()
	if len(told) != 1 || told[0].Cause != checkpoint.CauseError || told[0].State != nil {
		t.Fatalf("told %+v", told)
	}
	var detail hookDetail
	if json.Unmarshal(told[0].Detail, &detail) != nil || detail.ID != "toolu_d5b6a2f2d0b440cf823a8fae" || detail.Line == 0 || detail.Path != path {
		t.Errorf("detail %s", told[0].Detail)
	}
	if d.byKey[s.Key].Auto.Watch[0].FromStart {
		t.Error("the calls of the past would each make a checkpoint")
	}
}

// A daemon that runs as another user may not read the transcript: the events are kept.
func TestHookTellsAllToAnotherUsersDaemon(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	d.deny = true
	events := payloads(t, "codex", dir)
	if err := writeBelow(textOf(events["PostToolUse"], "transcript_path"), "{}\n"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SessionStart", "UserPromptSubmit", "PostToolUse", "SessionEnd"} {
		hookRun(t, "codex", events[name])
	}
	told := d.told()
	if len(told) != 3 {
		t.Fatalf("told %d", len(told))
	}
	for _, p := range told {
		if len(p.State) < 100 {
			t.Errorf("%s holds %s", p.Cause, p.State)
		}
	}
}

func TestHookOpensAndFollowsAnew(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	event := payloads(t, "codex", dir)["SessionStart"]
	hookRun(t, "codex", event)
	s := d.byKey["codex:"+textOf(event, "session_id")]
	s.Status = checkpoint.Closed
	s.Auto.IntervalSeconds = 7
	hookRun(t, "codex", bytes.ReplaceAll(event, []byte("rollout-2026"), []byte("rollout-2027")))
	if s.Status != checkpoint.Active || len(s.Auto.Watch) != 2 || s.Auto.IntervalSeconds != 7 {
		t.Errorf("the session is %s and watches %+v every %d s", s.Status, s.Auto.Watch, s.Auto.IntervalSeconds)
	}
	hookRun(t, "codex", event)
	if n := d.count("auto.enable"); n != 1 {
		t.Errorf("%d auto.enable, want 1", n)
	}
	s.Auto = nil // auto.disable
	hookRun(t, "codex", event)
	if n := d.count("auto.enable"); n != 1 {
		t.Error("automation that was disabled was enabled")
	}
}

func TestHookSurvivesEverything(t *testing.T) {
	dir, socket := hookHome(t)
	good := payloads(t, "claude-code", dir)["UserPromptSubmit"]
	huge := append(bytes.TrimSuffix(bytes.TrimSpace(good), []byte("}")), `,"tool_response":"`...)
	huge = append(huge, bytes.Repeat([]byte("x"), hookReadLimit+1<<20)...)
	for name, event := range map[string][]byte{
		"empty": nil, "not JSON": []byte("hello"), "array": []byte("[1]"), "null": []byte("null"), "no session": []byte(`{"hook_event_name":"Stop"}`),
		"wrong types": []byte(`{"session_id":7,"cwd":[],"hook_event_name":{}}`), "bad UTF-8": []byte("{\"session_id\":\"\xff\",\"prompt\":\"\xfe\",\"hook_event_name\":\"UserPromptSubmit\"}"),
		"long id":   []byte(`{"session_id":"` + strings.Repeat("x", 5000) + `"}`),
		"cut short": good[:len(good)/2], "deep": []byte(`{"session_id":"d","tool_input":` + strings.Repeat("[", 20000)),
		"relative path": []byte(`{"session_id":"r","transcript_path":"../../etc/passwd","hook_event_name":"Stop"}`), "huge": huge,
	} {
		for _, up := range []bool{false, true} {
			os.Remove(socket)
			var d *fakeDaemon
			if up {
				d = newFakeDaemon(t, socket)
			}
			for agent := range hookAgents {
				if took := hookRun(t, agent, event); took > 2*time.Second {
					t.Errorf("%s: %v", name, took)
				}
			}
			if d != nil {
				d.l.Close()
				if name == "huge" && len(d.told()) == 0 {
					t.Error("of an event that is too long the members before the long one were lost")
				}
			}
		}
	}
}

func TestHookWrongCallsNeverExit2(t *testing.T) {
	hookHome(t)
	for _, args := range [][]string{{"hook"}, {"hook", "word"}, {"hook", "claude-code", "--word"}, {"hook", "--word"}, {"hook", "install", "word"}} {
		var out, talk bytes.Buffer
		if code := run(t.Context(), args, strings.NewReader("{}"), &out, &talk); code != 1 || talk.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit %d, said %q, printed %q", args, code, talk.String(), out.String())
		}
	}
}

func TestHookSpoolsAndIsTakenInOnce(t *testing.T) {
	dir, socket := hookHome(t)
	events := payloads(t, "claude-code", dir)
	for _, name := range []string{"SessionStart", "UserPromptSubmit", "PostToolUse", "SessionEnd"} {
		if took := hookRun(t, "claude-code", events[name]); took > hookDeadline {
			t.Errorf("%s with no daemon: %v", name, took)
		}
	}
	spoolDir := filepath.Join(dir, "data.spool")
	if n := len(spooled(spoolDir)); n != 4 {
		t.Fatalf("%d events in the spool, want 4", n)
	}
	if info, err := os.Stat(spoolDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the spool is %v, %v", info.Mode(), err)
	}
	copies := map[string][]byte{}
	for _, path := range spooled(spoolDir) {
		copies[path], _ = os.ReadFile(path)
	}
	if err := os.WriteFile(filepath.Join(spoolDir, "00000000000000000001-x.json"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newFakeDaemon(t, socket)
	drain := func() {
		t.Helper()
		var out, talk bytes.Buffer
		if code := run(t.Context(), []string{"hook", "drain"}, strings.NewReader(""), &out, &talk); code != 0 {
			t.Fatalf("drain: exit %d, %s", code, talk.String())
		}
	}
	drain()
	want := []checkpoint.Cause{"prompt", "tool_call", "disconnect"}
	told := d.told()
	if len(told) != len(want) || len(spooled(spoolDir)) != 0 {
		t.Fatalf("told %d events, %d left", len(told), len(spooled(spoolDir)))
	}
	for i, p := range told {
		if p.Cause != want[i] {
			t.Errorf("event %d is %s, want %s", i, p.Cause, want[i])
		}
	}
	// The same files again, as after a crash before they were removed: nothing is made twice.
	for path, content := range copies {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	drain()
	if len(d.made) != len(want) || len(spooled(spoolDir)) != 0 {
		t.Errorf("%d made after the second time, %d left", len(d.made), len(spooled(spoolDir)))
	}
}

// A daemon that accepts and never answers, as one stopped by SIGSTOP does.
func TestHookGivesUpOnASilentDaemon(t *testing.T) {
	dir, socket := hookHome(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	event := payloads(t, "claude-code", dir)["UserPromptSubmit"]
	first, second := hookRun(t, "claude-code", event), hookRun(t, "claude-code", event)
	if first < hookPatience/2 || first > hookDeadline+100*time.Millisecond {
		t.Errorf("the first took %v", first)
	}
	if second > hookDeadline/2 {
		t.Errorf("the second waited %v again", second)
	}
	if n := len(spooled(filepath.Join(dir, "data.spool"))); n != 2 {
		t.Errorf("%d spooled, want 2", n)
	}
}

// An agent that never ends its event does not hold the hook.
func TestHookGivesUpOnASilentAgent(t *testing.T) {
	hookHome(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var out bytes.Buffer
	start := time.Now()
	if code := run(t.Context(), []string{"hook", "codex"}, r, &out, &out); code != 0 || out.Len() > 0 || time.Since(start) > 2*hookDeadline {
		t.Errorf("exit %d after %v, printed %q", code, time.Since(start), out.String())
	}
}

// A capture that takes long is not waited for, and not lost either.
func TestHookDoesNotWaitForTheCapture(t *testing.T) {
	dir, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	d.slow = make(chan struct{})
	if took := hookRun(t, "claude-code", payloads(t, "claude-code", dir)["PreCompact"]); took > hookDeadline {
		t.Errorf("waited %v", took)
	}
	close(d.slow)
	spoolDir := filepath.Join(dir, "data.spool")
	if n := len(spooled(spoolDir)); n != 1 {
		t.Fatalf("%d spooled, want 1", n)
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"hook", "drain"}, strings.NewReader(""), &out, &out); code != 0 {
		t.Fatal(out.String())
	}
	if len(d.made) != 1 || len(spooled(spoolDir)) != 0 {
		t.Errorf("%d made, %d left", len(d.made), len(spooled(spoolDir)))
	}
}

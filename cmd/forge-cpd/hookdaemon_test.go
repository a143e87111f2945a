package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/daemon"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// realDaemon runs the daemon in this process, on hookHome's paths, and gives a client.
func realDaemon(t *testing.T) (c *client.Client, stop func()) {
	t.Helper()
	cfg, paths, err := config.Resolve(config.Flags{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- daemon.Run(ctx, daemon.Options{Config: cfg, Paths: paths, Version: version, Ready: func(rpc.Info) { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal("the daemon did not start:", err)
	}
	c = &client.Client{Socket: paths.Socket}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error("the daemon ended with:", err)
		}
	}
	t.Cleanup(stop)
	return c, stop
}

// taken waits until a session has n checkpoints, and a moment more for one too many.
func taken(t *testing.T, c *client.Client, key string, n int) []*checkpoint.Checkpoint {
	t.Helper()
	var list []*checkpoint.Checkpoint
	look := func() int {
		list = nil
		for s, err := range c.AllCheckpoints(t.Context(), rpc.CheckpointListParams{SessionRef: client.ByKey(key), Limit: 1000}) {
			if err != nil {
				t.Fatal(err)
			}
			cp, err := c.Checkpoint(t.Context(), s.ID)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, cp)
		}
		return len(list)
	}
	for end := time.Now().Add(20 * time.Second); look() < n && time.Now().Before(end); {
		<-time.After(20 * time.Millisecond)
	}
	<-time.After(200 * time.Millisecond)
	if got := look(); got != n {
		for _, cp := range list {
			t.Logf("%d %s %.60q %s", cp.Sequence, cp.Cause, cp.Message, cp.Context.Detail)
		}
		t.Fatalf("%d checkpoints, want %d", got, n)
	}
	return list
}

func appendTo(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A run of Claude Code as it was seen: hooks come before the result is in the transcript.
func TestHooksAndTranscriptMakeOneCheckpointEach(t *testing.T) {
	dir, _ := hookHome(t)
	c, _ := realDaemon(t)
	events := payloads(t, "claude-code", dir)
	const session = "04daf0ea-6ac3-4f34-9d27-b3685a908016"
	path := textOf(events["SessionStart"], "transcript_path")
	data, err := os.ReadFile("../../autotrigger/transcript/testdata/claude-stub.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	_, paths, err := config.Resolve(config.Flags{})
	if err != nil {
		t.Fatal(err)
	}
	hook := func(name string) {
		hookRun(t, "claude-code", events[name])
		// On a machine so busy that the daemon was too slow for the hook; a hook that is no
		// test starts this by itself.
		if _, err := takeInSpool(t.Context(), c, paths.Socket, spoolDirs(paths)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "proj"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q", "-b", "trunk"}, {"-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "x"}} {
		if out, err := exec.Command("git", append([]string{"-C", filepath.Join(dir, "proj")}, args...)...).CombinedOutput(); err != nil {
			t.Skipf("git: %v %s", err, out)
		}
	}
	hook("SessionStart")
	hook("UserPromptSubmit")
	for line := range bytes.Lines(data) {
		switch {
		case bytes.Contains(line, []byte(`"type": "tool_result"`)) && bytes.Contains(line, []byte("toolu_ba6f")):
			hook("PostToolUse")
			appendTo(t, path, line)
			hook("PostToolBatch")
		case bytes.Contains(line, []byte(`"type": "tool_result"`)):
			hook("PostToolUseFailure")
			appendTo(t, path, line)
			hook("PostToolBatch-2")
		default:
			appendTo(t, path, line)
		}
	}
	taken(t, c, "claude-code:"+session, 3)
	hook("Stop")
	hook("SessionEnd")
	list := taken(t, c, "claude-code:"+session, 4)
	for i, want := range []checkpoint.Cause{"prompt", "tool_call", "error", "disconnect"} {
		cp := list[i]
		if cp.Cause != want {
			t.Fatalf("checkpoint %d is %s, want %s", i, cp.Cause, want)
		}
		if want == "prompt" {
			if !strings.HasPrefix(cp.Message, "please do STUB:") || !strings.Contains(string(cp.State), "please do STUB:") {
				t.Errorf("the prompt's is %q with %s", cp.Message, cp.State)
			}
			continue
		}
		// The hook of the end is this process, and works elsewhere.
		if g := cp.Context.Git; want != "disconnect" && (cp.Context.WorkingDir != filepath.Join(dir, "proj") || g == nil || g.Branch != "trunk" || len(g.Head) < 40) {
			t.Errorf("%s: in %q, git %+v", want, cp.Context.WorkingDir, g)
		}
		f, err := c.File(t.Context(), cp.ID, path)
		if err != nil || f.Content == nil {
			t.Fatalf("%s: %v", want, err)
		}
		done := transcript.Read(transcript.ClaudeCode, []byte(*f.Content))
		if done.Calls != min(i, 2) || done.Failed != max(0, min(i, 2)-1) {
			t.Errorf("%s: the transcript shows %d calls, %d failed", want, done.Calls, done.Failed)
		}
	}
	// What a sub-agent does is in a file of its own, which appears later, and is kept with the rest.
	sub := filepath.Join(strings.TrimSuffix(path, ".jsonl"), "subagents", "agent-a1.jsonl")
	appendTo(t, sub, []byte(`{"type":"assistant","sessionId":"x","message":{"content":[{"type":"tool_use","id":"toolu_sub","name":"Grep"}]}}
{"type":"user","sessionId":"x","message":{"content":[{"type":"tool_result","tool_use_id":"toolu_sub","content":"found"}]}}
`))
	last := taken(t, c, "claude-code:"+session, 5)[4]
	if len(last.Context.Files) != 2 || !strings.Contains(string(last.Context.Detail), "toolu_sub") || last.Cause != checkpoint.CauseToolCall {
		t.Errorf("the sub-agent's: %s with %d files, %s", last.Cause, len(last.Context.Files), last.Context.Detail)
	}
	// The session is open: the agent may come back.
	if s, err := c.Session(t.Context(), client.ByKey("claude-code:"+session)); err != nil || s.Status != checkpoint.Active {
		t.Errorf("%+v, %v", s, err)
	}
}

// Two real conversations, written in one burst while the daemon follows: a checkpoint for
// each finished call, and from each of them the way back, with the original deleted.
func TestResumeFromEveryCheckpointOfARealConversation(t *testing.T) {
	dir, _ := hookHome(t)
	c, _ := realDaemon(t)
	for name, want := range map[string]struct{ calls, failed int }{"claude-code-a": {28, 1}, "claude-code-b": {52, 11}} {
		data, err := os.ReadFile("../../autotrigger/transcript/testdata/" + name + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		session := transcript.SessionID(transcript.ClaudeCode, "", data)
		path := filepath.Join(dir, ".claude", "projects", "-w", session+".jsonl")
		hookRun(t, "claude-code", fmt.Appendf(nil, `{"session_id":%q,"transcript_path":%q,"cwd":%q,"hook_event_name":"SessionStart","source":"startup"}`, session, path, dir))
		appendTo(t, path, data)
		list := taken(t, c, "claude-code:"+session, want.calls)
		if err := os.RemoveAll(filepath.Join(dir, ".claude")); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, cp := range list {
			if cp.Cause == checkpoint.CauseError {
				failed++
			}
			out, _ := resumeRun(t, 0, cp.ID.String(), "--json")
			var got resumed
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			written, err := os.ReadFile(got.Path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(data, bytes.ReplaceAll(written, []byte(got.SessionID), []byte(session))) || got.Path == path {
				t.Fatalf("%s: what was written to %s is no prefix of the original", name, got.Path)
			}
			var detail struct{ ID string }
			if err := json.Unmarshal(cp.Context.Detail, &detail); err != nil {
				t.Fatal(err)
			}
			// The first of calls made at once leaves the others open: it is cut before them.
			f, err := c.File(t.Context(), cp.ID, path)
			if err != nil {
				t.Fatal(err)
			}
			alone := transcript.Read(transcript.ClaudeCode, []byte(*f.Content)).Open == ""
			if alone && !bytes.Contains(written, []byte(`"tool_use_id":"`+detail.ID+`"`)) {
				t.Errorf("%s: the result of %s is not in what is resumed", name, detail.ID)
			}
		}
		if failed != want.failed {
			t.Errorf("%s: %d errors, want %d", name, failed, want.failed)
		}
		text, _ := resumeRun(t, 0, list[len(list)-1].ID.String(), "--recap")
		if len(text) >= transcript.RecapBytes || len(text) < 300 {
			t.Errorf("%s: a recap of %d bytes:\n%s", name, len(text), text)
		}
	}
}

// Events that no daemon took are taken in by the next one, once.
func TestSpoolIsTakenInAtStart(t *testing.T) {
	dir, _ := hookHome(t)
	events := payloads(t, "codex", dir)
	for _, name := range []string{"SessionStart", "UserPromptSubmit", "PostToolUse", "SessionEnd"} {
		hookRun(t, "codex", events[name])
	}
	_, paths, err := config.Resolve(config.Flags{})
	if err != nil {
		t.Fatal(err)
	}
	copies := map[string][]byte{}
	for _, path := range spooled(paths.DataDir + ".spool") {
		if copies[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	var c *client.Client
	var stop func()
	for range 2 { // the second time by another daemon, as after a crash before the files were removed
		if stop != nil {
			stop()
		}
		c, stop = realDaemon(t)
		for path, data := range copies {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := takeInSpool(t.Context(), c, paths.Socket, spoolDirs(paths)); err != nil {
			t.Fatal(err)
		}
	}
	list := taken(t, c, "codex:"+textOf(events["SessionStart"], "session_id"), 3)
	for i, want := range []checkpoint.Cause{"prompt", "tool_call", "disconnect"} {
		if list[i].Cause != want || len(list[i].State) < 50 {
			t.Errorf("checkpoint %d is %s with %s", i, list[i].Cause, list[i].State)
		}
	}
	for _, path := range spooled(paths.DataDir + ".spool") {
		t.Error("left in the spool:", path)
	}
}

// A run under `forge-cpd run` that puts its state and fails leaves it in a checkpoint.
func TestRunKeepsTheStateOfAProgramThatFails(t *testing.T) {
	hookHome(t)
	c, _ := realDaemon(t)
	var out, talk bytes.Buffer
	code := run(t.Context(), []string{"run", "--key", "k", "--", "sh", "-c", `echo $FORGE_CPD_SESSION; echo why >&2; kill -9 $$`}, strings.NewReader(""), &out, &talk)
	list := taken(t, c, "k", 1)
	if code != 137 || list[0].Cause != checkpoint.CauseError || !strings.Contains(string(list[0].Context.Detail), `"why\n"`) ||
		list[0].SessionID.String() != strings.TrimSpace(out.String()) || list[0].Context.WorkingDir == "" {
		t.Errorf("exit %d, %s, checkpoint %+v", code, out.String(), list[0])
	}
}

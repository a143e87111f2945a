package transcript

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func load(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, format string, match *checkpoint.Match, data []byte) []Call {
	t.Helper()
	p, err := New(format, match)
	if err != nil {
		t.Fatal(err)
	}
	var calls []Call
	n := 0
	for _, line := range lines(data) {
		n++
		calls = append(calls, p.Line(n, bytes.TrimSuffix(line, []byte("\n")))...)
	}
	return calls
}

func count(calls []Call) (failed, plain int) {
	for _, c := range calls {
		if c.Plain {
			plain++
		} else if c.Cause == checkpoint.CauseError {
			failed++
		}
	}
	return failed, plain
}

func TestFinishedCallsOfRealTranscripts(t *testing.T) {
	for _, c := range []struct {
		file, format     string
		finished, failed int
	}{
		{"claude-code-a.jsonl", ClaudeCode, 28, 1},
		{"claude-code-b.jsonl", ClaudeCode, 52, 11},
		{"claude-stub.jsonl", ClaudeCode, 2, 1},
		{"codex-stub.jsonl", Codex, 2, 1},
		{"gemini-stub.jsonl", Gemini, 2, 1},
	} {
		calls := parse(t, c.format, nil, load(t, c.file))
		failed, plain := count(calls)
		if len(calls) != c.finished || failed != c.failed || plain != 0 {
			t.Errorf("%s: %d finished, %d failed, %d plain; want %d, %d, 0", c.file, len(calls), failed, plain, c.finished, c.failed)
		}
		ids := map[string]bool{}
		for _, call := range calls {
			if call.Tool == "" || call.ID == "" || ids[call.ID] {
				t.Errorf("%s: %+v has no name or id, or came twice", c.file, call)
			}
			ids[call.ID] = true
		}
	}
}

func TestParserIsKeptOverARestart(t *testing.T) {
	data := load(t, "claude-code-b.jsonl")
	want := parse(t, ClaudeCode, nil, data)
	var got []Call
	p, _ := New(ClaudeCode, nil)
	for _, line := range lines(data) {
		kept, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		p, _ = New(ClaudeCode, nil)
		if err := json.Unmarshal(kept, p); err != nil {
			t.Fatal(err)
		}
		got = append(got, p.Line(1, line)...)
	}
	if len(got) != len(want) {
		t.Fatalf("%d calls, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("call %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestCodexFailures(t *testing.T) {
	for output, failed := range map[string]bool{
		`"Process exited with code 0\nOutput:\nfine"`:                       false,
		`"Wall time: 1 s\nProcess exited with code 2\nOutput:\n"`:           true,
		`"Process exited with code 0\nOutput:\nProcess exited with code 3"`: false,
		`"Exit code: 1\nWall time: 0 s\nOutput:\nno"`:                       true,
		`"Exit code: 0\nOutput:\nyes"`:                                      false,
		`"{\"output\":\"x\",\"metadata\":{\"exit_code\":1}}"`:               true,
		`"{\"output\":\"x\",\"metadata\":{\"exit_code\":0}}"`:               false,
		`"{\"kind\":\"a program's own JSON\"}"`:                             false,
		`{"content":"bad","success":false}`:                                 true,
		`{"content":"good","success":true}`:                                 false,
		`"aborted by user after 1.0s"`:                                      true,
		`[{"type":"input_text","text":"Exit code: 4"}]`:                     true,
		`12`: false,
	} {
		line := `{"type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":` + output + `}}`
		calls := parse(t, Codex, nil, []byte(line))
		if len(calls) != 1 || (calls[0].Cause == checkpoint.CauseError) != failed {
			t.Errorf("%s: %+v, want failed %v", output, calls, failed)
		}
	}
	calls := parse(t, Codex, nil, []byte(`{"type":"event_msg","payload":{"type":"error","message":"429"}}`))
	if len(calls) != 1 || !calls[0].Plain || calls[0].Cause != checkpoint.CauseError {
		t.Errorf("an API error: %+v", calls)
	}
}

func TestUnknownLinesTellNothing(t *testing.T) {
	junk := []string{
		"", "null", "[]", "12", `"x"`, "{", `{"type":`, "\xff\xfe", `{"type":7}`, `{"type":"user","message":"a text"}`,
		`{"type":"user","message":{"content":{"type":"tool_result","tool_use_id":"x"}}}`, `{"type":"user","message":{"content":[1,null,"x",{"type":9}]}}`,
		`{"type":"response_item","payload":[]}`, `{"type":"response_item"}`, `{"toolCalls":{"id":"x"}}`, `{"toolCalls":[null,{"id":"x"}]}`,
		`{"type":"assistant","message":{"content":[{"type":"tool_result","tool_use_id":"copy"}]}}`,
		`{"type":"progress","data":{"message":{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"copy"}]}}}}`,
		`{"type":"api-request-blob","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"copy"}]}}`,
		strings.Repeat("[", 20000),
	}
	for _, format := range []string{ClaudeCode, Codex, Gemini} {
		for _, line := range junk {
			if calls := parse(t, format, nil, []byte(line)); len(calls) != 0 {
				t.Errorf("%s: %.80q finished %+v", format, line, calls)
			}
		}
	}
}

func TestJSONLMatch(t *testing.T) {
	match := &checkpoint.Match{
		ToolCall: map[string]any{"event.kind": "tool", "done": true, "n": 1},
		Error:    map[string]any{"level": "error"},
	}
	for line, want := range map[string]string{
		`{"event":{"kind":"tool"},"done":true,"n":1.0,"tool":"sh","id":"1"}`:                    "tool_call sh 1",
		`{"event.kind":"tool","done":true,"n":1}`:                                               "tool_call  ",
		`{"event":{"kind":"tool"},"done":true,"n":1,"level":"error","id":12345678901234567890}`: "error  12345678901234567890",
		`{"event":{"kind":"tool"},"done":true,"n":2}`:                                           "",
		`{"event":{"kind":"tool"},"done":"true","n":1}`:                                         "",
		`{"event":"tool","done":true,"n":1}`:                                                    "",
		`{"level":"error"}`:                                                                     "plain",
		`{"level":"error"`:                                                                      "",
		`{"event":{"kind":"tool"},"done":true,"n":1e999999999}`:                                 "",
	} {
		got := ""
		for _, c := range parse(t, JSONL, match, []byte(line)) {
			if got = strings.Join([]string{string(c.Cause), c.Tool, c.ID}, " "); c.Plain {
				got = "plain"
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	for _, bad := range []*checkpoint.Match{nil, {}, {ToolCall: map[string]any{"": 1}}} {
		if _, err := New(JSONL, bad); err == nil {
			t.Errorf("match %+v was taken", bad)
		}
	}
	if _, err := New("word", nil); err == nil {
		t.Error("format word was taken")
	}
}

// At every line of the real transcripts, torn or not, the cut is a prefix, ends in a
// result, and leaves no call open.
func TestCutAtEveryLine(t *testing.T) {
	for file, format := range map[string]string{
		"claude-code-a.jsonl": ClaudeCode, "claude-code-b.jsonl": ClaudeCode, "claude-stub.jsonl": ClaudeCode,
		"codex-stub.jsonl": Codex, "gemini-stub.jsonl": Gemini,
	} {
		data := load(t, file)
		n, longest, afterResult := 0, 0, map[int]bool{}
		open := map[string]bool{}
		for at, line := range lines(data) {
			end := at + len(line)
			e := decoders[format](line)
			for _, o := range e.opened {
				open[o.id] = true
			}
			for _, r := range e.done {
				delete(open, r.id)
			}
			if len(e.done) > 0 && len(open) == 0 {
				longest, afterResult[end] = end, true
			}
			if n++; n%7 != 0 && !afterResult[end] && end != len(data) {
				continue
			}
			for _, torn := range [][]byte{nil, []byte(`{"type":"user","mess`)} {
				if torn != nil && line[len(line)-1] != '\n' {
					continue // it would be one line with the last
				}
				cut := Cut(format, append(bytes.Clone(data[:end]), torn...), false)
				if !bytes.HasPrefix(data, cut) {
					t.Fatalf("%s: the cut at %d is no prefix", file, end)
				}
				if longest > 0 && len(cut) != longest {
					t.Fatalf("%s: the cut at byte %d (torn %v) is %d long, want %d", file, end, torn != nil, len(cut), longest)
				}
				tail := Cut(format, append(bytes.Clone(data[:end]), torn...), true)
				if len(tail) < len(cut) || len(open) == 0 && len(tail) != end {
					t.Fatalf("%s: with its tail the cut at %d is %d long", file, end, len(tail))
				}
			}
		}
		if got := len(parse(t, format, nil, data)); len(afterResult) == 0 || len(afterResult) > got {
			t.Errorf("%s: %d places to cut for %d calls", file, len(afterResult), got)
		}
	}
}

func TestAnAbandonedCallDoesNotStopTheCut(t *testing.T) {
	data := `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a","name":"Bash"}]}}
{"type":"user","message":{"content":"go on"}}
{"type":"assistant","message":{"content":[{"type":"tool_use","id":"b","name":"Bash"}]}}
{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"b"}]}}
`
	if got := Cut(ClaudeCode, []byte(data), false); string(got) != data {
		t.Errorf("cut to %d of %d bytes", len(got), len(data))
	}
}

func TestWithSession(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 8, 7, 0, time.UTC)
	for file, c := range map[string]struct{ format, path, name string }{
		"claude-stub.jsonl": {ClaudeCode, "04daf0ea-6ac3-4f34-9d27-b3685a908016.jsonl", "ID.jsonl"},
		"codex-stub.jsonl":  {Codex, "rollout-x.jsonl", "rollout-2026-11-23T09-08-07-ID.jsonl"},
		"gemini-stub.jsonl": {Gemini, "session-x.jsonl", "session-2026-11-23T09-08-ID8.jsonl"},
	} {
		data := load(t, file)
		if g := Guess(data); g != c.format {
			t.Errorf("%s: guessed as %q", file, g)
		}
		old, id := SessionID(c.format, c.path, data), NewSessionID(c.format)
		out, err := WithSession(c.format, data, old, id)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte(old)) || SessionID(c.format, id+".jsonl", out) != id {
			t.Errorf("%s: the old session is still named, or the new one is not", file)
		}
		if bytes.Count(out, []byte("\n")) != bytes.Count(data, []byte("\n")) || bytes.Contains(out, []byte(`"<hook_context>`)) && c.format == Gemini {
			t.Errorf("%s: lines were lost or the hook's context was not", file)
		}
		for _, line := range lines(out) {
			if !json.Valid(line) {
				t.Errorf("%s: %.80s is no JSON any more", file, line)
			}
		}
		name, err := FileName(c.format, id, now)
		if want := strings.NewReplacer("ID8", id[:8], "ID", id).Replace(c.name); err != nil || name != want {
			t.Errorf("file name %q, %v; want %q", name, err, want)
		}
	}
	if _, err := WithSession(ClaudeCode, []byte("{}"), "", NewSessionID(ClaudeCode)); err == nil {
		t.Error("a file that names no session was taken")
	}
}

func TestRecap(t *testing.T) {
	for file, format := range map[string]string{"claude-code-a.jsonl": ClaudeCode, "claude-code-b.jsonl": ClaudeCode, "codex-stub.jsonl": Codex, "gemini-stub.jsonl": Gemini} {
		d := Read(format, load(t, file))
		text := d.Recap(format, "2026-11-23", &checkpoint.Git{Head: "abc", Branch: "main"}, &checkpoint.Git{Head: "def", Branch: "main", Dirty: true})
		if len(text) >= RecapBytes || len(d.Prompts) == 0 || d.Failed == 0 || !strings.Contains(text, d.Prompts[len(d.Prompts)-1][:8]) {
			t.Errorf("%s: recap of %d bytes with %d prompts and %d failures", file, len(text), len(d.Prompts), d.Failed)
		}
		if !strings.Contains(text, "moved on") || !strings.Contains(text, "uncommitted") {
			t.Errorf("%s: git then and now is missing:\n%s", file, text)
		}
	}
	long := Done{CWD: strings.Repeat("é", 9000), Said: shorten(strings.Repeat("é", 9000), saidBytes), Open: shorten(strings.Repeat("x", 9000), failureBytes)}
	for range recapFiles {
		long.Files = append(long.Files, strings.Repeat("ü", 5000))
	}
	for range recapPrompts {
		long.Prompts = append(long.Prompts, shorten(strings.Repeat("日\n", 5000), promptBytes))
	}
	for range recapFailures {
		long.Failures = append(long.Failures, shorten(strings.Repeat("日", 5000), failureBytes))
	}
	if n := len(long.Recap(ClaudeCode, "now", &checkpoint.Git{Head: strings.Repeat("a", 999), Branch: strings.Repeat("b", 999)}, nil)); n >= RecapBytes {
		t.Errorf("the longest recap has %d bytes", n)
	}
}

func TestWhatAParserRemembersIsBounded(t *testing.T) {
	p := newAgentParser(decodeClaude)
	for i := range 3 * maxOpen {
		id, _ := json.Marshal(i)
		p.Line(i, []byte(`{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a`+string(id)+`","name":"Bash"}]}}`))
		p.Line(i, []byte(`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"b`+string(id)+`"}]}}`))
	}
	if len(p.names.value) != maxOpen || len(p.done.value) != maxDone || len(p.names.order) > 2*maxOpen || len(p.done.order) > 2*maxDone {
		t.Errorf("kept %d open and %d finished", len(p.names.value), len(p.done.value))
	}
}

func FuzzLine(f *testing.F) {
	for _, file := range []string{"claude-stub.jsonl", "codex-stub.jsonl", "gemini-stub.jsonl"} {
		for _, line := range lines(load(f, file)) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for format := range decoders {
			p, _ := New(format, nil)
			p.Line(1, b)
			if cut := Cut(format, b, true); !bytes.HasPrefix(b, cut) {
				t.Fatal("the cut is no prefix")
			}
			if n := len(Read(format, b).Recap(format, "now", nil, nil)); n >= RecapBytes {
				t.Fatalf("a recap of %d bytes", n)
			}
		}
		p, _ := New(JSONL, &checkpoint.Match{ToolCall: map[string]any{"a.b": 1}})
		p.Line(1, b)
	})
}

package autotrigger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// eventually waits for a condition that the kernel's news bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func following(path string) *checkpoint.AutoConfig {
	return auto(func(c *checkpoint.AutoConfig) {
		c.OnToolCall = true
		w := checkpoint.DefaultWatch()
		w.Path, w.Format = path, FormatClaudeCode
		c.Watch = []checkpoint.Watch{w}
	})
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkCalls wants one request for each finished call of data, in order, each with the
// transcript up to the end of the call's line.
func checkCalls(t *testing.T, got []Request, path string, data []byte, calls, failed int) {
	t.Helper()
	errs := 0
	ids := map[string]bool{}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lastLine := 0
	for _, r := range got {
		if r.Cause == checkpoint.CauseError {
			errs++
		}
		ids[r.ToolCallID] = true
		var d struct {
			Tool, ID, Path string
			Line           int
		}
		if err := json.Unmarshal(r.Detail, &d); err != nil || d.Tool == "" || d.ID != r.ToolCallID || d.Path != path || d.Line < lastLine {
			t.Fatalf("detail %s: %v", r.Detail, err)
		}
		lastLine = d.Line
		want := bytes.Join(lines[:d.Line], nil)
		if len(r.Files) != 1 || !bytes.Equal(r.Files[0].Content, want) || r.Files[0].Path != path {
			t.Fatalf("line %d: the captured file is not the transcript up to it (%d files, problems %v)", d.Line, len(r.Files), r.Problems)
		}
		if !bytes.Contains(lines[d.Line-1], []byte(d.ID)) {
			t.Fatalf("line %d does not hold call %s", d.Line, d.ID)
		}
	}
	if len(got) != calls || errs != failed || len(ids) != calls {
		t.Fatalf("%d checkpoints, %d errors, %d ids; want %d, %d", len(got), errs, len(ids), calls, failed)
	}
}

var real = []struct {
	name          string
	calls, failed int
}{{"claude-code-a", 28, 1}, {"claude-code-b", 52, 11}}

func transcriptData(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("transcript", "testdata", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFollowRealTranscripts(t *testing.T) {
	for _, r := range real {
		data := transcriptData(t, r.name)
		for _, mode := range []struct {
			name  string
			write func(t *testing.T, path string)
		}{
			{"burst", func(t *testing.T, path string) { write(t, path, data) }},
			{"line by line", func(t *testing.T, path string) {
				for line := range bytes.Lines(data) {
					write(t, path, line)
				}
			}},
			{"in pieces that split lines", func(t *testing.T, path string) {
				for piece := range slices.Chunk(data, 1999) {
					write(t, path, piece)
				}
			}},
		} {
			t.Run(r.name+", "+mode.name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "later", "t.jsonl")
				k := &taker{}
				e := New(Options{Take: k.take, Save: k.save})
				id := checkpoint.NewID()
				mustSet(t, e, id, following(path), time.Time{}, nil)
				stop := start(t, e)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				mode.write(t, path)
				eventually(t, "all calls", func() bool { return len(k.requests()) >= r.calls })
				stop()
				checkCalls(t, k.got, path, data, r.calls, r.failed)
				if st := e.Status(id); st.Taken != uint64(r.calls) {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

func TestFollowOverRestarts(t *testing.T) {
	for _, r := range real {
		t.Run(r.name, func(t *testing.T) {
			data := transcriptData(t, r.name)
			path := filepath.Join(t.TempDir(), "t.jsonl")
			k := &taker{}
			id := checkpoint.NewID()
			written := 0
			for part := range slices.Chunk(data, len(data)/5+1) {
				// Half of what comes is written while nobody looks.
				write(t, path, part[:len(part)/2])
				e := New(Options{Take: k.take, Save: k.save})
				cfg := following(path)
				cfg.Watch[0].FromStart = true
				mustSet(t, e, id, cfg, time.Time{}, k.states[id])
				stop := start(t, e)
				write(t, path, part[len(part)/2:])
				written += len(part)
				want := bytes.Count(data[:bytes.LastIndexByte(data[:written], '\n')+1], []byte(`"type":"tool_result"`))
				if written == len(data) {
					want = r.calls
				}
				eventually(t, "the calls so far", func() bool { return len(k.requests()) >= min(want, r.calls) })
				stop()
			}
			checkCalls(t, k.got, path, data, r.calls, r.failed)
		})
	}
}

func TestFollowFromTheEndAndNames(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	lines := slices.Collect(bytes.Lines(data))
	path := filepath.Join(t.TempDir(), "t.jsonl")
	half := bytes.Join(lines[:90], nil)
	write(t, path, half)
	before := bytes.Count(half, []byte(`"type":"tool_result"`))
	write(t, path, lines[90][:10]) // a line that is not finished
	k := &taker{}
	e := New(Options{Take: k.take})
	mustSet(t, e, checkpoint.NewID(), following(path), time.Time{}, nil)
	stop := start(t, e)
	write(t, path, lines[90][10:])
	for _, line := range lines[91:] {
		write(t, path, line)
	}
	eventually(t, "the calls of the second half", func() bool { return len(k.requests()) >= 28-before })
	stop()
	if before == 0 || len(k.got) != 28-before {
		t.Fatalf("%d before, %d taken", before, len(k.got))
	}
	for _, r := range k.got {
		if strings.Contains(string(r.Detail), `"tool":""`) || !strings.Contains(string(r.Detail), `"tool"`) {
			t.Errorf("no name: %s", r.Detail)
		}
	}
}

func TestFollowRotationAndTruncation(t *testing.T) {
	call := func(id string) []byte {
		return []byte(`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"` + id + `"}]}}` + "\n")
	}
	for _, test := range []struct {
		name string
		do   func(t *testing.T, path string)
		want string
	}{
		{"renamed away with unread lines", func(t *testing.T, path string) {
			write(t, path, call("2"))
			must(t, os.Rename(path, path+".1"))
			write(t, path, call("3"))
		}, "1 2 3"},
		{"truncated and written anew", func(t *testing.T, path string) {
			must(t, os.Truncate(path, 0))
			write(t, path, call("4"))
		}, "1 4"},
		{"written anew, longer", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, append(call("5"), call("6")...), 0o600))
		}, "1 5 6"},
		{"replaced by a copy that goes on", func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path+".tmp", append(b, call("7")...), 0o600))
			must(t, os.Rename(path+".tmp", path))
		}, "1 7"},
		{"deleted and made again", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			write(t, path, call("8"))
		}, "1 8"},
		{"the same call again", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			write(t, path, call("1"))
			write(t, path, call("9"))
		}, "1 9"},
		{"its directory renamed and made anew", func(t *testing.T, path string) {
			must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+"-old"))
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			write(t, path, call("10"))
		}, "1 10"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dir", "t.jsonl")
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			k := &taker{}
			e := New(Options{Take: k.take})
			mustSet(t, e, checkpoint.NewID(), following(path), time.Time{}, nil)
			stop := start(t, e)
			write(t, path, call("1"))
			eventually(t, "the first call", func() bool { return len(k.requests()) == 1 })
			test.do(t, path)
			want := strings.Fields(test.want)
			eventually(t, "the last call", func() bool { return len(k.requests()) >= len(want) })
			stop()
			var got []string
			for _, r := range k.got {
				got = append(got, r.ToolCallID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("calls %v, want %v", got, want)
			}
		})
	}
}

// A changed watch of the same file goes on where the old one was.
func TestFollowGoesOnWhenItsConfigurationChanges(t *testing.T) {
	log := func(n string) []byte { return []byte(`{"kind":"call","n":` + n + `}` + "\n") }
	path := filepath.Join(t.TempDir(), "log.jsonl")
	cfg := auto(func(c *checkpoint.AutoConfig) {
		c.OnToolCall = true
		w := checkpoint.DefaultWatch()
		w.Path, w.Format, w.FromStart = path, FormatJSONL, true
		w.Match = &checkpoint.Match{ToolCall: map[string]any{"kind": "call"}}
		c.Watch = []checkpoint.Watch{w}
	})
	write(t, path, append(log("1"), log("2")...))
	k := &taker{}
	e := New(Options{Take: k.take})
	id := checkpoint.NewID()
	mustSet(t, e, id, cfg, time.Time{}, nil)
	stop := start(t, e)
	eventually(t, "the first calls", func() bool { return len(k.requests()) == 2 })
	changed := *cfg
	changed.Watch = slices.Clone(cfg.Watch)
	changed.Watch[0].DebounceMS = 1
	eventually(t, "the place behind the calls", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		st := e.sessions[id].files.save()
		return len(st) == 1 && len(st[followKey(cfg.Watch[0])].Files) == 1 && st[followKey(cfg.Watch[0])].Files[0].Offset == int64(2*len(log("1")))
	})
	mustSet(t, e, id, &changed, time.Time{}, nil)
	write(t, path, append(log("3"), log("4")...))
	eventually(t, "the calls after the change", func() bool { return len(k.requests()) >= 4 })
	stop()
	for i, r := range k.got {
		if len(k.got) != 4 || !strings.Contains(string(r.Detail), fmt.Sprintf(`"line":%d`, i+1)) {
			t.Errorf("%d of %d: %s", i, len(k.got), r.Detail)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

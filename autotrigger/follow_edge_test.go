package autotrigger

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestFollowTriesAgainWhatFailed(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	path := filepath.Join(t.TempDir(), "t.jsonl")
	k := &taker{}
	k.answer = func(n int, r Request) (Outcome, error) {
		if n == 3 || n == 4 {
			return Outcome{}, &checkpoint.Error{Kind: checkpoint.KindStorage, Message: "the disk is full", Retry: true}
		}
		return Outcome{CheckpointID: checkpoint.NewID(), Sequence: uint64(n), Timestamp: time.Now()}, nil
	}
	e := New(Options{Take: k.take, RetryEvery: time.Millisecond})
	id := checkpoint.NewID()
	mustSet(t, e, id, following(path), time.Time{}, nil)
	stop := start(t, e)
	write(t, path, data)
	eventually(t, "all calls", func() bool { return e.Status(id).Taken == 28 })
	stop()
	good := slices.Delete(k.got, 2, 4)
	checkCalls(t, good, path, data, 28, 1)
	if st := e.Status(id); st.Failed != 2 {
		t.Errorf("%+v", st)
	}
}

func TestHookAndTranscriptTellOneCallOnce(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	path := filepath.Join(t.TempDir(), "t.jsonl")
	k := &taker{}
	e := New(Options{Take: k.take})
	id := checkpoint.NewID()
	mustSet(t, e, id, following(path), time.Time{}, nil)
	stop := start(t, e)
	write(t, path, data)
	eventually(t, "all calls", func() bool { return len(k.requests()) >= 28 })
	for _, r := range k.requests() {
		out, err := e.Trigger(context.Background(), Trigger{Session: id, Cause: r.Cause, Detail: r.Detail})
		if err != nil || !out.Existing {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	stop()
	if len(k.got) != 28 {
		t.Errorf("%d checkpoints", len(k.got))
	}
}

func TestFollowErrorsOff(t *testing.T) {
	data := transcriptData(t, "claude-code-b")
	path := filepath.Join(t.TempDir(), "t.jsonl")
	k := &taker{}
	e := New(Options{Take: k.take})
	cfg := following(path)
	cfg.OnError = false
	mustSet(t, e, checkpoint.NewID(), cfg, time.Time{}, nil)
	stop := start(t, e)
	write(t, path, data)
	eventually(t, "all calls", func() bool { return len(k.requests()) >= 52 })
	stop()
	checkCalls(t, k.got, path, data, 52, 0)
}

func TestFollowGlobReadsLaterFilesFromTheirStart(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "projects", "old-app"), 0o700))
	write(t, filepath.Join(dir, "projects", "old-app", "old.jsonl"), data)
	k := &taker{}
	e := New(Options{Take: k.take, Save: k.save})
	id := checkpoint.NewID()
	glob := filepath.Join(dir, "projects", "*app*", "*.jsonl")
	mustSet(t, e, id, following(glob), time.Time{}, nil)
	stop := start(t, e)
	late := filepath.Join(dir, "projects", "new-app", "new.jsonl")
	must(t, os.MkdirAll(filepath.Dir(late), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "projects", "other"), 0o700))
	write(t, filepath.Join(dir, "projects", "other", "x.jsonl"), data)
	write(t, late, data)
	eventually(t, "the calls of the new file", func() bool { return len(k.requests()) >= 28 })
	stop()
	checkCalls(t, k.got, late, data, 28, 1)

	// A restart changes nothing, and a file that came meanwhile is new.
	third := filepath.Join(dir, "projects", "app3", "third.jsonl")
	must(t, os.MkdirAll(filepath.Dir(third), 0o700))
	b := transcriptData(t, "claude-code-b")
	write(t, third, b)
	k2 := &taker{}
	e = New(Options{Take: k2.take})
	mustSet(t, e, id, following(glob), time.Time{}, k.states[id])
	stop = start(t, e)
	eventually(t, "the calls of the third file", func() bool { return len(k2.requests()) >= 52 })
	stop()
	for _, r := range k2.got {
		if r.Files[0].Path != third {
			t.Errorf("%s", r.Detail)
		}
	}
	if len(k2.got) != 52 {
		t.Errorf("%d", len(k2.got))
	}
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	data := "one\n\n" + long + "\ntwo\nrest"
	l := newLineReader(strings.NewReader(data), 0, 100_000)
	var got []string
	for {
		line, end, err := l.next()
		if err != nil {
			break
		}
		if line == nil && int(end) != len("one\n\n")+len(long)+1 {
			t.Errorf("end %d", end)
		}
		got = append(got, string(line))
	}
	if !slices.Equal(got, []string{"one", "", "", "two"}) {
		t.Errorf("%q", got)
	}
	for _, test := range []struct {
		data string
		want int64
	}{{"", 0}, {"abc", 0}, {"a\nbc", 2}, {"a\n", 2}, {"a\n" + long, 2}} {
		if got, err := lastLineEnd(strings.NewReader(test.data), int64(len(test.data))); got != test.want || err != nil {
			t.Errorf("%.5q: %d, %v", test.data, got, err)
		}
	}
}

func TestTooLargeTranscriptIsTold(t *testing.T) {
	data := transcriptData(t, "claude-code-a")
	path := filepath.Join(t.TempDir(), "t.jsonl")
	k := &taker{}
	e := New(Options{Take: k.take, FileBytes: 100_000})
	mustSet(t, e, checkpoint.NewID(), following(path), time.Time{}, nil)
	stop := start(t, e)
	write(t, path, data)
	eventually(t, "all calls", func() bool { return len(k.requests()) >= 28 })
	stop()
	with, told := 0, 0
	for _, r := range k.got {
		with += len(r.Files)
		told += len(r.Problems)
	}
	if with == 0 || told == 0 || with+told != 28 {
		t.Errorf("%d with the file, %d told", with, told)
	}
}

func TestPrefixNoticesARewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	must(t, os.WriteFile(path, []byte("one\ntwo\n"), 0o600))
	f, info, err := openRegular(path)
	must(t, err)
	defer f.Close()
	x := &prefix{file: f, info: info, limit: 100}
	if !x.agrees([]byte("two"), 8) || x.agrees([]byte("owt"), 8) || x.agrees([]byte("three"), 14) {
		t.Error("the bytes that are kept are not compared with those that were parsed")
	}
}

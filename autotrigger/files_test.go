package autotrigger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestFileChangeTakesTheFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "notes.md"), filepath.Join(dir, "other.bin")
	must(t, os.WriteFile(other, []byte{0, 0xff}, 0o640))
	k := &taker{}
	e := New(Options{Take: k.take})
	id := checkpoint.NewID()
	cfg := auto(func(c *checkpoint.AutoConfig) {
		w := checkpoint.DefaultWatch()
		w.Path, w.DebounceMS = path, 20
		c.Watch = []checkpoint.Watch{w}
		c.Capture.Files = []string{filepath.Join(dir, "*.bin"), filepath.Join(dir, "missing")}
	})
	mustSet(t, e, id, cfg, time.Time{}, nil)
	stop := start(t, e)
	must(t, os.WriteFile(path, []byte("one"), 0o600))
	eventually(t, "the change", func() bool { return len(k.requests()) == 1 })
	must(t, os.WriteFile(path+".tmp", []byte("two"), 0o600))
	must(t, os.Rename(path+".tmp", path))
	eventually(t, "the second change", func() bool { return len(k.requests()) == 2 })
	mustSet(t, e, id, cfg, time.Time{}, nil) // the same again: nothing is lost
	must(t, os.WriteFile(path, []byte("three"), 0o600))
	eventually(t, "the third change", func() bool { return len(k.requests()) == 3 })
	if _, err := e.Trigger(t.Context(), Trigger{Session: id, Cause: checkpoint.CausePrompt}); err != nil {
		t.Fatal(err)
	}
	stop()
	for i, want := range []string{"one", "two", "three", "three"} {
		r := k.got[i]
		if len(r.Files) != 2 || string(r.Files[0].Content) != want || r.Files[0].Mode != 0o600 || r.Files[1].Mode != 0o640 ||
			!bytes.Equal(r.Files[1].Content, []byte{0, 0xff}) || len(r.Problems) > 0 {
			t.Errorf("%d: %+v", i, r)
		}
	}
	var d struct {
		Path  string
		Count int
	}
	if err := json.Unmarshal(k.got[0].Detail, &d); err != nil || d.Path != path || d.Count != 1 || k.got[0].Cause != checkpoint.CauseFileChange {
		t.Errorf("%s: %v", k.got[0].Detail, err)
	}
}

func TestWhatCannotBeCapturedIsTold(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(in("good"), []byte("1234"), 0o600))
	must(t, os.WriteFile(in("large"), bytes.Repeat([]byte("x"), 101), 0o600))
	must(t, os.WriteFile(in("fills"), bytes.Repeat([]byte("x"), 97), 0o600))
	must(t, os.WriteFile(in("last"), bytes.Repeat([]byte("x"), 20), 0o600))
	must(t, os.Symlink(in("good"), in("link")))
	must(t, syscall.Mkfifo(in("fifo"), 0o600))
	must(t, os.Mkdir(in("store"), 0o700))
	must(t, os.WriteFile(in("store/x"), nil, 0o600))
	k := &taker{}
	e := New(Options{Take: k.take, FileBytes: 100, TotalBytes: 120, StoreDir: in("store")})
	id := checkpoint.NewID()
	mustSet(t, e, id, auto(func(c *checkpoint.AutoConfig) {
		c.Capture.Files = []string{in("good"), in("large"), in("link"), in("fifo"), in("missing"), in("fills"), in("last"), "/dev/null"}
	}), time.Time{}, nil)
	if _, err := e.Trigger(t.Context(), Trigger{Session: id, Cause: checkpoint.CausePrompt}); err != nil {
		t.Fatal(err)
	}
	r := k.got[0]
	if len(r.Files) != 2 || r.Files[0].Path != in("good") || r.Files[1].Path != in("fills") {
		t.Errorf("captured %+v", r.Files)
	}
	all := strings.Join(r.Problems, "\n")
	for _, want := range []string{"large: not captured: 101 bytes", "link: not captured: it is a symbolic link", "fifo: not captured: it is no regular file", "last: not captured: with its 20 bytes", "/dev/null: not captured: it is no regular file"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q in:\n%s", want, all)
		}
	}
	if len(r.Problems) != 5 {
		t.Errorf("%d problems:\n%s", len(r.Problems), all)
	}
	err := e.Set(t.Context(), id, auto(func(c *checkpoint.AutoConfig) { c.Capture.Files = []string{in("store/x")} }), time.Time{}, nil)
	if !errors.Is(err, checkpoint.ErrInvalidParams) {
		t.Errorf("a file of the store: %v", err)
	}
}

// 10,000 sessions with timers cost a few MB.
func TestMemoryOfTenThousandSessions(t *testing.T) {
	const sessions = 10_000
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	e := New(Options{Take: func(context.Context, Request) (Outcome, error) { return Outcome{}, nil }})
	for range sessions {
		cfg := auto(func(c *checkpoint.AutoConfig) { c.IntervalSeconds = 300; c.Cron = "@hourly" })
		mustSet(t, e, checkpoint.NewID(), cfg, time.Now(), nil)
	}
	each := (heap() - before) / sessions
	t.Logf("%d bytes a session", each)
	if each > 600 {
		t.Errorf("%d bytes a session: 10,000 cost %d MB, want at most 6", each, each*sessions>>20)
	}
	runtime.KeepAlive(e)
}

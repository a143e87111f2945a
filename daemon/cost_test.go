package daemon

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// A real transcript that is kept at each of its tool calls takes at most 0.8 of its final size
// on the disk, everything in the data directory counted, and comes back whole: written at
// once, and so slowly that each checkpoint is published before the next, which costs most.
func TestATranscriptKeptAtEachToolCallIsSmall(t *testing.T) {
	type written struct {
		name   string
		calls  int
		slowly bool
	}
	for _, w := range []written{{"claude-code-a", 28, false}, {"claude-code-a", 28, true}, {"claude-code-b", 52, false}, {"claude-code-b", 52, true}} {
		name, calls := w.name, w.calls
		t.Run(fmt.Sprintf("%s slowly=%t", name, w.slowly), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "autotrigger", "transcript", "testdata", name+".jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			o := directoryOptions(t)
			path := filepath.Join(shortDir(t), "t.jsonl")
			auto := checkpoint.DefaultAuto()
			watch := checkpoint.DefaultWatch()
			watch.Path, watch.Format, watch.FromStart = path, "claude-code", true
			auto.OnToolCall, auto.IntervalSeconds, auto.Watch = true, 0, []checkpoint.Watch{watch}
			o.Config.Sessions = append(o.Config.Sessions, sessionOf("agent", auto))
			d := start(t, o)
			p := d.dial()
			p.call("events.subscribe", obj{"key": "agent", "types": []string{"created"}}, nil)
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			told := 0
			for line := range bytes.Lines(text) {
				if _, err := f.Write(line); err != nil {
					t.Fatal(err)
				}
				if w.slowly && bytes.Contains(line, []byte(`"type":"tool_result"`)) {
					p.note()
					told++
					p.call("daemon.sync", obj{}, nil)
				}
			}
			for ; told < calls; told++ {
				p.note()
			}
			p.call("daemon.sync", obj{}, nil)
			if size := treeBytes(t, o.Paths.DataDir); size > int64(len(text))*8/10 {
				t.Errorf("%d checkpoints of %d bytes take %d, %.2f x", calls, len(text), size, float64(size)/float64(len(text)))
			} else {
				t.Logf("%.3f x", float64(size)/float64(len(text)))
			}
			var last checkpoint.Checkpoint
			p.call("checkpoint.latest", obj{"key": "agent"}, &last)
			var file struct{ Content string }
			p.call("checkpoint.file", obj{"checkpoint_id": last.ID, "path": path}, &file)
			if file.Content == "" || !bytes.HasPrefix(text, []byte(file.Content)) {
				t.Error("the newest checkpoint does not hold the transcript")
			}
		})
	}
}

func treeBytes(t *testing.T, dir string) (total int64) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err == nil {
			total += i.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return total
}

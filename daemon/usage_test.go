package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// What daemon.metrics says of a session is what its files and chunks take.
func TestASessionsCostIsThatOfItsFiles(t *testing.T) {
	o := directoryOptions(t)
	path := filepath.Join(shortDir(t), "notes.md")
	auto := checkpoint.DefaultAuto()
	auto.IntervalSeconds, auto.Capture.Files = 0, []string{path}
	o.Config.Sessions = append(o.Config.Sessions, sessionOf("with files", auto))
	d := start(t, o)
	p := d.dial()
	p.call("session.create", obj{"name": "none", "key": "none"}, nil)
	usage := func() map[string]rpc.SessionUsage {
		t.Helper()
		p.call("daemon.sync", obj{}, nil)
		var m rpc.Metrics
		p.call("daemon.metrics", obj{}, &m)
		got := map[string]rpc.SessionUsage{}
		for _, s := range m.Sessions {
			got[s.Key] = s
		}
		return got
	}
	for i, content := range []string{"one", "two, which is longer"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var made checkpoint.Receipt
		p.call("auto.trigger", obj{"key": "with files", "cause": "branch_switch"}, &made)
		if i == 0 {
			p.call("checkpoint.annotate", obj{"checkpoint_id": made.CheckpointID, "note": "kept"}, nil)
		}
		u := usage()
		with, none := u["with files"], u["none"]
		blobs := fileBytes(t, filepath.Join(o.Paths.DataDir, "blobs"))
		own := fileBytes(t, filepath.Join(o.Paths.DataDir, "sessions", with.SessionID.String()))
		if with.Checkpoints != i+1 || with.BlobBytes != blobs || with.Bytes != own+blobs || with.Partial {
			t.Errorf("%+v; its files have %d bytes, the chunks %d", with, own, blobs)
		}
		if want := fileBytes(t, filepath.Join(o.Paths.DataDir, "sessions", none.SessionID.String())); none.Checkpoints != 0 || none.Bytes != want {
			t.Errorf("%+v; its files have %d bytes", none, want)
		}
	}
}

func fileBytes(t *testing.T, dir string) (total int64) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return total
}

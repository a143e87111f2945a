package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// A store's pages, taken into an empty one, give the same checkpoints; an automation that
// came along runs, but for what another user may not make the daemon read.
func TestExportAndImportOverTheWire(t *testing.T) {
	from := start(t, memoryOptions(t)).dial()
	s := from.session(obj{"key": "k", "auto": obj{"interval_seconds": 3600, "watch": []obj{{"path": filepath.Join(shortDir(t), "x")}}}})
	var r checkpoint.Receipt
	for i := range 20 {
		from.call("checkpoint.create", obj{"session_id": s.ID, "message": "m", "state": obj{"n": i}}, &r)
	}
	from.call("checkpoint.annotate", obj{"checkpoint_id": r.CheckpointID, "note": "n"}, nil)
	o := memoryOptions(t)
	o.Config.Socket.AllowedUIDs, o.Config.Socket.Mode = []uint32{12345}, "0666"
	d := start(t, o)
	to := d.dial()
	if os.Geteuid() == 0 {
		if err := os.Chmod(filepath.Dir(filepath.Dir(o.Paths.Socket)), 0o711); err != nil {
			t.Fatal(err)
		}
		to = d.peerOn(dialAs(t, o.Paths.Socket, 12345))
	}
	imported, cursor := 0, ""
	for {
		params := obj{"max_bytes": 4096}
		if cursor != "" {
			params["cursor"] = cursor
		}
		var page json.RawMessage
		from.call("store.export", params, &page)
		var in struct {
			Imported int
			Rejected []any
		}
		to.call("store.import", obj{"data": page}, &in)
		if len(in.Rejected) > 0 {
			t.Fatalf("rejected %v", in.Rejected)
		}
		imported += in.Imported
		var next struct {
			Next string `json:"next_cursor"`
		}
		if err := json.Unmarshal(page, &next); err != nil {
			t.Fatal(err)
		}
		if cursor = next.Next; cursor == "" {
			break
		}
	}
	var mine checkpoint.Session
	to.call("session.get", obj{"key": "k"}, &mine)
	if os.Geteuid() == 0 && (mine.OwnerUID != 12345 || len(mine.Auto.Watch) > 0) {
		t.Errorf("the imported session: owner %d, watches %v", mine.OwnerUID, mine.Auto.Watch)
	}
	a, b := from.latest(s.ID), to.latest(s.ID)
	if imported != 20 || a.ID != b.ID || a.Sequence != b.Sequence || a.Checksum != b.Checksum || len(b.Annotations) != 1 {
		t.Errorf("%d imported; %+v\n%+v", imported, a, b)
	}
	var auto struct {
		NextRuns []string `json:"next_runs"`
	}
	to.call("auto.get", obj{"key": "k"}, &auto)
	if len(auto.NextRuns) == 0 {
		t.Error("the imported session's timer does not run")
	}
	sess, err := d.svc(t).store.Session(t.Context(), sessionRef(s.ID))
	if err != nil {
		t.Fatal(err)
	}
	if cfg := d.svc(t).allowedAuto(sess); os.Geteuid() == 0 && len(cfg.Watch) > 0 {
		t.Errorf("uid %d made the daemon watch %v", sess.OwnerUID, cfg.Watch)
	}
}

func TestAnImportCannotWriteIntoAnothersSession(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be two users")
	}
	from := start(t, memoryOptions(t)).dial()
	s := from.session(obj{})
	from.call("checkpoint.create", obj{"session_id": s.ID, "message": "planted", "state": 1}, nil)
	var page json.RawMessage
	from.call("store.export", obj{}, &page)

	o := memoryOptions(t)
	o.Config.Socket.AllowedUIDs, o.Config.Socket.Mode = []uint32{12345}, "0666"
	if err := os.Chmod(filepath.Dir(filepath.Dir(o.Paths.Socket)), 0o711); err != nil {
		t.Fatal(err)
	}
	d := start(t, o)
	d.dial().session(obj{"session_id": s.ID})
	other := d.peerOn(dialAs(t, o.Paths.Socket, 12345))
	for _, spelling := range []string{`"checkpoints"`, `"Checkpoints"`} {
		data := json.RawMessage(strings.Replace(string(page), `"checkpoints"`, spelling, 1))
		other.refused(checkpoint.KindConflict, "store.import", obj{"data": data})
	}
	if c := d.dial().latest(s.ID); c != nil {
		t.Errorf("the session's newest is %v", c)
	}
}

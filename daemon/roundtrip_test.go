package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// lived fills a store as a long use does: 20 sessions, tags, metadata, states of every
// kind, annotations, captured files, forks, and gaps where something was deleted.
func lived(t *testing.T, p *peer, checkpoints int) {
	t.Helper()
	file := filepath.Join(shortDir(t), "notes")
	sessions := make([]checkpoint.Session, 20)
	for i := range sessions {
		sessions[i] = p.session(obj{"key": fmt.Sprint("k", i), "labels": obj{"n": fmt.Sprint(i)}, "auto": obj{"interval_seconds": 0, "capture": obj{"files": []string{file}}}})
	}
	creates := make([]obj, checkpoints)
	for i := range creates {
		c := obj{"session_id": sessions[i%len(sessions)].ID, "message": fmt.Sprintf("m%d-", i), "state": json.RawMessage(fmt.Sprintf(`{"i":%d,"x":1.0,"big":1e400,"i":[%d],"s":"\\ud800"}`, i, i))}
		switch i % 7 {
		case 1:
			c["tags"] = []string{"a", fmt.Sprint("t", i)}
		case 2:
			c["metadata"] = json.RawMessage(fmt.Sprintf(`{"z":1.50,"a":%d,"a":null}`, i))
		case 3:
			c["state"] = obj{"hypothesis_state": obj{"h": i}}
		case 4:
			c["state"] = nil
		}
		creates[i] = c
	}
	var notes, ids []obj
	for i, raw := range p.pipelined("checkpoint.create", creates) {
		var r checkpoint.Receipt
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		id := obj{"checkpoint_id": r.CheckpointID}
		if ids = append(ids, id); i%50 == 0 {
			notes = append(notes, obj{"checkpoint_id": r.CheckpointID, "note": fmt.Sprint("note ", i), "severity": "warning"})
		}
	}
	p.pipelined("checkpoint.annotate", notes)
	for i := range sessions[:10] {
		if err := os.WriteFile(file, bytes.Repeat([]byte{byte(i / 2), 0xff}, 100_000), 0o600); err != nil { // each twice
			t.Fatal(err)
		}
		p.call("auto.trigger", obj{"session_id": sessions[i].ID, "cause": "gap_filled", "detail": 1.5}, nil)
	}
	for i := range 10 {
		p.call("checkpoint.fork", obj{"checkpoint_id": ids[500*i+10]["checkpoint_id"], "name": "fork", "key": fmt.Sprint("f", i)}, nil)
	}
	var gone []obj
	for i := 5; i < len(ids); i += 100 {
		gone = append(gone, ids[i])
	}
	p.pipelined("checkpoint.delete", gone)
	p.call("checkpoint.compact", obj{"session_id": sessions[19].ID, "keep_recent": 100, "keep_tagged": true}, nil)
	p.call("session.delete", obj{"session_id": sessions[18].ID}, nil)
	p.call("session.close", obj{"session_id": sessions[17].ID}, nil)
	p.call("checkpoint.restore", obj{"session_id": sessions[0].ID, "checkpoint_id": ids[40]["checkpoint_id"]}, nil)
}

// export gives all pages as bytes, and how many checkpoints are in them.
func (p *peer) export(maxBytes int) (pages []json.RawMessage, checkpoints int) {
	p.t.Helper()
	params := obj{"max_bytes": maxBytes}
	for {
		var page json.RawMessage
		p.call("store.export", params, &page)
		var head struct {
			Checkpoints []json.RawMessage
			Next        string `json:"next_cursor"`
		}
		if err := json.Unmarshal(page, &head); err != nil || len(page) > maxBytes {
			p.t.Fatalf("a page of %d bytes: %v", len(page), err)
		}
		pages = append(pages, page)
		if checkpoints += len(head.Checkpoints); head.Next == "" {
			return pages, checkpoints
		}
		params["cursor"] = head.Next
	}
}

type imported struct {
	Imported, Skipped, Renumbered int
	Rejected                      []struct {
		CheckpointID string `json:"checkpoint_id"`
		Problem      string
	}
}

func (p *peer) importAll(pages []json.RawMessage) (sum imported) {
	p.t.Helper()
	for _, page := range pages {
		var in imported
		p.call("store.import", obj{"data": page}, &in)
		sum.Imported += in.Imported
		sum.Skipped += in.Skipped
		sum.Renumbered += in.Renumbered
		sum.Rejected = append(sum.Rejected, in.Rejected...)
	}
	return sum
}

// ofItsTime is what a page says of when and where it was made, and not of what is in it.
var ofItsTime = regexp.MustCompile(`"global_sequence":\d+,"exported_at":"[^"]*"`)

// A store of 10,000 checkpoints goes to another and comes out of it as the same bytes;
// again changes nothing; what was tampered with is named and the rest taken.
func TestARoundTripOf10000(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it writes 30,000 checkpoints")
	}
	from := start(t, directoryOptions(t)).dial()
	lived(t, from, 11_500)
	pages, n := from.export(1 << 20)
	if n < 10_000 {
		t.Fatalf("%d checkpoints", n)
	}
	o := directoryOptions(t)
	d := start(t, o)
	to := d.dial()
	if in := to.importAll(pages); in.Imported != n || in.Skipped+in.Renumbered+len(in.Rejected) > 0 {
		t.Fatalf("%+v of %d", in, n)
	}
	same := func(what string) {
		t.Helper()
		back, _ := to.export(1 << 20)
		if len(back) != len(pages) {
			t.Fatalf("%s: %d pages became %d", what, len(pages), len(back))
		}
		for i := range pages {
			if !bytes.Equal(ofItsTime.ReplaceAll(back[i], nil), ofItsTime.ReplaceAll(pages[i], nil)) {
				t.Fatalf("%s: page %d is another", what, i)
			}
		}
	}
	same("imported")
	if in := to.importAll(pages); in.Imported+in.Renumbered+len(in.Rejected) > 0 || in.Skipped != n {
		t.Fatalf("twice: %+v of %d", in, n)
	}
	same("imported twice")
	d.end()
	to = start(t, o).dial()
	same("started again")
	var whole struct {
		Valid    int
		AllValid bool `json:"all_valid"`
	}
	if to.call("checkpoint.validate_all", obj{}, &whole); !whole.AllValid || whole.Valid != n {
		t.Errorf("%+v of %d", whole, n)
	}
	var was, is struct {
		HypothesisState json.RawMessage `json:"hypothesis_state"`
	}
	var found struct{ Checkpoints []checkpoint.Summary }
	to.call("checkpoint.list", obj{"text": "m31-"}, &found) // 31 is 3 of 7: see lived
	for p, got := range map[*peer]any{from: &was, to: &is} {
		p.call("checkpoint.hypothesis_state", obj{"checkpoint_id": found.Checkpoints[0].ID}, got)
	}
	if string(was.HypothesisState) != `{"h":31}` || string(is.HypothesisState) != string(was.HypothesisState) {
		t.Errorf("hypothesis_state %s became %s", was.HypothesisState, is.HypothesisState)
	}

	var spoilt []string
	third := start(t, directoryOptions(t)).dial()
	for i, page := range pages {
		var in struct{ Checkpoints []checkpoint.Checkpoint }
		if err := json.Unmarshal(page, &in); err != nil {
			t.Fatal(err)
		}
		c := in.Checkpoints[len(in.Checkpoints)/2]
		if old := fmt.Sprintf(`"message":%q`, c.Message); c.Message != "" && bytes.Count(page, []byte(old)) == 1 {
			pages[i] = bytes.Replace(page, []byte(old), []byte(`"message":"forged"`), 1)
			spoilt = append(spoilt, c.ID.String())
		}
	}
	in := third.importAll(pages)
	if in.Imported != n-len(spoilt) || len(in.Rejected) != len(spoilt) || len(spoilt) < 3 {
		t.Fatalf("%d of %d were forged, %d imported, %d rejected", len(spoilt), n, in.Imported, len(in.Rejected))
	}
	for i, r := range in.Rejected {
		if r.CheckpointID != spoilt[i] || !strings.Contains(r.Problem, "checksum") {
			t.Errorf("%+v, want %s", r, spoilt[i])
		}
	}
}

package rpc

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

func TestResultsAreWrittenAsTheyAre(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	w := dial(t, path)
	state := `{"z":1.0,"a":1e400,"a":[123456789012345678901234567890,"\u0041<&>\/\ud800"]}`
	r := parseReply(t, w.ask(create(1, aSession, "m", `,"state":`+strings.ReplaceAll(state, ",", " , "))))
	var receipt checkpoint.Receipt
	if err := json.Unmarshal(r.Result, &receipt); err != nil {
		t.Fatal(err)
	}
	get := w.ask(call(2, "checkpoint.get", fmt.Sprintf(`{"checkpoint_id":%q}`, receipt.CheckpointID)))
	tail := `,"checksum":"sha256:` + strings.Repeat("0", 64) + `","annotations":[]}}`
	if !strings.Contains(get, `"state":`+state+`,"context"`) || !strings.HasSuffix(get, tail) {
		t.Errorf("get: %s", get)
	}
	restore := w.ask(call(2, "checkpoint.restore", fmt.Sprintf(`{"session_id":%q,"checkpoint_id":%q}`, aSession, receipt.CheckpointID)))
	if !strings.HasSuffix(restore, tail[:len(tail)-1]+`,"state":`+state+"}}") || strings.Count(restore, `"state":`) != 1 || !json.Valid([]byte(restore)) {
		t.Errorf("restore: %s", restore)
	}
	list := w.ask(call(2, "checkpoint.list", "{}"))
	if want := `{"jsonrpc":"2.0","id":2,"result":{"checkpoints":[{"a":"<&>"},{}],"next_cursor":"n"}}`; list != want {
		t.Errorf("list: %s", list)
	}
	none := w.ask(call(2, "checkpoint.latest", `{"session_id":"33333333-3333-4333-8333-333333333333"}`))
	if none != `{"jsonrpc":"2.0","id":2,"result":null}` {
		t.Errorf("latest: %s", none)
	}
}

func TestRestoreWithTheStateAnywhere(t *testing.T) {
	for raw, want := range map[string]string{
		`{"state":1}`:                       `{"checkpoint":{"checksum":"c","annotations":[]},"state":1}`,
		`{"state":[1],"a":2}`:               `{"checkpoint":{"a":2,"checksum":"c","annotations":[]},"state":[1]}`,
		`{"a":"\"state\":[1]","state":[1]}`: `{"checkpoint":{"a":"\"state\":[1]","checksum":"c","annotations":[]},"state":[1]}`,
	} {
		s := &StoredCheckpoint{Raw: []byte(raw), Checksum: "c"}
		for _, member := range []string{"[1]", "1"} {
			if strings.Contains(raw, `"state":`+member) {
				s.State = []byte(member) // a copy, not a part of Raw
				break
			}
		}
		pieces, err := renderRestore(s)
		got := ""
		for _, p := range pieces {
			got += string(p)
		}
		if err != nil || got != want {
			t.Errorf("%s became %s, %v; want %s", raw, got, err, want)
		}
	}
}

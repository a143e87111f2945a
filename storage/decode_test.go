package storage

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// sameAsJSON checks that what takes the short way means the same to encoding/json.
func sameAsJSON(t *testing.T, body []byte) (plain bool) {
	t.Helper()
	var short, long record
	if !short.plain(body) {
		return false
	}
	if err := json.Unmarshal(body, &long); err != nil {
		t.Fatalf("%s: encoding/json refuses it: %v", body, err)
	}
	if !reflect.DeepEqual(short, long) {
		t.Fatalf("%s\nis   %+v\nnot  %+v", body, short, long)
	}
	return true
}

func recordBodies(t testing.TB) (bodies [][]byte) {
	id, at := checkpoint.NewID(), time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)
	name, uid := "a \"name\"", uint32(7)
	for _, r := range []record{
		{Type: recSegment, Version: 1, Store: id, Segment: 3, Group: 1, Bytes: 65536, File: "journal/x", Previous: "ab"},
		{Type: recCommit, Group: 1<<63 - 1, Lines: 2, Digest: "cd", FirstEvent: 9, Bytes: 70000, Previous: "ef"},
		{Type: recEnd, Segment: 3, Previous: "ef"},
		{Type: recHead, Store: id, Segment: 2, Group: 8, FirstEvent: 10, File: "events/1.jsonl", Bytes: 5, Count: 1, Sum: "01", Created: 4},
		{Type: recAdded, CheckpointID: id, Number: 5, Bytes: 300, Sum: "02"},
		{Type: recAnnotations, CheckpointID: id, Count: 2, Bytes: 600, Sum: "03"},
		{Type: recDescribed, Sum: "04", Session: &sessionMeta{Session: checkpoint.Session{ID: id, Name: "s"}, AutoState: []byte(`{"n":1}`)}},
		{Type: recSession, At: at, Session: &sessionMeta{Session: checkpoint.Session{ID: id, Labels: map[string]string{"a": "b"}}}},
		{Type: recEvent, Number: 12, Event: &checkpoint.Event{Type: "created", SessionID: id, CheckpointID: id, Sequence: 5, Timestamp: at}},
		{Type: recChange, SessionID: id, At: at, Change: &sessionChange{Name: &name, SetHead: true}},
		{Type: recDelete, SessionID: id, IDs: []checkpoint.ID{id}, Numbers: []uint64{5}, Count: 3, At: at, Compacted: true},
		{Type: recSessionDelete, SessionID: id, Count: 3, OwnerUID: &uid, At: at},
		{Type: recQuarantine, Path: "a\u00e9", Problem: "it is <damaged>", At: at},
	} {
		body, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	return bodies
}

func TestRecordsAreReadTheShortWay(t *testing.T) {
	for i, body := range recordBodies(t) {
		if short := sameAsJSON(t, body); short != (i < 9) {
			t.Errorf("%s: the short way: %t", body, short)
		}
	}
	for _, odd := range []string{
		``, `{`, `{}`, `{"type":"a"`, `{"type":"a",}`, `{"type":"a"}}`, `{"type":"a"} `, ` {"type":"a"}`, `{"type" :"a"}`, `{"type": "a"}`,
		`{"Type":"a"}`, `{"type":"\u0061"}`, `{"type":"a\"}`, `{"type":"` + "\xff" + `"}`, `{"type":null}`, `{"type":1}`, `{"count":"1"}`,
		`{"count":01}`, `{"count":1.0}`, `{"count":1e3}`, `{"count":-1}`, `{"count":99999999999999999999}`, `{"none":1}`, `{"none":{}}`,
		`{"event":null}`, `{"event":{},"event":{}}`, `{"event":{"type":1}}`, `{"type":"a","type":"b"}`, `{"session_id":"x"}`, `{"at":"x"}`,
	} {
		sameAsJSON(t, []byte(odd))
	}
}

func FuzzRecord(f *testing.F) {
	for _, body := range recordBodies(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameAsJSON(t, body) })
}

package storage

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

var golden = flag.String("golden", "", "make a golden store in this new directory")

// TestMakeGolden makes testdata/vN when the format gets a new version; never over an old one.
func TestMakeGolden(t *testing.T) {
	if *golden == "" {
		t.Skip("-golden is not given: it writes the golden store anew")
	}
	s, err := Open(t.Context(), Options{Dir: *golden, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	id := newSession(t, s, "golden")
	first := create(t, s, id, `{"a":1.0,"a":[null,"ü"]}`)
	gone := create(t, s, id, `"gone"`)
	create(t, s, id, `null`)
	if _, err := Create(t.Context(), s, &NewCheckpoint{
		SessionID: id, Message: "with a file", Cause: checkpoint.CauseToolCall, Metadata: []byte(`{"k":1e400}`),
		Files: []FileContent{{Path: "/f", Mode: 0o644, Content: []byte("content\n")}},
	}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Annotate(t.Context(), first.CheckpointID, "a note", checkpoint.Critical)
	if err = errors.Join(err, s.Delete(t.Context(), gone.CheckpointID), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenStoresStayReadable(t *testing.T) {
	dirs, err := filepath.Glob("testdata/v*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("there is no golden store", err)
	}
	for _, dir := range dirs {
		work := t.TempDir()
		if err := os.CopyFS(work, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), Options{Dir: work})
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Session(t.Context(), Ref{Key: "golden"})
		if err != nil {
			t.Fatal(err)
		}
		got := list(t, s, Query{SessionID: v.ID})
		if len(got) != 3 || got[0].Sequence != 1 || got[0].AnnotationCount != 1 || got[2].Cause != checkpoint.CauseToolCall {
			t.Fatalf("%+v", got)
		}
		st, err := s.Get(t.Context(), got[0].ID)
		if err != nil || string(st.State) != `{"a":1.0,"a":[null,"ü"]}` || st.Annotations[0].Note != "a note" {
			t.Fatalf("%+v %v", st, err)
		}
		if _, b, err := s.ReadFile(t.Context(), got[2].ID, "/f"); err != nil || string(b) != "content\n" {
			t.Fatal(string(b), err)
		}
		if p, err := s.Events(t.Context(), s.(*dirStore).cursor(0), 100); err != nil || len(p.Events) != 7 || p.Events[6].Event.Type != checkpoint.EventDeleted {
			t.Fatalf("%+v %v", p, err)
		}
		clean(t, s)
		if r := create(t, s, v.ID, `{}`); r.Sequence != 5 {
			t.Fatalf("number %d", r.Sequence)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		standardTools(t, filepath.Join(work, checkpointPath(v.ID, got[0].Sequence, got[0].ID)))
	}
}

// standardTools runs the command of FORMAT.md.
func standardTools(t *testing.T, file string) {
	t.Helper()
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, command, ok := strings.Cut(string(doc), ".json\n    head ")
	command, _, _ = strings.Cut(command, "\n")
	if !ok {
		t.Fatal("FORMAT.md has no command")
	}
	c := exec.Command("sh", "-c", "head "+command)
	c.Env = append(os.Environ(), "f="+file)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Fields(string(out))
	if len(lines) < 2 || lines[0] != lines[1] || len(lines[0]) != 64 {
		t.Fatalf("the command printed %s", out)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/term"
)

func TestRunPassesEverythingThrough(t *testing.T) {
	_, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	for name, c := range map[string]struct {
		script    string
		code      int
		out, talk string
		message   string // of the checkpoint; "": none
		signal    string
	}{
		"good":       {script: `echo "$FORGE_CPD_SOCKET"; cat; echo warn >&2`, out: socket + "\nin", talk: "warn\n"},
		"fails":      {script: `echo first >&2; echo the cause >&2; exit 3`, code: 3, talk: "first\nthe cause\n", message: "sh ended with exit status 3: the cause"},
		"says none":  {script: `exit 1`, code: 1, message: "sh ended with exit status 1"},
		"killed":     {script: `echo bye >&2; kill -9 $$`, code: 137, talk: "bye\n", message: "sh was ended by SIGKILL: bye", signal: "SIGKILL"},
		"terminated": {script: `kill -TERM $$`, code: 143, message: "sh was ended by SIGTERM", signal: "SIGTERM"},
	} {
		d.mu.Lock()
		d.calls = nil
		d.mu.Unlock()
		var out, talk bytes.Buffer
		code := run(t.Context(), []string{"run", "--key", name, "--", "sh", "-c", c.script}, strings.NewReader("in"), &out, &talk)
		if code != c.code || out.String() != c.out || talk.String() != c.talk {
			t.Errorf("%s: exit %d, out %q, err %q", name, code, out.String(), talk.String())
		}
		told := d.told()
		if c.message == "" {
			if len(told) != 0 {
				t.Errorf("%s: told %+v", name, told)
			}
			continue
		}
		var end runEnd
		if len(told) != 1 || told[0].Cause != "error" || told[0].Message != c.message || json.Unmarshal(told[0].Detail, &end) != nil ||
			end.Exit != c.code || end.Signal != c.signal || end.Stderr != c.talk {
			t.Errorf("%s: told %+v, %+v", name, told, end)
		}
		if d.count("session.attach") != 1 || d.count("auto.disable") != 1 {
			t.Errorf("%s: not attached, or its timers go on", name)
		}
		if s := d.byKey[name]; s.Labels["cwd"] == "" || !s.Auto.OnError {
			t.Errorf("%s: session %+v", name, s)
		}
	}

}

func TestRunKeepsTheEndOfStderr(t *testing.T) {
	_, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	var out, talk bytes.Buffer
	code := run(t.Context(), []string{"run", "--", "sh", "-c", `awk 'BEGIN { for (i = 0; i < 100000; i++) print "é" }' >&2; echo end >&2; exit 9`}, strings.NewReader(""), &out, &talk)
	var end runEnd
	told := d.told()
	if code != 9 || talk.Len() != 300004 || len(told) != 1 || json.Unmarshal(told[0].Detail, &end) != nil {
		t.Fatalf("exit %d, %d bytes passed on, told %d", code, talk.Len(), len(told))
	}
	if len(end.Stderr) > stderrTail || len(end.Stderr) < stderrTail-4 || !strings.HasSuffix(end.Stderr, "end\n") || strings.Contains(end.Stderr, "�") {
		t.Errorf("%d bytes kept, ending in %q", len(end.Stderr), end.Stderr[max(0, len(end.Stderr)-10):])
	}
}

func TestRunWhatCannotRun(t *testing.T) {
	dir, socket := hookHome(t)
	newFakeDaemon(t, socket)
	plainFile := filepath.Join(dir, "plain")
	if err := os.WriteFile(plainFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]int{"no-such-program-here": 127, plainFile: 126} {
		var out, talk bytes.Buffer
		if code := run(t.Context(), []string{"run", "--", arg}, strings.NewReader(""), &out, &talk); code != want || talk.Len() == 0 {
			t.Errorf("%s: exit %d, said %q", arg, code, talk.String())
		}
	}
	hookHome(t) // no daemon there
	var out, talk bytes.Buffer
	if code := run(t.Context(), []string{"run", "--", "true"}, strings.NewReader(""), &out, &talk); code != 3 {
		t.Errorf("with no daemon: exit %d", code)
	}
}

func TestRunPassesSignalsOn(t *testing.T) {
	_, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	r, w := io.Pipe()
	var talk bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"run", "--", "sh", "-c", `trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done`}, strings.NewReader(""), w, &talk)
		w.Close()
	}()
	line := make([]byte, 6)
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil { // run is this process
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if code := <-done; code != 5 || string(rest) != "got\n" || err != nil || len(d.told()) != 1 {
		t.Errorf("exit %d, %q, %v, told %d", code, rest, err, len(d.told()))
	}
}

// Behind a terminal the program's stderr is one too, of the same size, and its bytes
// arrive as they were written.
func TestRunGivesATerminal(t *testing.T) {
	_, socket := hookHome(t)
	d := newFakeDaemon(t, socket)
	master, slave, err := openPTY(os.Stdin)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	defer master.Close()
	read := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(master) // ends in EIO
		read <- string(b)
	}()
	var out bytes.Buffer
	if !term.IsTerminal(int(slave.Fd())) {
		t.Fatal("no terminal")
	}
	code := run(t.Context(), []string{"run", "--", "sh", "-c", `test -t 2 && echo yes >&2; printf 'a\nb\r\033[1m' >&2; exit 4`}, strings.NewReader(""), &out, slave)
	slave.Close()
	select {
	case got := <-read:
		if code != 4 || got != "yes\na\nb\r\033[1m" || len(d.told()) != 1 {
			t.Errorf("exit %d, %q, told %d", code, got, len(d.told()))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the terminal was not let go")
	}
}

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger/transcript"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// TestAgents runs the real agents as npm has them, with the hooks that `hook install`
// wrote, against a model of our own on a loopback interface. `make test-agents` asks for it;
// FORGE_CPD_AGENTS_DIR keeps the packages (400 MB each) elsewhere than the user's cache.
func TestAgents(t *testing.T) {
	if os.Getenv("FORGE_CPD_AGENTS") != "1" {
		t.Skip("FORGE_CPD_AGENTS is not set: make test-agents sets it, and downloads the agents")
	}
	binary := filepath.Join(t.TempDir(), "forge-cpd")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, a := range realAgents {
		t.Run(a.name, func(t *testing.T) {
			r := newAgentRig(t, a, binary)
			r.plain()
			r.forge("hook", "install", a.name, "--yes", "--no-start", "--socket", r.socket, "--data-dir", filepath.Join(r.dir, "data"))
			t.Run("down", func(t *testing.T) { r.at(t).comesBack() })
			r.serve()
			t.Run("spool", func(t *testing.T) { r.at(t).takenIn() })
			t.Run("calls", func(t *testing.T) { r.at(t).callsAreKept() })
			t.Run("killed", func(t *testing.T) { r.at(t).killedAndResumed() })
			t.Run("speed", func(t *testing.T) { r.at(t).notSlower() })
		})
	}
}

// at is the rig for a subtest.
func (r *agentRig) at(t *testing.T) *agentRig { c := *r; c.t = t; return &c }

var agentSteps = []stubStep{{say: "first words", sh: "printf good-%d 42"}, {sh: "ls /there/is/none"}, {say: "all done"}}

// plain runs the agent without hooks: what does not work now is not the hooks' fault.
func (r *agentRig) plain() {
	r.model.play(agentSteps...)
	r.run(r.agent.prompt("the plain prompt")...)
	if seen := r.model.seen(); len(seen) != 3 || !strings.Contains(seen[2], "good-42") {
		r.t.Fatalf("%d requests, want 3: %.400s", len(seen), seen)
	}
}

// comesBack: with no daemon the agent works as ever, and its events are kept.
func (r *agentRig) comesBack() {
	r.model.play(agentSteps...)
	r.run(r.agent.prompt("the spooled prompt")...)
	if n := len(spooled(filepath.Join(r.dir, "data.spool"))); n < 3 {
		r.t.Errorf("%d events in the spool", n)
	}
}

// takenIn: the daemon is there again, and what was kept makes its checkpoints.
func (r *agentRig) takenIn() {
	r.forge("hook", "drain")
	r.wantCheckpoints("the spooled prompt", map[checkpoint.Cause]int{
		checkpoint.CausePrompt: 1, checkpoint.CauseToolCall: 1, checkpoint.CauseError: 1, checkpoint.CauseDisconnect: 1,
	})
}

// client is a connection of this test's own.
func (r *agentRig) client() *client.Client {
	c := &client.Client{Socket: r.socket}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// checkpoints gives those of the session whose prompt this was, oldest first.
func (r *agentRig) checkpoints(prompt string) []*checkpoint.Checkpoint {
	r.t.Helper()
	c, ctx := r.client(), r.t.Context()
	var all []*checkpoint.Checkpoint
	for s, err := range c.AllSessions(ctx, rpc.SessionListParams{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		var of []*checkpoint.Checkpoint
		ours := false
		for sum, err := range c.AllCheckpoints(ctx, rpc.CheckpointListParams{SessionRef: client.ByID(s.ID)}) {
			if err != nil {
				r.t.Fatal(err)
			}
			cp, err := c.Checkpoint(ctx, sum.ID)
			if err != nil {
				r.t.Fatal(err)
			}
			of = append(of, cp)
			ours = ours || cp.Cause == checkpoint.CausePrompt && cp.Message == prompt
		}
		if ours {
			all = append(all, of...)
		}
	}
	return all
}

func (r *agentRig) wantCheckpoints(prompt string, want map[checkpoint.Cause]int) []*checkpoint.Checkpoint {
	r.t.Helper()
	var got []*checkpoint.Checkpoint
	causes := map[checkpoint.Cause]int{}
	enough := func() bool {
		got = r.checkpoints(prompt)
		clear(causes)
		for _, cp := range got {
			causes[cp.Cause]++
		}
		for cause, n := range want {
			if causes[cause] < n {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(15 * time.Second); !enough() && time.Now().Before(end); {
		<-time.After(100 * time.Millisecond)
	}
	for _, cause := range []checkpoint.Cause{checkpoint.CausePrompt, checkpoint.CauseToolCall, checkpoint.CauseError, checkpoint.CauseDisconnect} {
		if causes[cause] != want[cause] {
			r.t.Errorf("%d checkpoints with cause %s, want %d (all: %v)", causes[cause], cause, want[cause], causes)
		}
	}
	return got
}

// callsAreKept: one checkpoint for the prompt, one for the good call, one for the failed
// one, one for the end, and each holds what was said until then.
func (r *agentRig) callsAreKept() {
	const prompt = "please keep the calls"
	r.model.play(agentSteps...)
	r.run(r.agent.prompt(prompt)...)
	got := r.wantCheckpoints(prompt, map[checkpoint.Cause]int{
		checkpoint.CausePrompt: 1, checkpoint.CauseToolCall: 1, checkpoint.CauseError: 1, checkpoint.CauseDisconnect: 1,
	})
	format := hookAgents[r.agent.name].format
	for _, cp := range got {
		if !slices.Contains([]checkpoint.Cause{checkpoint.CauseToolCall, checkpoint.CauseError, checkpoint.CauseDisconnect}, cp.Cause) {
			if len(cp.Context.Files) == 0 && !strings.Contains(string(cp.State), prompt) {
				r.t.Errorf("%s: holds no word of the prompt", cp.Cause)
			}
			continue
		}
		if len(cp.Context.Files) == 0 {
			r.t.Errorf("%s: holds no transcript", cp.Cause)
			continue
		}
		f, err := r.client().File(r.t.Context(), cp.ID, cp.Context.Files[0].Path)
		if err != nil || f.Content == nil {
			r.t.Errorf("%s: %v", cp.Cause, err)
			continue
		}
		done := transcript.Read(format, []byte(*f.Content))
		var detail struct{ Tool, ID string }
		_ = json.Unmarshal(cp.Context.Detail, &detail)
		calls, failed := 1, 0
		if cp.Cause != checkpoint.CauseToolCall {
			calls, failed = 2, 1
		}
		if done.Calls < calls || done.Failed < failed || cp.Cause != checkpoint.CauseDisconnect && (detail.ID == "" || !strings.Contains(*f.Content, detail.ID)) {
			r.t.Errorf("%s (%s): its transcript shows %d calls, %d failed", cp.Cause, cp.Context.Detail, done.Calls, done.Failed)
		}
	}
}

// killedAndResumed: the agent is killed in a tool, its transcript is gone, and the
// conversation goes on from the last checkpoint.
func (r *agentRig) killedAndResumed() {
	const prompt = "please be killed"
	marker := filepath.Join(r.dir, "in-the-tool")
	r.model.play(stubStep{say: "one", sh: "printf before-%d 55"}, stubStep{say: "two", sh: "touch " + marker + "; sleep 31"})
	cmd, _ := r.start(r.agent.prompt(prompt)...)
	r.wait("the second tool to start", func() bool { _, err := os.Stat(marker); return err == nil })
	got := r.wantCheckpoints(prompt, map[checkpoint.Cause]int{checkpoint.CausePrompt: 1, checkpoint.CauseToolCall: 1})
	if err := syscall.Kill(cmd.Process.Pid, syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	_ = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the tool, which may outlive its agent
	var last *checkpoint.Checkpoint
	for _, cp := range got {
		for _, f := range cp.Context.Files {
			last = cp
			if err := os.Remove(f.Path); err != nil && !os.IsNotExist(err) {
				r.t.Fatal(err)
			}
		}
	}
	if last == nil {
		r.t.Fatal("no checkpoint holds the transcript")
	}
	var made resumed
	if err := json.Unmarshal([]byte(r.forge("resume", last.ID.String(), "--json")), &made); err != nil {
		r.t.Fatal(err)
	}
	if made.Dir != r.proj || !slices.Contains(made.Argv, made.SessionID) || len(made.Env) != 0 {
		r.t.Errorf("it would go on with %+v", made)
	}
	r.model.play(stubStep{say: "gone on"})
	r.run(r.agent.goOn(made.SessionID, "go on please")...)
	seen := r.model.seen()
	if len(seen) == 0 || !strings.Contains(seen[0], prompt) || !strings.Contains(seen[0], "before-55") || !strings.Contains(seen[0], "go on please") {
		r.t.Fatalf("the model was not told the old conversation: %d requests, %.2000s", len(seen), seen)
	}
	if strings.Contains(seen[0], "sleep 31") {
		r.t.Error("the call that had no result is in it")
	}
}

// notSlower compares runs with the daemon up, stopped and gone with runs without hooks.
func (r *agentRig) notSlower() {
	r.compare("up", func() {})
	if err := r.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	r.compare("stopped", func() {
		// Each time as if it had stopped just now: later hooks know, and do not wait.
		_ = os.Remove(filepath.Join(r.dir, "data.spool", ".no-answer"))
	})
	for _, sig := range []os.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		if err := r.daemon.Process.Signal(sig); err != nil {
			r.t.Fatal(err)
		}
	}
	_ = r.daemon.Wait() // it is asked for its status at the end of the test
	r.compare("down", func() {})
}

// compare takes the best of some runs with hooks and of as many without, one after the
// other. Other work on the machine only makes runs longer, so a difference that is not
// there any more after some runs was not the hooks'.
func (r *agentRig) compare(daemon string, before func()) {
	settings := settingsOf[r.agent.name]
	path, err := settings.file(func(name string) string { return map[string]string{"HOME": r.home}[name] })
	if err != nil {
		r.t.Fatal(err)
	}
	hooked, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	bare, err := settings.uninstalled(hooked, r.agent.name)
	if err != nil {
		r.t.Fatal(err)
	}
	took := map[bool][]time.Duration{}
	// How much runs without hooks differ among themselves is the machine's part.
	slower := func() bool {
		with, without := took[true], took[false]
		return with[0] > without[0]+hookDeadline+(without[len(without)/2]-without[0])
	}
	for round := 0; round < 3 || round < 10 && slower(); round++ {
		for with, text := range map[bool][]byte{false: bare, true: hooked} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				r.t.Fatal(err)
			}
			before()
			r.model.play(agentSteps...)
			took[with] = append(took[with], r.run(r.agent.prompt("be quick")...))
			slices.Sort(took[with])
		}
	}
	if err := os.WriteFile(path, hooked, 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("daemon %s: %v, without hooks: %v", daemon, took[true], took[false])
	if slower() {
		r.t.Errorf("daemon %s: %v, without hooks: %v", daemon, took[true], took[false])
	}
}

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
)

// langgraph is LangGraph's own SqliteSaver in a node process, synchronous=FULL. Requests
// go in as lines; the saver's time is taken inside node, where its users would see it.
type langgraph struct {
	cmd *exec.Cmd
	in  *bufio.Writer
	out *bufio.Scanner
	mu  sync.Mutex
}

// modules is where `npm ci` in bench/langgraph puts the saver.
func modules() string { return filepath.Join(benchDir, "langgraph", "node_modules") }

func langgraphMissing() string {
	if _, err := exec.LookPath("node"); err != nil {
		return "node is not installed"
	}
	if _, err := os.Stat(filepath.Join(modules(), "@langchain", "langgraph-checkpoint-sqlite")); err != nil {
		return "run npm ci in bench/langgraph first (make bench does)"
	}
	return ""
}

func openLanggraph(dir string) (putter, error) {
	script := filepath.Join(benchDir, "langgraph", "put.mjs")
	cmd := exec.Command("node", script, filepath.Join(dir, "db"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &langgraph{cmd: cmd, in: bufio.NewWriter(in), out: bufio.NewScanner(out)}
	l.out.Buffer(nil, 16<<20)
	return l, nil
}

// run has node keep documents for some seconds with some concurrent callers.
func (l *langgraph) run(workers, size int, seconds float64) (rate float64, p50, p99 float64, err error) {
	return l.ask("%d %d %s\n", workers, size, strconv.FormatFloat(seconds, 'f', 3, 64))
}

// list reads n documents back and says how many milliseconds that takes.
func (l *langgraph) list(n, size int) (ms float64, err error) {
	_, ms, _, err = l.ask("list %d %d\n", n, size)
	return ms, err
}

func (l *langgraph) ask(format string, args ...any) (rate, p50, p99 float64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.in, format, args...)
	if err = l.in.Flush(); err != nil {
		return
	}
	if !l.out.Scan() {
		return 0, 0, 0, fmt.Errorf("node ended early: %w", l.out.Err())
	}
	var r struct{ Rate, P50, P99 float64 }
	err = json.Unmarshal(l.out.Bytes(), &r)
	return r.Rate, r.P50, r.P99, err
}

func (l *langgraph) put(int, int, []byte) error {
	return fmt.Errorf("langgraph is measured inside node")
}

func (l *langgraph) close() error {
	l.cmd.Process.Kill()
	l.cmd.Wait()
	return nil
}

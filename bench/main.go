// Command bench runs forge-cpd and what it is compared with side by side, in turns, in one
// run, and prints ratios with the goals beside them.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("dir", "", "where the stores go (default: a new directory beside the current one)")
	flag.Parse()
	root, err := os.MkdirTemp(*dir, "forge-cpd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	rs, err := race(root, append([]contender{journalLimit}, others...), cell{Clients: 8, Bytes: 8192}, 3, 500*time.Millisecond)
	for _, r := range rs {
		fmt.Printf("%-14s %10.0f/s p50 %8.3f p99 %8.3f ms  x%.2f %s\n", r.Name, r.Rate, r.P50, r.P99, r.Ratio, r.Skipped)
	}
	return err
}

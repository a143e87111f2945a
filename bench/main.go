// Command bench runs forge-cpd and what it is compared with side by side, in turns, in one
// run, prints ratios with the goals beside them, and writes all figures as JSON.
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
	dir := flag.String("dir", ".", "where the stores go, on the disk to be measured")
	out := flag.String("json", "../dist/bench.json", "where the figures go")
	bin := flag.String("bin", forgeBinary, "the forge-cpd to measure")
	only := flag.String("only", "", "one part: puts, sustained, reads, start, growth, compaction, crowd, hostile, wire")
	doc := flag.String("doc", "", "write the tables into this document, between its two marks")
	serve := flag.String("serve", "", "be a server with nothing behind it: daemon, wire, plain (used by the program itself)")
	sock := flag.String("socket", "", "with -serve: where")
	prof := flag.String("profile", "", "profile the daemon under 64 clients into this folder, and nothing else")
	lasting := flag.Duration("for", 5*time.Second, "with -profile: how long")
	flag.Parse()
	if *serve != "" {
		return serveStub(*serve, *sock, *prof)
	}
	var err error
	if forgeBinary, err = absolute(*bin); err != nil {
		return err
	}
	root, err := os.MkdirTemp(*dir, ".stores-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if root, err = absolute(root); err != nil {
		return err
	}
	if *prof != "" {
		return profile(root, *prof, *lasting)
	}
	r := newReport(os.Getenv("BENCH") == "short")
	for _, p := range r.parts(root) {
		if *only != "" && *only != p.name {
			continue
		}
		start := time.Now()
		if err := p.run(); err != nil {
			r.print(os.Stdout) // what is measured so far
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", p.name, time.Since(start).Seconds())
	}
	r.print(os.Stdout)
	if err := r.save(*out); err != nil || *doc == "" {
		return err
	}
	return r.document(*doc)
}

// part is a section of the run.
type part struct {
	name string
	run  func() error
}

func (r *report) parts(root string) []part {
	d, rounds := 500*time.Millisecond, 5
	small, large, startRounds, idle := 10_000, 100_000, 5, 10_000
	if r.Short {
		d, rounds = 250*time.Millisecond, 3
		small, large, startRounds, idle = 2_000, 10_000, 3, 2_000
	}
	return []part{
		{"puts", func() error { return r.puts(root, d, rounds) }},
		{"sustained", func() error { return r.sustained(root, 6*d, rounds) }},
		{"reads", func() error { return r.reads(root, 20*rounds) }},
		{"start", func() error {
			if err := r.start(root, small, startRounds); err != nil || r.Short {
				return err
			}
			return r.start(root, large, startRounds)
		}},
		{"growth", func() error { return r.growth(root, large, 2*d, rounds) }},
		{"compaction", func() error { return r.compaction(root, small, d, 3) }},
		{"crowd", func() error { return r.crowd(root, idle, d, rounds) }},
		{"hostile", func() error { return r.hostile(root, rounds) }},
		{"wire", func() error { return r.wireCost(root, 2*d, rounds) }},
	}
}

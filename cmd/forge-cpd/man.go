//go:build man

// With the tag man this program writes the manual pages into the directory that is its
// argument; the daemon itself does not carry what that needs.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"
)

var version = "dev"

func main() {
	if err := writePages(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "writing the manual pages:", err)
		os.Exit(1)
	}
}

func writePages(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one directory")
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	root := newRootCmd(&app{})
	root.DisableAutoGenTag = true // it holds the day
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "forge-cpd", Manual: "forge-cpd"}, args[0])
}

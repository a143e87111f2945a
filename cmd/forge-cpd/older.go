package main

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/forge-cpd/forge-cpd/rpc"
)

// described is a version as `git describe` writes it: v1.2.3, or v1.2.3-4-gabcdef, four
// commits later.
var described = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(?:-(\d+)-g[0-9a-f]+)?(?:-dirty)?$`)

// olderThan tells that a daemon is older than this program: by its API, or by its version
// where both have one that can be compared.
func olderThan(daemon *rpc.Info, own string) bool {
	if daemon.API.Minor != rpc.APIVersion.Minor {
		return daemon.API.Minor < rpc.APIVersion.Minor
	}
	theirs, ours := numbers(daemon.Version), numbers(own)
	return theirs != nil && ours != nil && slices.Compare(theirs, ours) < 0
}

func numbers(v string) []int {
	m := described.FindStringSubmatch(v)
	if m == nil {
		return nil
	}
	var out []int
	for _, part := range m[1:] {
		n, err := strconv.Atoi(part)
		if err != nil && part != "" {
			return nil
		}
		out = append(out, n)
	}
	return out
}

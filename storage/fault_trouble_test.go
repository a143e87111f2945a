package storage_test

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs/vfstest"
)

// trouble is what a life meets: calls that fail, and its end.
type trouble struct {
	errno  syscall.Errno
	op     string // "": all that change the disk
	prefix string
	from   int // the first of the matching calls that fails
	to     int
	short  bool

	kill       int // the matching call at which it dies; 0: never
	killPrefix string
	killOps    string
}

func (g *saga) trouble() *trouble {
	lot := g.lot
	t := &trouble{}
	where := []string{"", "", "journal/", "journal/", "sessions/", "events/", "index/", "tmp/", "blobs/"}
	if lot.IntN(2) == 0 {
		t.errno, t.prefix = drawn(lot, syscall.EIO, syscall.EIO, syscall.ENOSPC, syscall.EROFS), drawn(lot, where...)
		t.from, t.to = 1+lot.IntN(drawn(lot, 1, 10, 60)), 1<<30
		switch {
		case t.errno == syscall.EIO:
			t.op = drawn(lot, "sync", "syncdir", "write", "rename", "remove", "truncate", "create", "read", "")
			t.short = t.op == "write" && lot.IntN(2) == 0
		case t.errno == syscall.ENOSPC:
			t.op = drawn(lot, "write", "create")
			t.short = t.op == "write" && lot.IntN(2) == 0
		default:
			t.prefix = ""
		}
		if lot.IntN(3) > 0 {
			t.to = t.from + lot.IntN(drawn(lot, 1, 4, 40))
		}
	}
	if lot.IntN(3) > 0 {
		t.kill, t.killPrefix = 1+lot.IntN(drawn(lot, 12, 60, 300)), drawn(lot, where...)
		t.killOps = drawn(lot, "", "", "change")
	}
	return t
}

func (t *trouble) String() string {
	s := ""
	if t.errno != 0 {
		s += fmt.Sprintf("%v at %s %s* %d..%d short=%v; ", t.errno, t.op, t.prefix, t.from, t.to, t.short)
	}
	if t.kill > 0 {
		s += fmt.Sprintf("killed at %d of %s %s*", t.kill, t.killOps, t.killPrefix)
	}
	return s
}

// hook is asked one call at a time. over ends the errors, die the process.
func (t *trouble) hook(over, die *bool, died *vfstest.Call) func(vfstest.Call) vfstest.Verdict {
	failed, killed := 0, 0
	return func(c vfstest.Call) (v vfstest.Verdict) {
		if t.kill > 0 && strings.HasPrefix(c.Path, t.killPrefix) && (t.killOps == "" || c.Changes()) {
			killed++
		}
		if *die || t.kill > 0 && killed == t.kill {
			if !*die {
				*died = c
			}
			return vfstest.Verdict{Kill: true}
		}
		if *over || t.errno == 0 || !strings.HasPrefix(c.Path, t.prefix) || t.op != "" && c.Op != t.op || t.op == "" && (!c.Changes() || c.Op == "lock") {
			return v
		}
		if failed++; failed >= t.from && failed < t.to {
			v.Errno, v.Short = t.errno, t.short && c.Path != "LOCK" // a line that no disk splits
		}
		return v
	}
}

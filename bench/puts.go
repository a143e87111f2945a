package main

import (
	"path/filepath"
	"time"
)

// forgeBinary is forge-cpd as `make build` leaves it.
var forgeBinary = "../bin/forge-cpd"

// benchDir is this module's folder: the program is run from it.
var benchDir, _ = absolute(".")

func absolute(path string) (string, error) { return filepath.Abs(path) }

var (
	journalLimit = contender{name: "journal", what: "append to one file, one fdatasync shared by all who wait: the limit", open: openJournal}
	forgeStore   = contender{name: "store", what: "forge-cpd's store by itself", open: openStore}
	storeSyncFS  = contender{name: "store-syncfs", what: "the same, one syncfs a batch (off by default)", open: openStoreSyncFS}
	forgeDaemon  = contender{name: "daemon", what: "forge-cpd over its socket", open: openDaemon}
	stubbed      = contender{name: "daemon-stub", what: "all of the daemon, its store stubbed out", open: openStubbed("daemon")}
	filesSync    = contender{name: "files", what: "a file each: temp, fsync, rename, fsync(dir)", open: openFiles(true)}
	filesNoSync  = contender{name: "files-nosync", what: "a file each: temp, rename; a power cut loses them", open: openFiles(false)}
	sqliteRow    = contender{name: "sqlite-row", what: "SQLite WAL, synchronous=FULL, a transaction a row", open: openSQLite(false)}
	sqliteGroup  = contender{name: "sqlite-group", what: "the same, all that wait in one transaction", open: openSQLite(true)}
	boltUpdate   = contender{name: "bbolt", what: "bbolt Update", open: openBolt(false)}
	boltBatch    = contender{name: "bbolt-batch", what: "bbolt Batch", open: openBolt(true)}
	redisAlways  = contender{name: "redis", what: "redis-server, appendfsync always", open: openRedis, missing: redisMissing}
	gitCommit    = contender{name: "git", what: "git add + commit, core.fsync=all, one at a time", open: openGit, missing: gitMissing, single: true}
	langgraphDB  = contender{name: "langgraph", what: "LangGraph's SqliteSaver, synchronous=FULL, inside node", open: openLanggraph, missing: langgraphMissing}
)

// puts runs the contenders in every cell. The journal comes first: it is the reference.
func (r *report) puts(root string, d time.Duration, rounds int) error {
	everyone := []contender{
		journalLimit, forgeStore, forgeDaemon, stubbed, filesSync, filesNoSync, sqliteRow, sqliteGroup,
		boltUpdate, boltBatch, redisAlways, gitCommit, langgraphDB,
	}
	few := []contender{journalLimit, forgeStore, forgeDaemon, filesSync, sqliteRow, redisAlways}
	for _, clients := range []int{1, 8, 64} {
		for _, bytes := range []int{8 << 10, 1 << 10, 64 << 10, 1 << 20} {
			who, n := few, min(rounds, 3)
			if bytes == 8<<10 {
				who, n = everyone, rounds
			} else if r.Short && (clients == 8 || bytes == 64<<10) {
				continue
			}
			if bytes == 1<<20 && clients == 64 {
				who = []contender{journalLimit, forgeStore, forgeDaemon, filesSync}
			}
			got, err := race(root, who, cell{Clients: clients, Bytes: bytes}, n, d)
			if err != nil {
				return err
			}
			r.Puts = append(r.Puts, got...)
		}
	}
	one, many := cell{Clients: 1, Bytes: 8 << 10}, cell{Clients: 64, Bytes: 8 << 10}
	r.ratio("store, 64 writers, burst, to the journal", "store", "journal", many, rate, 0.8, true)
	r.ratio("store, 1 writer, p50, to the journal", "store", "journal", one, p50, 1.2, false)
	r.ratio("store, 1 writer, p99, to the journal", "store", "journal", one, p99, 1.5, false)
	r.ratio("daemon, 1 client, p50, to the journal", "daemon", "journal", one, p50, 2, false)
	r.ratio("daemon, 64 clients, burst, to the daemon with its store stubbed out", "daemon", "daemon-stub", many, rate, 0.7, true)
	r.ratio("daemon, 64 clients, to LangGraph", "daemon", "langgraph", many, rate, 5, true)
	r.ratio("daemon, 64 clients, to SQLite a row", "daemon", "sqlite-row", many, rate, 2, true)
	r.ratio("daemon, 64 clients, to git", "daemon", "git", many, rate, 50, true)
	return nil
}

// sustained counts until every document is its own file, synced.
func (r *report) sustained(root string, d time.Duration, rounds int) error {
	c := cell{Clients: 64, Bytes: 8 << 10, Settled: true}
	got, err := race(root, []contender{filesNoSync, forgeStore, storeSyncFS}, c, min(rounds, 3), d)
	if err != nil {
		return err
	}
	r.Puts = append(r.Puts, got...)
	r.ratio("store, sustained, to creating files with no fsync", "store", "files-nosync", c, rate, 0.3, true)
	r.ratio("store, sustained, one syncfs a batch, to the same", "store-syncfs", "files-nosync", c, rate, 0.7, true)
	return nil
}

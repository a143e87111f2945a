package main

// journalLimit is the reference of every table: what the disk allows.
var journalLimit = contender{name: "journal", what: "append to one file, one fdatasync shared by all who wait: the limit", open: openJournal}

// others is what people use or write by hand.
var others = []contender{
	{name: "files", what: "a file each: temp, fsync, rename, fsync(dir)", open: openFiles(true)},
	{name: "files-nosync", what: "a file each: temp, rename; a power cut loses them", open: openFiles(false)},
	{name: "sqlite-row", what: "SQLite WAL, synchronous=FULL, a transaction a row", open: openSQLite(false)},
	{name: "sqlite-group", what: "the same, all that wait in one transaction", open: openSQLite(true)},
	{name: "bbolt", what: "bbolt Update", open: openBolt(false)},
	{name: "bbolt-batch", what: "bbolt Batch", open: openBolt(true)},
	{name: "redis", what: "redis-server, appendfsync always", open: openRedis, missing: redisMissing},
	{name: "git", what: "git add + commit, core.fsync=all", open: openGit, missing: gitMissing, single: true},
	{name: "langgraph", what: "LangGraph's SqliteSaver, synchronous=FULL, inside node", open: openLanggraph, missing: langgraphMissing},
}

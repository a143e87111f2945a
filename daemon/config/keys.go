package config

import (
	"math"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

const (
	unlimited = math.MaxInt64
	kib       = 1 << 10
	mib       = 1 << 20
	gib       = 1 << 30
)

// Keys are all keys of the file, in its order. A test holds them against the structs.
var Keys = []Key{
	{Name: "socket", Doc: "Where clients connect, and who may.", Restart: true},
	{Name: "socket.path", Restart: true, check: checkPath, Doc: "The socket's path. Empty is $XDG_RUNTIME_DIR/forge-cpd/forge-cpd.sock, or /run/forge-cpd/forge-cpd.sock for root; `forge-cpd paths` prints it. The flag --socket and FORGE_CPD_SOCKET come before this key. The kernel takes 107 bytes at most."},
	{Name: "socket.mode", Restart: true, check: checkMode, Doc: "Its permissions, four octal digits in quotes. 0600 lets in the daemon's own uid and root; to share the daemon, 0660 or 0666 with the lists below."},
	{Name: "socket.allowed_uids", Restart: true, Doc: "Further uids that are let in. The kernel tells who connects, whatever the mode says; each uid sees only its own sessions."},
	{Name: "socket.allowed_uids[]", Min: 0, Max: math.MaxUint32 - 1, Doc: "A uid."},
	{Name: "socket.allowed_gids", Restart: true, Doc: "Further groups whose members are let in (a peer's primary group)."},
	{Name: "socket.allowed_gids[]", Min: 0, Max: math.MaxUint32 - 1, Doc: "A gid."},

	{Name: "storage", Doc: "What keeps the checkpoints.", Restart: true},
	{Name: "storage.driver", Restart: true, OneOf: []string{DriverDirectory, DriverMemory, DriverPostgres}, Doc: "directory keeps one JSON file a checkpoint, durable before it is acknowledged. memory forgets all at the end: for tests. postgres shares one store among hosts."},
	{Name: "storage.dir", Restart: true, check: checkPath, Doc: "The data directory of the directory driver. Empty is $XDG_STATE_HOME/forge-cpd (~/.local/state/forge-cpd), or /var/lib/forge-cpd for root. The flag --data-dir and FORGE_CPD_DATA_DIR come before this key."},
	{Name: "storage.allow_network_fs", Restart: true, Doc: "Open a store on a network file system (NFS, SMB, Ceph, AFS, 9p) or FUSE all the same. Off, because locks and fsync do not hold there: an acknowledged checkpoint may be lost."},
	{Name: "storage.url", Restart: true, check: checkURL, Doc: "The database of the postgres driver, as postgres://user@host/database. Keep the password out of this file: PGPASSFILE and PGPASSWORD are read."},

	{Name: "limits", Doc: "What clients can make the daemon hold. Each limit is refused with its own error, never in silence."},
	{Name: "limits.frame_bytes", Min: 4 * kib, Max: gib, Unit: "bytes", Doc: "The longest request. Twice state_bytes, so that the largest state fits however its JSON is escaped."},
	{Name: "limits.state_bytes", Min: kib, Max: gib, Unit: "bytes", Doc: "The largest state of one checkpoint. 16 MiB is several times the longest conversation that an agent can hold; larger things belong in files."},
	{Name: "limits.metadata_bytes", Min: 0, Max: 16 * mib, Unit: "bytes", Doc: "The largest metadata of one checkpoint. Lists show it with every line, so it is kept small."},
	{Name: "limits.in_flight_bytes", Min: 8 * kib, Max: 64 * gib, Unit: "bytes", Doc: "Requests being worked on, over all connections; beyond it the daemon reads no further until some are answered. Bounds its memory."},
	{Name: "limits.connections", Min: 1, Max: 1_000_000, Doc: "Open connections; one more is told overloaded and closed. 1024 stays below the usual limit on descriptors with room for the store."},
	{Name: "limits.frame_timeout", Min: int64(100 * time.Millisecond), Max: int64(time.Hour), Doc: "How long a client may take to end a request that it began. A local client needs milliseconds; 30s is for one that was stopped."},
	{Name: "limits.in_flight_per_connection", Min: 1, Max: 100_000, Doc: "Requests of one connection being worked on; beyond it the daemon reads no further from that connection."},
	{Name: "limits.subscriptions_per_connection", Min: 0, Max: 100_000, Doc: "Event subscriptions of one connection."},
	{Name: "limits.json_depth", Min: 8, Max: 10_000, Doc: "How deep a client's JSON may nest. Real states stay below 100."},
	{Name: "limits.idle_timeout", Min: 0, Max: int64(8760 * time.Hour), Doc: "Close a connection that asks nothing for this long. 0s never does: agents think for hours."},
	{Name: "limits.write_timeout", Min: int64(100 * time.Millisecond), Max: int64(time.Hour), Doc: "How long a client may leave a reply unread before its connection is closed: one that never reads holds neither memory nor a stop."},
	{Name: "limits.drain_timeout", Min: int64(time.Second), Max: int64(time.Hour), Doc: "How long a stop may take to answer what was received before it, and then again how long the store goes on writing the journal out as files; what is left stays in the journal, and the next start takes it from there. Nothing acknowledged is lost either way. Below systemd's TimeoutStopSec of the shipped units, 90s."},
	{Name: "limits.message_bytes", Min: 1, Max: 1 << 20, Doc: "A checkpoint's message, an annotation's note. A page of 1,000 summaries has to fit into a frame."},
	{Name: "limits.name_bytes", Min: 1, Max: 1 << 20, Doc: "A session's name."},
	{Name: "limits.key_bytes", Min: 1, Max: 1 << 16, Doc: "A session's key: an agent's session id, a thread id, a path."},
	{Name: "limits.tags", Min: 0, Max: 10_000, Doc: "Tags of one checkpoint."},
	{Name: "limits.tag_bytes", Min: 1, Max: 1 << 16, Doc: "One tag."},
	{Name: "limits.labels", Min: 0, Max: 10_000, Doc: "Labels of one session."},
	{Name: "limits.label_bytes", Min: 1, Max: 1 << 16, Doc: "A label's name, and its value."},
	{Name: "limits.notification_bytes", Min: 1 << 12, Max: 1 << 30, Doc: "Events that wait for a connection that does not read them; beyond it its subscription ends with an overflow."},
	{Name: "limits.import_bytes", Restart: true, Min: mib, Max: 64 * gib, Unit: "bytes", Doc: "Contents of files that imports have begun and not ended, over all imports; beyond it the one that has not grown for longest is forgotten. A file that an export cut into parts must fit."},

	{Name: "auto", Doc: "What a session gets with auto.enable {}, and what a session below starts from. A session that nothing names has no automation."},
	{Name: "auto.interval_seconds", Min: 0, Max: 365 * 86400, Unit: "seconds", Doc: "A checkpoint this often, when something changed; 0 is off. Five minutes is what one can bear to do again."},
	{Name: "auto.cron", Doc: "Also at these times: five fields or @hourly, @daily, `@every 90m`; in local time unless it begins with CRON_TZ=Area/City and a space."},
	{Name: "auto.on_error", Doc: "Also when a tool call failed: the moment one wants to look at afterwards."},
	{Name: "auto.on_tool_call", Doc: "Also after each tool call. Off, because most sessions have hundreds; cheap where the state is files, whose content is kept once."},
	{Name: "auto.causes", Doc: "Which causes reported by a reasoning agent are taken; all of them, because they are rare and each says that something was learned."},
	{Name: "auto.causes[]", OneOf: causeNames(checkpoint.SeedCauses), Doc: "A cause."},
	{Name: "auto.min_gap_seconds", Min: 0, Max: 365 * 86400, Unit: "seconds", Doc: "The least time between two automatic checkpoints; 0 is none. A disconnect and a context_compaction_warning are never held back."},
	{Name: "auto.skip_unchanged", Doc: "Timers skip when what would be saved is what the newest checkpoint holds."},
	{Name: "auto.watch", Doc: "Files whose changes take checkpoints, and transcripts to follow. Only this file, or a client of the daemon's own uid, may name them."},
	{Name: "auto.watch[]", Doc: "One file, glob or tree."},
	{Name: "auto.watch[].path", check: checkWatchPath, Doc: "A file, directory or glob (**, *, ?, [a-z], {a,b}): absolute or from ~/."},
	{Name: "auto.watch[].recursive", Doc: "Watch the whole tree under a directory; .git, node_modules and what .gitignore names are left out."},
	{Name: "auto.watch[].ignore", Doc: "Further globs to leave out, relative to the path."},
	{Name: "auto.watch[].ignore[]", Doc: "A glob."},
	{Name: "auto.watch[].debounce_ms", Min: 0, Max: 3_600_000, Unit: "milliseconds", Doc: "The quiet after a change before it counts: an editor saves in several steps."},
	{Name: "auto.watch[].max_wait_ms", Min: 1, Max: 86_400_000, Unit: "milliseconds", Doc: "The longest that a file which never rests can put a checkpoint off."},
	{Name: "auto.watch[].cause", OneOf: causeNames(checkpoint.Causes), Doc: "The cause that the checkpoint gets."},
	{Name: "auto.watch[].format", OneOf: []string{"", "claude-code", "codex", "gemini", "jsonl"}, Doc: "Follow it as an agent's transcript: claude-code, codex, gemini, or jsonl with match. Empty: a plain file."},
	{Name: "auto.watch[].from_start", Doc: "Follow a transcript that is there already from its start, not its end."},
	{Name: "auto.watch[].match", Doc: "For jsonl: which lines are tool calls, and which are errors."},
	{Name: "auto.watch[].match.tool_call", Doc: "A line is a tool call when each of these dotted members equals its value, as in {type: tool_result}."},
	{Name: "auto.watch[].match.tool_call.{}", Doc: "The value of that member."},
	{Name: "auto.watch[].match.error", Doc: "The same for a failed one."},
	{Name: "auto.watch[].match.error.{}", Doc: "The value of that member."},
	{Name: "auto.capture", Doc: "What an automatic checkpoint holds beside the state."},
	{Name: "auto.capture.env", Doc: "Further names of environment variables of the agent; those that can hold a secret are never kept."},
	{Name: "auto.capture.env[]", check: checkEnvName, Doc: "A name."},
	{Name: "auto.capture.files", Doc: "Further files, kept by content."},
	{Name: "auto.capture.files[]", check: checkWatchPath, Doc: "A path: absolute or from ~/."},
	{Name: "auto.capture.git", Doc: "Also commit, branch and whether the work tree is dirty."},
	{Name: "auto.retention", Doc: "Rules for this session in place of the retention of this file."},

	{Name: "retention", Doc: "What is kept of a session without rules of its own, applied after each automatic checkpoint. A checkpoint stays when any rule keeps it; the newest always stays. Given, this section replaces the default whole: {} keeps everything."},
	{Name: "retention.keep_recent", Min: 0, Max: unlimited, Unit: "checkpoints", Doc: "The newest of each session."},
	{Name: "retention.keep_hourly", Min: 0, Max: unlimited, Unit: "hours", Doc: "The newest of each of the last so many hours that have one: three days."},
	{Name: "retention.keep_daily", Min: 0, Max: unlimited, Unit: "days", Doc: "The newest of each of the last so many days that have one: a season."},
	{Name: "retention.keep_manual", Doc: "All that a client asked for: somebody meant to keep them."},
	{Name: "retention.keep_tagged", Doc: "All with any tag."},
	{Name: "retention.preserve_tags", Doc: "All with one of these tags."},
	{Name: "retention.preserve_tags[]", Doc: "A tag."},
	{Name: "retention.max_age_seconds", Min: 0, Max: math.MaxInt64 / int64(time.Second), Unit: "seconds", Doc: "All that are younger. Left out, it is no rule."},
	{Name: "retention.every", Min: int64(time.Second), Max: int64(8760 * time.Hour), Doc: "How often the rules are also applied to sessions at rest."},
	{Name: "retention.max_store_bytes", Min: 0, Max: unlimited, Unit: "bytes", Doc: "Over it, the oldest automatic checkpoints go first, and health says so. 0 is no bound: deleting is left to the rules."},

	{Name: "scrub", Doc: "Reads the whole store again, slowly, to find damage while a backup still has the good copy."},
	{Name: "scrub.cron", Doc: "When, as auto.cron; empty is never."},
	{Name: "scrub.bytes_per_second", Min: 4 * kib, Max: 64 * gib, Unit: "bytes", Doc: "How fast at most. 8 MiB a second is not noticed beside other work, and reads 28 GiB in an hour."},

	{Name: "capture", Doc: "Bounds of what the daemon reads of an agent's process and files."},
	{Name: "capture.env", Doc: "The environment variables of the agent that a checkpoint's context keeps. Nothing that can hold a secret by default."},
	{Name: "capture.env[]", check: checkEnvName, Doc: "A name."},
	{Name: "capture.redact", Doc: "Replace what looks like a password, token or key in kept variables, before the checksum is made."},
	{Name: "capture.timeout", Min: int64(10 * time.Millisecond), Max: int64(10 * time.Minute), Doc: "How long an attached agent may take to hand over its state; then the last one that it put is taken."},
	{Name: "capture.file_bytes", Min: 0, Max: 16 * gib, Unit: "bytes", Doc: "The largest file that is kept; a larger one is named and left out."},
	{Name: "capture.total_bytes", Min: 0, Max: 64 * gib, Unit: "bytes", Doc: "All files of one checkpoint together."},

	{Name: "events", Doc: "The events that subscribers follow."},
	{Name: "events.retain", Min: 0, Max: 100_000_000, Unit: "events", Doc: "How many are kept for clients that come back with a cursor; an older cursor is told to list anew. About 200 bytes each on disk."},

	{Name: "log", Doc: "The daemon's log, on stderr. It never holds a state or a secret."},
	{Name: "log.level", OneOf: []string{"debug", "info", "warn", "error"}, Doc: "The least level that is written; a reload changes it."},
	{Name: "log.format", Restart: true, OneOf: []string{"text", "json"}, Doc: "text for people and the journal, json for machines."},

	{Name: "metrics", Doc: "Metrics for a scraper; daemon.prometheus gives the same text over the socket."},
	{Name: "metrics.listen", Restart: true, check: checkListen, Doc: "Serve /metrics here over HTTP, as 127.0.0.1:9464. Empty is off. Only loopback is taken: there is no password on it."},

	{Name: "sessions", Doc: "Sessions that the daemon opens by itself and keeps in step with this file. One that is no longer named keeps its checkpoints; its automation ends."},
	{Name: "sessions[]", Doc: "One session."},
	{Name: "sessions[].key", check: checkNotEmpty, Doc: "What names it for clients; unique in the store. Required."},
	{Name: "sessions[].name", Doc: "What lists show. Empty is the key."},
	{Name: "sessions[].labels", Doc: "Labels to find it by."},
	{Name: "sessions[].labels.{}", Doc: "A label's value."},
	{Name: "sessions[].auto", Doc: "Its automation, with the keys of auto above; what is left out comes from there. No auto, no automation; {} is auto as it stands."},
}

func causeNames(causes []checkpoint.Cause) []string {
	names := make([]string, len(causes))
	for i, c := range causes {
		names[i] = string(c)
	}
	return names
}

package rpc

import "strconv"

// ranges are the bounds of numbers: least and, if not 0, most.
var ranges = map[string][2]float64{
	"limit": {1, MaxListLimit}, "recent": {0, 0}, "max_bytes": {1, 0},
	"keep_recent": {0, 0}, "keep_hourly": {0, 0}, "keep_daily": {0, 0}, "max_age_seconds": {0, 0},
}

// defaults are what a param that is left out stands for.
var defaults = map[string]string{
	"limit": strconv.Itoa(DefaultListLimit), "recent": strconv.Itoa(DefaultRecent), "max_bytes": strconv.Itoa(DefaultExportBytes),
	"order": `"asc"`, "severity": `"info"`, "tags": "[]", "types": "[]", "preserve_tags": "[]", "config": "{}",
	"any_tag": "false", "validate": "false", "provides_state": "false", "move_head": "true", "dry_run": "false",
	"keep_manual": "false", "keep_tagged": "false",
}

// paramDocs say what a param means wherever it stands.
var paramDocs = map[string]string{
	"validate":         "read the newest checkpoints back",
	"recent":           "how many of each session to read back",
	"name":             "a name for people",
	"key":              "a client's own name for the session, unique in the store",
	"session_id":       "the session's id",
	"labels":           "strings to find sessions by; in a query all must be equal",
	"auto":             "automation from the start, as auto.enable's config",
	"status":           "only sessions of this status",
	"limit":            "how many at most",
	"cursor":           "next_cursor of the page before; store.export also takes after:NUMBER, which leaves out what has that number or a lower one",
	"state":            "any JSON, kept as it is sent but for white space between tokens",
	"provides_state":   "this connection answers state.capture",
	"message":          "a text for people",
	"tags":             "tags; in a query all of them, or with any_tag one of them",
	"metadata":         "an object, kept as it is sent; in a query its members must be equal",
	"parent_id":        "the checkpoint before this one; left out, the session's head",
	"expected_head_id": "the head that the session must have, null for none yet; else conflict",
	"checkpoint_id":    "the checkpoint's id; in a create the client's own, which makes it safe to repeat",
	"path":             "a path of context.files, or in a diff a JSON Pointer into the state",
	"time":             "RFC 3339, the highest number at or before it",
	"sequence_number":  "the highest number at or before it",
	"any_tag":          "one of the tags is enough",
	"trigger":          "only checkpoints of this trigger",
	"cause":            "what happened; in a query only checkpoints of this cause",
	"from_sequence":    "from this number on",
	"to_sequence":      "up to this number",
	"since":            "from this time on",
	"until":            "up to this time",
	"text":             "found in messages and tags, without regard to case",
	"order":            "asc or desc, by number",
	"move_head":        "what is made next grows from this checkpoint",
	"from":             "the checkpoint to start from",
	"to":               "the checkpoint to arrive at",
	"keep_recent":      "keep the newest so many",
	"preserve_tags":    "keep what has one of these tags",
	"keep_manual":      "keep what a client asked for",
	"keep_tagged":      "keep what has any tag",
	"max_age_seconds":  "keep what is younger",
	"keep_hourly":      "keep the newest of each of the last so many hours that have one",
	"keep_daily":       "keep the newest of each of the last so many days that have one",
	"dry_run":          "only tell what would go",
	"note":             "a text for people",
	"severity":         "how grave it is",
	"config":           "an AutoConfig; what is left out has its default",
	"detail":           "any JSON, kept as context.trigger_detail",
	"max_bytes":        "how long a page may be",
	"data":             "one page of an export",
	"types":            "only events of these types; none: all",
	"since_cursor":     "replay what came after it; left out: from now on",
	"subscription_id":  "from events.subscribe",
}

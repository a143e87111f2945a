package rpc

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// contract is the wire as clients were promised it: params and result of each method,
// member by member. "?" may be left out, "=" has a default, "[]" is an array, "{}" an object
// of any names, "S" exactly one of session_id and key, "S?" at most one, "..." more may
// follow, and a capital stands for the members of types.
var contract = map[string]struct{ params, result string }{
	"rpc.discover":      {"", ""},
	"daemon.info":       {"", "name version api.major api.minor store_format pid started_at socket driver capabilities[]"},
	"daemon.health":     {"validate=false recent=5", "healthy message checked invalid checks[].name checks[].ok ..."},
	"daemon.metrics":    {"", "total_checkpoints active_sessions total_sessions_created global_sequence store_bytes subscribers connections automatic.taken automatic.skipped automatic.failed uptime_seconds ..."},
	"daemon.prometheus": {"", "text"},
	"daemon.sync":       {"", "sequence_number"},
	"daemon.reload":     {"", "..."},
	"daemon.shutdown":   {"", "..."},

	"session.create":    {"name key? session_id? labels?{} auto?", "Session existing"},
	"session.get":       {"S", "Session"},
	"session.list":      {"status? labels?{} limit=100 cursor?", "sessions[].Session next_cursor?"},
	"session.close":     {"S", "Session"},
	"session.reopen":    {"S", "Session"},
	"session.delete":    {"S", "deleted"},
	"session.put_state": {"S state", "revision"},
	"session.attach":    {"S provides_state=false", "attached"},
	"session.detach":    {"S", "detached"},

	"checkpoint.create":           {"S message tags=[][] state? metadata? parent_id? expected_head_id? checkpoint_id?", "checkpoint_id session_id sequence_number timestamp checksum existing"},
	"checkpoint.get":              {"checkpoint_id", "Checkpoint"},
	"checkpoint.file":             {"checkpoint_id path", "path mode bytes sha256 content? content_base64?"},
	"checkpoint.latest":           {"S", "Checkpoint"},
	"checkpoint.at":               {"S time? sequence_number?", "Checkpoint"},
	"checkpoint.list":             {`S? tags=[][] any_tag=false trigger? cause? from_sequence? to_sequence? since? until? text? metadata? order="asc" limit=100 cursor?`, "checkpoints[].Summary next_cursor?"},
	"checkpoint.restore":          {"S checkpoint_id move_head=true", "checkpoint.Stateless state"},
	"checkpoint.fork":             {"checkpoint_id name key?", "Session"},
	"checkpoint.diff":             {"from to path?", "patch summary.added summary.removed summary.changed identical"},
	"checkpoint.delete":           {"checkpoint_id", "deleted"},
	"checkpoint.compact":          {"S keep_recent? preserve_tags=[][] keep_manual=false keep_tagged=false max_age_seconds? keep_hourly? keep_daily? dry_run=false", "deleted remaining deleted_ids[]"},
	"checkpoint.annotate":         {`checkpoint_id note severity="info"`, "Annotation"},
	"checkpoint.validate":         {"checkpoint_id", "valid checksum problem?"},
	"checkpoint.validate_all":     {"S?", "valid invalid skipped total all_valid problems[].checkpoint_id? problems[].path problems[].problem checked_at"},
	"checkpoint.hypothesis_state": {"checkpoint_id", "hypothesis_state"},

	"auto.enable":  {"S config={}", "AutoConfig"},
	"auto.disable": {"S", "disabled"},
	"auto.get":     {"S", "config?.AutoConfig next_run? next_runs[] last_run? last_error? taken skipped"},
	"auto.trigger": {"S cause message? detail? state?", "checkpoint_id? sequence_number? skipped?"},

	"store.export": {"S? cursor? max_bytes=8388608", "format version checkpoints[].Checkpoint sessions[].Session files[].sha256 files[].offset files[].content_base64 global_sequence exported_at next_cursor?"},
	"store.import": {"data", "imported skipped renumbered rejected[].checkpoint_id? rejected[].problem"},

	"events.subscribe":   {"S? types=[][] since_cursor?", "subscription_id cursor fresh"},
	"events.unsubscribe": {"subscription_id", "unsubscribed"},
}

var contractTypes = map[string]string{
	"Checkpoint": "Stateless state",
	"Stateless":  "Entry context.Context annotations?[].Annotation",
	"Entry":      "id session_id sequence_number timestamp message tags[] trigger cause? parent_id? metadata? checksum",
	"Summary":    "Entry state_bytes has_notes annotation_count corrupt?",
	"Context": "captured_at started_at pid? uid? working_dir? env_vars{} hostname git?.head git?.branch git?.dirty " +
		"files?[].path files?[].mode files?[].bytes files?[].sha256 files?[].modified_at state_source metrics{} trigger_detail? imported_sequence_number?",
	"Annotation": "id note severity timestamp",
	"Session": "id key? name labels{} owner_uid status head_id? created_at updated_at parent?.session_id parent?.checkpoint_id auto?.AutoConfig " +
		"checkpoint_count last_checkpoint?.id last_checkpoint?.sequence_number last_checkpoint?.timestamp",
	"AutoConfig": "interval_seconds cron on_error on_tool_call causes[] min_gap_seconds skip_unchanged watch[].Watch capture.env[] capture.files[] capture.git retention?.Retention",
	"Watch":      "path recursive? ignore[] debounce_ms max_wait_ms cause format? from_start match?.tool_call?{} match?.error?{}",
	"Retention":  "keep_recent? preserve_tags?[] keep_manual? keep_tagged? max_age_seconds? keep_hourly? keep_daily?",
}

var typeName = regexp.MustCompile(`^(.*?)([A-Z][A-Za-z]+)$`)

// promised are the members that a line of the contract stands for.
func promised(line, prefix string) []string {
	var out []string
	for _, word := range strings.Fields(line) {
		if m := typeName.FindStringSubmatch(word); m != nil {
			out = append(out, promised(contractTypes[m[2]], prefix+m[1])...)
		} else {
			out = append(out, prefix+word)
		}
	}
	return out
}

// members are those of a schema, in the same words.
func members(s *jsonschema.Schema, prefix string) []string {
	switch {
	case len(s.AnyOf) > 0:
		return members(s.AnyOf[0], prefix)
	case s.Items != nil:
		return members(s.Items, prefix+"[]")
	case len(s.Properties) == 0 && s.AdditionalProperties != nil:
		return []string{prefix + "{}"}
	case len(s.Properties) == 0:
		return []string{prefix}
	}
	var out []string
	if prefix != "" {
		prefix += "."
	}
	for name, p := range s.Properties {
		if !slices.Contains(s.Required, name) {
			name += "?"
		}
		out = append(out, members(p, prefix+name)...)
	}
	return out
}

// paramsOf are a method's params in the contract's words.
func paramsOf(d methodDoc) []string {
	var out []string
	ref := map[string]bool{}
	for _, names := range [][]string{d.ExactlyOneOf, d.AtMostOneOf} {
		for _, name := range names {
			ref[name] = true
		}
	}
	if len(d.ExactlyOneOf) > 0 {
		out = append(out, "S")
	} else if len(d.AtMostOneOf) > 0 {
		out = append(out, "S?")
	}
	for _, p := range d.Params {
		if ref[p.Name] {
			continue
		}
		word := p.Name
		if p.Schema.Default != nil {
			word += "=" + string(p.Schema.Default)
		} else if !p.Required {
			word += "?"
		}
		if len(p.Schema.Properties) == 0 { // an AutoConfig is looked at as a result
			word = members(p.Schema, word)[0]
		}
		out = append(out, word)
	}
	return out
}

func compareMembers(t *testing.T, what string, got, want []string) {
	t.Helper()
	open := slices.Contains(want, "...")
	for _, m := range want {
		if m != "..." && !slices.Contains(got, m) {
			t.Errorf("%s: %s is promised, and there is %v", what, m, slices.Sorted(slices.Values(got)))
		}
	}
	for _, m := range got {
		if !open && !slices.Contains(want, m) {
			t.Errorf("%s: %s was never promised", what, m)
		}
	}
}

// TestTheWireIsWhatWasPromised holds the method table to the contract. The schemas are held
// to the daemon's answers by TestEveryMethodOfTheDaemon.
func TestTheWireIsWhatWasPromised(t *testing.T) {
	doc, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(contract)
	for _, d := range doc.Methods {
		want, known := contract[d.Name]
		if delete(left, d.Name); !known {
			t.Errorf("%s was never promised", d.Name)
			continue
		}
		compareMembers(t, d.Name+" params", paramsOf(d), strings.Fields(want.params))
		if d.Name == "rpc.discover" {
			continue
		}
		result, err := resultSchema(methodByName[d.Name])
		if err != nil {
			t.Fatal(err)
		}
		compareMembers(t, d.Name, members(result, ""), promised(want.result, ""))
	}
	for name := range left {
		t.Errorf("%s is promised and missing", name)
	}
}

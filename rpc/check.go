package rpc

import (
	"strconv"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// The defaults of optional params.
const (
	DefaultListLimit   = 100
	MaxListLimit       = 1000
	DefaultRecent      = 5
	DefaultExportBytes = 8 << 20
)

// objects are the raw members that must be JSON objects.
var objects = map[string]bool{"metadata": true, "auto": true, "config": true, "data": true}

// checkSize bounds the members that are kept as they come.
func (l *Limits) checkSize(name string, value []byte) error {
	limit := 0
	switch name {
	case "state":
		limit = l.StateBytes
	case "metadata", "detail", "auto", "config":
		limit = l.MetadataBytes
	}
	if objects[name] && value[0] != '{' {
		return checkpoint.Invalid(name, "must be an object")
	}
	if limit > 0 && len(value) > limit {
		e := checkpoint.Errorf(checkpoint.KindTooLarge, "%s is %d bytes long, over the limit of %d; send less, or raise the limit in the configuration", name, len(value), limit)
		e.Field = name
		return e
	}
	return nil
}

// check bounds texts and numbers and fills the defaults in.
func (l *Limits) check(params any, has func(string) bool) error {
	switch p := params.(type) {
	case *SessionCreateParams:
		return first(l.name(p.Name), l.key(p.Key, has("key")), l.labels(p.Labels))
	case *SessionListParams:
		return first(limit(&p.Limit, has("limit")), l.labels(p.Labels))
	case *CheckpointCreateParams:
		return first(l.message("message", p.Message), l.tags(p.Tags))
	case *CheckpointListParams:
		if p.Order == "" && !has("order") {
			p.Order = "asc"
		}
		if p.Order != "asc" && p.Order != "desc" {
			return checkpoint.Invalid("order", "must be asc or desc")
		}
		return first(limit(&p.Limit, has("limit")), l.tags(p.Tags), l.message("text", p.Text))
	case *CheckpointAtParams:
		if has("time") == has("sequence_number") {
			return checkpoint.Invalid("time", "give time or sequence_number, one of them")
		}
	case *ForkParams:
		return first(l.name(p.Name), l.key(p.Key, has("key")))
	case *AnnotateParams:
		if p.Severity == "" {
			p.Severity = checkpoint.Info
		}
		return l.message("note", p.Note)
	case *AutoTriggerParams:
		return l.message("message", p.Message)
	case *HealthParams:
		if !has("recent") {
			p.Recent = DefaultRecent
		}
		return atLeast("recent", int64(p.Recent), 0)
	case *ExportParams:
		if !has("max_bytes") {
			p.MaxBytes = DefaultExportBytes
		}
		return atLeast("max_bytes", int64(p.MaxBytes), 1)
	case *CompactParams:
		for name, n := range map[string]*int64{
			"keep_recent": p.KeepRecent, "max_age_seconds": p.MaxAgeSeconds, "keep_hourly": p.KeepHourly, "keep_daily": p.KeepDaily,
		} {
			if n != nil && *n < 0 {
				return checkpoint.Invalid(name, "must be 0 or more")
			}
		}
		if p.IsZero() {
			return checkpoint.Invalid("keep_recent", "give at least one rule: keep_recent, preserve_tags, keep_manual, keep_tagged, max_age_seconds, keep_hourly or keep_daily")
		}
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func limit(n *int, given bool) error {
	if !given {
		*n = DefaultListLimit
	}
	if *n < 1 || *n > MaxListLimit {
		return checkpoint.Invalid("limit", "must be 1 to %d", MaxListLimit)
	}
	return nil
}

func atLeast(name string, n, least int64) error {
	if n < least {
		return checkpoint.Invalid(name, "must be %d or more", least)
	}
	return nil
}

func atMost(name, s string, bytes int) error {
	if len(s) > bytes {
		return checkpoint.Invalid(name, "is %d bytes long, at most %d are allowed", len(s), bytes)
	}
	return nil
}

func (l *Limits) message(name, s string) error { return atMost(name, s, l.MessageBytes) }

func (l *Limits) name(s string) error { return atMost("name", s, l.NameBytes) }

func (l *Limits) key(s string, given bool) error {
	if given && s == "" {
		return checkpoint.Invalid("key", "must not be empty")
	}
	return atMost("key", s, l.KeyBytes)
}

func (l *Limits) tags(tags []string) error {
	if len(tags) > l.TagCount {
		return checkpoint.Invalid("tags", "has %d tags, at most %d are allowed", len(tags), l.TagCount)
	}
	for i, tag := range tags {
		if err := atMost("tags["+strconv.Itoa(i)+"]", tag, l.TagBytes); err != nil {
			return err
		}
	}
	return nil
}

func (l *Limits) labels(labels map[string]string) error {
	if len(labels) > l.LabelCount {
		return checkpoint.Invalid("labels", "has %d labels, at most %d are allowed", len(labels), l.LabelCount)
	}
	for name, value := range labels {
		if err := first(atMost("labels", name, l.LabelBytes), atMost("labels."+cut(name), value, l.LabelBytes)); err != nil {
			return err
		}
	}
	return nil
}

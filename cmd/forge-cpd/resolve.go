package main

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// idPrefix is what may be the beginning of an id: shorter ones would match by accident.
var idPrefix = regexp.MustCompile(`^[0-9a-f]{4,8}(-[0-9a-f-]*)?$`)

// sessionArg finds the session that an argument names: id, key, @last or a unique prefix.
func sessionArg(ctx context.Context, c *client.Client, arg string) (*checkpoint.Session, error) {
	if arg == "@last" {
		page, err := c.Sessions(ctx, &rpc.SessionListParams{Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(page.Sessions) == 0 {
			return nil, notFoundf("there is no session yet: make one with `forge-cpd session create NAME`")
		}
		return &page.Sessions[0], nil
	}
	if id, err := checkpoint.ParseID(arg); err == nil {
		s, err := c.Session(ctx, client.ByID(id))
		if !errors.Is(err, checkpoint.ErrNotFound) {
			return s, err
		}
	}
	if arg == "" {
		return nil, usagef("a session's name on the command line is its id, a prefix of it, its key, or @last; it is not empty")
	}
	s, err := c.Session(ctx, client.ByKey(arg))
	if !errors.Is(err, checkpoint.ErrNotFound) {
		return s, err
	}
	var found []checkpoint.Session
	if idPrefix.MatchString(arg) {
		for s, err := range c.AllSessions(ctx, rpc.SessionListParams{Limit: 1000}) {
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(s.ID.String(), arg) {
				found = append(found, s)
			}
		}
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, notFoundf("no session has the id, key or prefix %q: see `forge-cpd session list`", arg)
	}
	return nil, usagef("%d sessions begin with %s (%s, %s, …): give more of the id", len(found), arg, found[0].ID, found[1].ID)
}

// sessionRef is sessionArg for those who only pass it on.
func sessionRef(ctx context.Context, c *client.Client, arg string) (rpc.SessionRef, error) {
	s, err := sessionArg(ctx, c, arg)
	if err != nil {
		return rpc.SessionRef{}, err
	}
	return client.ByID(s.ID), nil
}

// checkpointArg finds the checkpoint that an argument names: id, #NUMBER, @last or a
// unique prefix. An id is taken as it is, without asking whether it exists.
func checkpointArg(ctx context.Context, c *client.Client, arg string) (checkpoint.ID, error) {
	if id, err := checkpoint.ParseID(arg); err == nil {
		return id, nil
	}
	q := rpc.CheckpointListParams{Order: "desc", Limit: 1000}
	want := func(s checkpoint.Summary) bool { return strings.HasPrefix(s.ID.String(), arg) }
	switch number, isNumber := strings.CutPrefix(arg, "#"); {
	case arg == "@last":
		q.Limit = 1
		page, _, err := c.Checkpoints(ctx, &q)
		if err != nil {
			return checkpoint.ID{}, err
		}
		if len(page) == 0 {
			return checkpoint.ID{}, notFoundf("there is no checkpoint yet: make one with `forge-cpd checkpoint create SESSION`")
		}
		return page[0].ID, nil
	case isNumber:
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return checkpoint.ID{}, usagef("%q is no sequence number: give a number after the #", arg)
		}
		q.FromSequence, q.ToSequence = &n, &n
		want = func(s checkpoint.Summary) bool { return s.Sequence == n }
	case !idPrefix.MatchString(arg):
		return checkpoint.ID{}, usagef("%q names no checkpoint: give its id, the first 4 characters of it or more, #NUMBER, or @last", arg)
	}
	var found []checkpoint.ID
	for s, err := range c.AllCheckpoints(ctx, q) {
		if err != nil {
			return checkpoint.ID{}, err
		}
		if want(s) {
			found = append(found, s.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return checkpoint.ID{}, notFoundf("no checkpoint has the id, number or prefix %q: see `forge-cpd log`", arg)
	}
	return checkpoint.ID{}, usagef("%d checkpoints begin with %s (%s, %s, …): give more of the id", len(found), arg, found[0], found[1])
}

// sessionOf says which session a checkpoint belongs to.
func sessionOf(ctx context.Context, c *client.Client, id checkpoint.ID) (checkpoint.ID, error) {
	raw, err := c.Call(ctx, "checkpoint.get", rpc.CheckpointParams{CheckpointID: id})
	if err != nil {
		return checkpoint.ID{}, err
	}
	var head struct {
		SessionID checkpoint.ID `json:"session_id"`
	}
	err = json.Unmarshal(raw, &head)
	return head.SessionID, err
}

var agoPart = regexp.MustCompile(`(\d+)\s*([a-z]+)`)

var units = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "second": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hour": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour,
}

// parseTime reads a time as people write it: RFC 3339, a local date with or without a
// time, "now", "2h ago", "1h30m ago", "3 days ago".
func parseTime(s string, now time.Time) (time.Time, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	if text == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if d, ok := span(strings.TrimSpace(strings.TrimSuffix(text, "ago"))); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, usagef("%q is no time: write 2026-01-31T12:00:00Z, 2026-01-31, \"2026-01-31 12:00\", or \"2h ago\"", s)
}

// span reads "2h", "1h30m", "3 days".
func span(text string) (time.Duration, bool) {
	parts := agoPart.FindAllStringSubmatch(text, -1)
	if len(parts) == 0 || strings.TrimSpace(agoPart.ReplaceAllString(text, "")) != "" {
		return 0, false
	}
	var total time.Duration
	for _, p := range parts {
		n, err := strconv.ParseInt(p[1], 10, 32)
		unit := units[p[2]]
		if unit == 0 {
			unit = units[strings.TrimSuffix(p[2], "s")]
		}
		if err != nil || unit == 0 || time.Duration(n) > (1<<62)/unit {
			return 0, false
		}
		total += time.Duration(n) * unit
	}
	return total, total >= 0
}

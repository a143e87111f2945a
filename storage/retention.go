package storage

import (
	"context"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// candidate is what the rules of compaction look at.
type candidate struct {
	at     time.Time
	manual bool
	tags   []string
}

// keep says of each candidate (oldest first) whether any rule keeps it.
func keep(list []candidate, rules checkpoint.Retention, opts CompactOptions) []bool {
	kept := make([]bool, len(list))
	for i, c := range list {
		fromEnd := int64(len(list) - i)
		kept[i] = rules.KeepRecent != nil && fromEnd <= *rules.KeepRecent ||
			rules.KeepManual && c.manual ||
			rules.KeepTagged && len(c.tags) > 0 ||
			rules.MaxAgeSeconds != nil && opts.Now.Sub(c.at) <= time.Duration(*rules.MaxAgeSeconds)*time.Second ||
			slices.ContainsFunc(c.tags, func(t string) bool { return slices.Contains(rules.PreserveTags, t) })
	}
	keepNewestOf(list, kept, rules.KeepHourly, time.Hour)
	keepNewestOf(list, kept, rules.KeepDaily, 24*time.Hour)
	if opts.KeepNewest && len(kept) > 0 {
		kept[len(kept)-1] = true
	}
	return kept
}

// keepNewestOf keeps the newest of each of the last n periods (of UTC) that have one.
func keepNewestOf(list []candidate, kept []bool, n *int64, period time.Duration) {
	if n == nil {
		return
	}
	newest := map[int64]int{}
	for i, c := range list {
		p := c.at.Truncate(period).Unix()
		if j, ok := newest[p]; !ok || !list[j].at.After(c.at) {
			newest[p] = i
		}
	}
	periods := make([]int64, 0, len(newest))
	for p := range newest {
		periods = append(periods, p)
	}
	slices.Sort(periods)
	slices.Reverse(periods)
	for _, p := range periods[:min(int64(len(periods)), max(*n, 0))] {
		kept[newest[p]] = true
	}
}

func (s *dirStore) Compact(ctx context.Context, session checkpoint.ID, rules checkpoint.Retention, opts CompactOptions) (Compaction, error) {
	if rules.IsZero() {
		return Compaction{}, checkpoint.Invalid("keep_recent", "give at least one rule: with none, nothing would be kept")
	}
	if err := s.awaitLoaded(ctx); err != nil {
		return Compaction{}, err
	}
	if opts.Now.IsZero() {
		opts.Now = s.opts.Now()
	}
	// What to delete is chosen before the committer is asked, so that it is not held up
	// by reading summaries; what was made meanwhile is newer and stays.
	ids, total, err := s.choose(session, rules, opts)
	if err != nil {
		return Compaction{}, err
	}
	c := Compaction{Deleted: len(ids), Remaining: total - len(ids), DeletedIDs: ids}
	if opts.DryRun || len(ids) == 0 {
		return c, nil
	}
	err = s.do(&op{session: session, frees: true, eval: func(t *tx) error {
		v := t.session(session)
		if v == nil {
			return noSession(session)
		}
		there := make([]checkpoint.ID, 0, len(ids))
		numbers := make([]uint64, 0, len(ids))
		for _, id := range ids {
			if r, ok := t.checkpoint(id); ok {
				there, numbers = append(there, id), append(numbers, r.sequence)
			}
		}
		c = Compaction{Deleted: len(there), DeletedIDs: there, Remaining: t.count(session) - len(there)}
		if len(there) == 0 {
			return nil
		}
		return t.deleteSome(session, there, numbers, true, c.Remaining)
	}})
	return c, err
}

// count is how many checkpoints the session has, this group's included.
func (t *tx) count(session checkpoint.ID) int {
	n := 0
	if s := t.s.index.bySess[session]; s != nil {
		n = len(s.rows)
	}
	for id, r := range t.rows {
		_, old := t.s.index.byID[id]
		switch {
		case r.gone && old && t.s.index.sessions[t.s.index.row(t.s.index.byID[id]).session].meta.ID == session:
			n--
		case !r.gone && !old && r.session == session:
			n++
		}
	}
	return n
}

func (s *dirStore) choose(session checkpoint.ID, rules checkpoint.Retention, opts CompactOptions) ([]checkpoint.ID, int, error) {
	needTags := rules.KeepTagged || len(rules.PreserveTags) > 0
	s.mu.RLock()
	sess := s.index.bySess[session]
	if sess == nil {
		s.mu.RUnlock()
		return nil, 0, noSession(session)
	}
	ids := make([]checkpoint.ID, len(sess.rows))
	list := make([]candidate, len(sess.rows))
	refs := make([]summaryRef, 0, len(sess.rows))
	for i, id := range sess.rows {
		r := s.index.row(id)
		ids[i] = r.id
		list[i] = candidate{at: time.Unix(0, r.at), manual: r.triggerName() == checkpoint.Manual}
		if needTags {
			refs = append(refs, s.summaryRef(id))
		}
	}
	s.mu.RUnlock()
	if needTags {
		if err := s.loadSummaries(refs); err != nil {
			return nil, 0, err
		}
		for i := range refs {
			if refs[i].open == nil {
				continue // deleted meanwhile
			}
			sum, err := refs[i].decode()
			if err != nil {
				return nil, 0, err
			}
			list[i].tags = sum.Tags
		}
	}
	kept := keep(list, rules, opts)
	gone := []checkpoint.ID{}
	for i, k := range kept {
		if !k {
			gone = append(gone, ids[i])
		}
	}
	return gone, len(ids), nil
}

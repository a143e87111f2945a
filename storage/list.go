package storage

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

func (s *dirStore) Summary(_ context.Context, id checkpoint.ID) (checkpoint.Summary, error) {
	l, err := s.find(id)
	if err != nil {
		return checkpoint.Summary{}, err
	}
	refs := []summaryRef{l.summary}
	if err := s.loadSummaries(refs); err != nil {
		return checkpoint.Summary{}, err
	}
	if refs[0].open == nil {
		return checkpoint.Summary{}, noCheckpoint(id)
	}
	return refs[0].decode()
}

// encodeCursor hides a number in a text that nobody takes for one.
func encodeCursor(kind, value string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + value))
}

func decodeCursor(kind, cursor string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	value, ok := strings.CutPrefix(string(b), kind)
	if err != nil || !ok {
		return "", checkpoint.Invalid("cursor", "%.64q is no cursor of this list; give the next_cursor of the page before", cursor)
	}
	return value, nil
}

func (s *dirStore) List(ctx context.Context, q Query) (Page, error) {
	if q.Trigger != "" || q.Cause != "" || !q.Since.IsZero() || !q.Until.IsZero() {
		if err := s.awaitLoaded(ctx); err != nil {
			return Page{}, err
		}
	}
	if q.Limit <= 0 {
		q.Limit = 100
	}
	if q.To == 0 {
		q.To = 1<<64 - 1
	}
	if q.Cursor != "" {
		v, err := decodeCursor("c", q.Cursor)
		if err != nil {
			return Page{}, err
		}
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return Page{}, checkpoint.Invalid("cursor", "not a cursor of this list")
		}
		if q.Descending {
			q.To = min(q.To, n-1)
		} else {
			q.From = max(q.From, n+1)
		}
	}
	page := Page{Summaries: []json.RawMessage{}}
	if !q.scans() {
		page.Summaries = make([]json.RawMessage, 0, min(q.Limit, 1024))
	}
	var last uint64
	for {
		refs, more, err := s.selectRows(&q, q.Limit+1-len(page.Summaries))
		if err != nil {
			return Page{}, err
		}
		if err := s.loadSummaries(refs); err != nil {
			return Page{}, err
		}
		for i := range refs {
			if refs[i].open == nil || !q.matches(refs[i].open) {
				continue
			}
			if len(page.Summaries) == q.Limit {
				page.Next = encodeCursor("c", strconv.FormatUint(last, 10))
				return page, nil
			}
			page.Summaries, last = append(page.Summaries, refs[i].render()), refs[i].sequence
		}
		if !more {
			return page, nil
		}
		if n := refs[len(refs)-1].sequence; q.Descending {
			q.To = n - 1
		} else {
			q.From = n + 1
		}
	}
}

// selectRows finds the next rows by what memory knows: session, number, time, trigger.
// With filters that need the summary it takes more than are asked for.
func (s *dirStore) selectRows(q *Query, want int) (refs []summaryRef, more bool, err error) {
	if q.scans() {
		want = max(want, 1024)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	rows, timed := s.index.order, false
	if !q.SessionID.IsZero() {
		sess := s.index.bySess[q.SessionID]
		if sess == nil {
			return nil, false, noSession(q.SessionID)
		}
		rows, timed = sess.rows, sess.timed
	}
	lo, hi := s.index.search(rows, q.From), len(rows)
	if q.To < 1<<64-1 {
		hi = max(lo, s.index.search(rows, q.To+1))
	}
	if timed {
		lo, hi = s.narrow(rows, lo, hi, q)
	}
	refs = make([]summaryRef, 0, min(want, hi-lo))
	for lo < hi {
		var id rowID
		if q.Descending {
			hi--
			id = rows[hi]
		} else {
			id = rows[lo]
			lo++
		}
		if r := s.index.row(id); s.rowMatches(r, q) {
			refs = append(refs, s.summaryRef(id))
			if len(refs) == want {
				return refs, lo < hi, nil
			}
		}
	}
	return refs, false, nil
}

func (s *dirStore) narrow(rows []rowID, lo, hi int, q *Query) (int, int) {
	if !q.Since.IsZero() {
		since := nanos(q.Since)
		lo += sort.Search(hi-lo, func(i int) bool { return s.index.row(rows[lo+i]).at >= since })
	}
	if !q.Until.IsZero() {
		until := nanos(q.Until)
		hi = lo + sort.Search(hi-lo, func(i int) bool { return s.index.row(rows[lo+i]).at > until })
	}
	return lo, hi
}

// nanos is a time as rows have it; one out of their range is at its end.
func nanos(t time.Time) int64 {
	switch y := t.Year(); {
	case y < 1678:
		return math.MinInt64
	case y > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func (s *dirStore) rowMatches(r *row, q *Query) bool {
	if q.Trigger == "" && q.Cause == "" && q.Since.IsZero() && q.Until.IsZero() && q.Owner == nil {
		return true
	}
	return (q.Trigger == "" || r.triggerName() == q.Trigger) && (q.Cause == "" || r.causeName() == q.Cause) &&
		(q.Since.IsZero() || r.at >= nanos(q.Since)) && (q.Until.IsZero() || r.at <= nanos(q.Until)) &&
		(q.Owner == nil || s.index.sessions[r.session].meta.OwnerUID == *q.Owner)
}

func (q *Query) scans() bool { return len(q.Tags) > 0 || q.Text != "" || q.Metadata != nil }

// matches asks the summary what memory does not know.
func (q *Query) matches(open []byte) bool {
	if !q.scans() {
		return true
	}
	sum, err := decodeSummary(append(slices.Clone(open), '}'))
	if err != nil {
		return false
	}
	if len(q.Tags) > 0 {
		n := 0
		for _, t := range q.Tags {
			if slices.Contains(sum.Tags, t) {
				n++
			}
		}
		if n == 0 || !q.AnyTag && n < len(q.Tags) {
			return false
		}
	}
	if q.Text != "" {
		text := strings.ToLower(q.Text)
		in := func(t string) bool { return strings.Contains(strings.ToLower(t), text) }
		if !in(sum.Message) && !slices.ContainsFunc(sum.Tags, in) {
			return false
		}
	}
	return q.Metadata == nil || metadataMatches(sum.Metadata, q.Metadata)
}

// metadataMatches compares top-level members by value; numbers by what they are worth.
func metadataMatches(have, want []byte) bool {
	ok := true
	err := rawjson.Members(want, func(key string, value []byte) error {
		got := rawjson.Member(have, key)
		ok = ok && got != nil && (bytes.Equal(got, value) || sameJSON(got, value))
		return nil
	})
	return ok && err == nil
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

func (s *dirStore) Session(ctx context.Context, ref Ref) (checkpoint.Session, error) {
	if err := s.knowNewest(ctx); err != nil {
		return checkpoint.Session{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	sess := s.index.bySess[ref.ID]
	if ref.ID.IsZero() {
		sess = s.index.byKey[ref.Key]
		if sess == nil {
			return checkpoint.Session{}, checkpoint.Errorf(checkpoint.KindNotFound, "there is no session with key %.64q", ref.Key)
		}
	}
	if sess == nil {
		return checkpoint.Session{}, noSession(ref.ID)
	}
	return s.index.view(sess), nil
}

func (s *dirStore) AutoState(_ context.Context, id checkpoint.ID) (json.RawMessage, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sess := s.index.bySess[id]
	if sess == nil {
		return nil, noSession(id)
	}
	return sess.meta.AutoState, nil
}

func (s *dirStore) Sessions(ctx context.Context, q SessionQuery) (SessionPage, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	after := ""
	if q.Cursor != "" {
		v, err := decodeCursor("s", q.Cursor)
		if err != nil {
			return SessionPage{}, err
		}
		after = v
	}
	type keyed struct {
		s   *session
		key string
	}
	if err := s.knowNewest(ctx); err != nil {
		return SessionPage{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []keyed
	for _, sess := range s.index.bySess {
		m := &sess.meta
		if q.Status != "" && m.Status != q.Status || q.Owner != nil && m.OwnerUID != *q.Owner {
			continue
		}
		same := true
		for k, v := range q.Labels {
			got, ok := m.Labels[k]
			same = same && ok && got == v
		}
		key := m.UpdatedAt.UTC().Format("2006-01-02T15:04:05.000000000") + m.ID.String()
		if same && (after == "" || key < after) {
			list = append(list, keyed{sess, key})
		}
	}
	slices.SortFunc(list, func(a, b keyed) int { return strings.Compare(b.key, a.key) })
	page := SessionPage{Sessions: []checkpoint.Session{}}
	for i, k := range list {
		if i == q.Limit {
			page.Next = encodeCursor("s", list[i-1].key)
			break
		}
		page.Sessions = append(page.Sessions, s.index.view(k.s))
	}
	return page, nil
}

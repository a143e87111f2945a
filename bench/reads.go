package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// timing is one figure of a kind of read, in milliseconds.
type timing struct {
	What string  `json:"what"`
	Who  string  `json:"who"`
	MS   float64 `json:"ms"`
}

// timed makes a function that is measured whole.
func timed(f func() error) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		start := time.Now()
		err := f()
		return time.Since(start), err
	}
}

// spans runs the functions in turns and gives each one's median in milliseconds.
func spans(rounds int, fs ...func() (time.Duration, error)) ([]float64, error) {
	all := make([][]float64, len(fs))
	for range rounds {
		for i, f := range fs {
			took, err := f()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], float64(took)/1e6)
		}
	}
	out := make([]float64, len(fs))
	for i := range all {
		out[i] = medianOf(all[i])
	}
	return out, nil
}

// times is spans of functions that are measured whole.
func times(rounds int, fs ...func() error) ([]float64, error) {
	whole := make([]func() (time.Duration, error), len(fs))
	for i, f := range fs {
		whole[i] = timed(f)
	}
	return spans(rounds, whole...)
}

// reads compares reading back: 1,000 documents of 8 KB in one session.
func (r *report) reads(root string, rounds int) error {
	const n = 1000
	ctx := context.Background()
	doc := document(8192, 1)
	dir, err := os.MkdirTemp(root, "reads")
	if err != nil {
		return err
	}
	k, err := newStore(storage.Options{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return err
	}
	defer k.close()
	if err := k.fill(0, n, doc); err != nil {
		return err
	}
	id := k.sessions[0]
	page, err := k.s.List(ctx, storage.Query{SessionID: id, Limit: n})
	if err != nil {
		return err
	}
	if len(page.Summaries) != n {
		return fmt.Errorf("the list holds %d of %d", len(page.Summaries), n)
	}
	ids := make([]checkpoint.ID, n)
	for i, raw := range page.Summaries {
		var sum checkpoint.Summary
		if err := json.Unmarshal(raw, &sum); err != nil {
			return err
		}
		ids[i] = sum.ID
	}
	last, err := k.s.Latest(ctx, id)
	if err != nil {
		return err
	}

	db, err := fillSQLite(dir, n, doc)
	if err != nil {
		return err
	}
	defer db.Close()
	query := func(q string) func() error {
		return func() error {
			rows, err := db.Query(q)
			if err != nil {
				return err
			}
			defer rows.Close()
			count := 0
			for rows.Next() {
				var seq, size, notes int
				var id, session, at, message, tags, trigger, parent, sum string
				var body []byte
				if err := rows.Scan(&seq, &id, &session, &at, &message, &tags, &trigger, &parent, &sum, &size, &notes, &body); err != nil {
					return err
				}
				count++
			}
			if count == 0 {
				return fmt.Errorf("%s: no rows", q)
			}
			return rows.Err()
		}
	}
	const columns = "select seq, id, session, at, message, tags, cause, parent, sum, bytes, notes, " // all of a summary's
	bodies := func() error {
		for _, id := range ids {
			if _, err := k.s.Get(ctx, id); err != nil {
				return err
			}
		}
		return nil
	}
	what := []string{"list of 1,000 summaries", "list of 1,000 summaries", "latest, 8 KB", "latest, 8 KB", "restore, 8 KB", "list of the last 10", "1,000 bodies", "1,000 bodies"}
	who := []string{"store", "sqlite", "store", "sqlite", "store", "store", "store", "sqlite"}
	ms, err := times(rounds,
		func() error { _, err := k.s.List(ctx, storage.Query{SessionID: id, Limit: n}); return err },
		query(columns+"null from c order by seq limit 1000"),
		func() error { _, err := k.s.Latest(ctx, id); return err },
		query(columns+"body from c order by seq desc limit 1"),
		func() error { _, err := k.s.Restore(ctx, id, last.Summary.ID, false); return err },
		func() error {
			_, err := k.s.List(ctx, storage.Query{SessionID: id, Limit: 10, Descending: true})
			return err
		},
		bodies,
		query(columns+"body from c order by seq limit 1000"),
	)
	if err != nil {
		return err
	}
	for i := range ms {
		r.Times = append(r.Times, timing{what[i], who[i], ms[i]})
	}
	r.goal("list of 1,000 summaries, to SQLite", 0.1, false, ms[0]/ms[1], "")
	return r.langgraphBodies(dir, n, ms[6])
}

// langgraphBodies compares reading n bodies back, which took the store ms.
func (r *report) langgraphBodies(dir string, n int, ms float64) error {
	const what = "1,000 bodies, to LangGraph"
	if why := langgraphMissing(); why != "" {
		r.Notes = append(r.Notes, what+": not measured, "+why)
		return nil
	}
	sub, err := os.MkdirTemp(dir, "langgraph")
	if err != nil {
		return err
	}
	p, err := openLanggraph(sub)
	if err != nil {
		return err
	}
	defer p.close()
	theirs, err := p.(*langgraph).list(n, 8192)
	if err != nil {
		return err
	}
	r.Times = append(r.Times, timing{"1,000 bodies", "langgraph", theirs})
	r.goal(what, 0.25, false, ms/theirs, "")
	return nil
}

func fillSQLite(dir string, n int, doc []byte) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "db")+"?_journal_mode=WAL")
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec("create table c(seq integer primary key, id text, session text, at text, message text, tags text, cause text, parent text, sum text, bytes integer, notes integer, body blob)"); err != nil {
		return nil, err
	}
	tx, err := db.Begin()
	if err != nil {
		return nil, err
	}
	session, parent := checkpoint.NewID().String(), ""
	for i := range n {
		sum, id := fmt.Sprintf("sha256:%x", sha256.Sum256(doc)), checkpoint.NewID().String()
		_, err := tx.Exec("insert into c values(?,?,?,?,?,?,?,?,?,?,?,?)", i+1, id, session, time.Now().UTC().Format(time.RFC3339Nano), "m", "[]", "manual",
			parent, sum, len(doc), 0, doc)
		if err != nil {
			return nil, err
		}
		parent = id
	}
	return db, tx.Commit()
}

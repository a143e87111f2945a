package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
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

// times runs the functions in turns and gives each one's median in milliseconds.
func times(rounds int, fs ...func() error) ([]float64, error) {
	all := make([][]float64, len(fs))
	for range rounds {
		for i, f := range fs {
			start := time.Now()
			if err := f(); err != nil {
				return nil, err
			}
			all[i] = append(all[i], float64(time.Since(start))/1e6)
		}
	}
	out := make([]float64, len(fs))
	for i := range all {
		out[i] = medianOf(all[i])
	}
	return out, nil
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
				var seq int
				var id, message, tags, sum string
				var body []byte
				if err := rows.Scan(&seq, &id, &message, &tags, &sum, &body); err != nil {
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
	const columns = "select seq, id, message, tags, sum, "
	what := []string{"list of 1,000 summaries", "list of 1,000 summaries", "latest, 8 KB", "latest, 8 KB", "restore, 8 KB", "list of the last 10"}
	who := []string{"store", "sqlite", "store", "sqlite", "store", "store"}
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
	)
	if err != nil {
		return err
	}
	for i := range ms {
		r.Times = append(r.Times, timing{what[i], who[i], ms[i]})
	}
	r.goal("list of 1,000 summaries, to SQLite", 0.1, false, ms[0]/ms[1], "")
	return nil
}

func fillSQLite(dir string, n int, doc []byte) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "db")+"?_journal_mode=WAL")
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec("create table c(seq integer primary key, id text, message text, tags text, sum text, body blob)"); err != nil {
		return nil, err
	}
	tx, err := db.Begin()
	if err != nil {
		return nil, err
	}
	for i := range n {
		sum := fmt.Sprintf("sha256:%x", sha256.Sum256(doc))
		if _, err := tx.Exec("insert into c values(?,?,?,?,?,?)", i+1, checkpoint.NewID().String(), "m", "[]", sum, doc); err != nil {
			return nil, err
		}
	}
	return db, tx.Commit()
}

// start measures opening a store of n checkpoints of 8 KB, with the index and without,
// against reading the index file's bytes and against reading and hashing every file.
func (r *report) start(root string, n, rounds int) error {
	dir, err := os.MkdirTemp(root, "start")
	if err != nil {
		return err
	}
	k, err := newStore(storage.Options{Dir: dir})
	if err != nil {
		return err
	}
	for w := range 10 {
		if err := k.fill(w, n/10, document(8192, uint64(w))); err != nil {
			return err
		}
	}
	if err := k.close(); err != nil {
		return err
	}
	reopen := func() error {
		s, err := newStore(storage.Options{Dir: dir})
		if err != nil {
			return err
		}
		st, err := s.s.Stats(context.Background())
		if err == nil && st.Checkpoints != n {
			err = fmt.Errorf("%d checkpoints after a restart, want %d", st.Checkpoints, n)
		}
		if err == nil { // answered when every row is known
			_, err = s.s.List(context.Background(), storage.Query{Trigger: checkpoint.Manual, Limit: 1})
		}
		s.close()
		return err
	}
	ms, err := times(rounds, reopen, func() error { return readTree(filepath.Join(dir, "index"), false) })
	if err != nil {
		return err
	}
	what := fmt.Sprintf("start, %d checkpoints", n)
	r.Times = append(r.Times, timing{what, "with the index", ms[0]}, timing{what, "reading the index", ms[1]})
	rebuilt, err := times(max(1, rounds/3),
		func() error {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				return err
			}
			return reopen()
		},
		func() error { return readTree(filepath.Join(dir, "sessions"), true) })
	if err != nil {
		return err
	}
	r.Times = append(r.Times, timing{what, "without the index", rebuilt[0]}, timing{what, "reading and hashing every file", rebuilt[1]})
	r.goal(what+", with the index, to reading it", 1.5, false, ms[0]/ms[1], fmt.Sprintf("%.0f ms", ms[0]))
	r.goal(what+", without, to read + SHA-256", 1.3, false, rebuilt[0]/rebuilt[1], fmt.Sprintf("%.0f ms", rebuilt[0]))
	return nil
}

func readTree(dir string, hash bool) error {
	buf := make([]byte, 1<<20)
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		for {
			n, err := f.Read(buf)
			if hash {
				h.Write(buf[:n])
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// growth compares a create in a session of 10 with one in a session of many.
func (r *report) growth(root string, many int, d time.Duration, rounds int) error {
	open := func(n int) (*store, error) {
		dir, err := os.MkdirTemp(root, "growth")
		if err != nil {
			return nil, err
		}
		k, err := newStore(storage.Options{Dir: dir})
		if err != nil {
			return nil, err
		}
		return k, k.fill(0, n, document(1024, 1))
	}
	few, err := open(10)
	if err != nil {
		return err
	}
	defer few.close()
	lots, err := open(many)
	if err != nil {
		return err
	}
	defer lots.close()
	var ratios []float64
	serial := 0
	for range rounds {
		a, err := measure(few, 1, 8192, d, false, &serial)
		if err != nil {
			return err
		}
		b, err := measure(lots, 1, 8192, d, false, &serial)
		if err != nil {
			return err
		}
		ratios = append(ratios, b.P50/a.P50)
	}
	r.goal(fmt.Sprintf("create in a session of %d, to one of 10, p50", many), 1.3, false, medianOf(ratios), "")
	return nil
}

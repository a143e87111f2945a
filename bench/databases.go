package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // registers the driver sqlite3
	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"
)

// sqlite keeps a row a document, WAL with synchronous=FULL.
type sqlite struct {
	db   *sql.DB
	ins  *sql.Stmt
	wake chan grouped // nil: a transaction a row
	wg   sync.WaitGroup
}

type grouped struct {
	worker, n int
	doc       []byte
	done      chan error
}

const insert = "insert into checkpoint(worker, n, body) values(?, ?, ?)"

func openSQLite(group bool) func(string) (putter, error) {
	return func(dir string) (putter, error) {
		db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "db")+"?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=60000&_txlock=immediate")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1) // one writer at a time is SQLite's rule; a queue here beats its busy loop
		if _, err = db.Exec("create table checkpoint(worker int, n int, body blob, primary key(worker, n)) without rowid"); err != nil {
			return nil, err
		}
		s := &sqlite{db: db}
		if s.ins, err = db.Prepare(insert); err != nil {
			return nil, err
		}
		if group {
			s.wake = make(chan grouped, 1024)
			s.wg.Go(s.commit)
		}
		return s, nil
	}
}

// commit puts all that is waiting into one transaction.
func (s *sqlite) commit() {
	for g := range s.wake {
		batch := []grouped{g}
		for more := true; more; {
			select {
			case g, ok := <-s.wake:
				if more = ok; ok {
					batch = append(batch, g)
				}
			default:
				more = false
			}
		}
		tx, err := s.db.Begin()
		for i := 0; i < len(batch) && err == nil; i++ {
			_, err = tx.Stmt(s.ins).Exec(batch[i].worker, batch[i].n, batch[i].doc)
		}
		if tx != nil && err == nil {
			err = tx.Commit()
		}
		for _, g := range batch {
			g.done <- err
		}
	}
}

func (s *sqlite) put(worker, n int, doc []byte) error {
	if s.wake == nil {
		_, err := s.ins.Exec(worker, n, doc)
		return err
	}
	done := make(chan error, 1)
	s.wake <- grouped{worker, n, doc, done}
	return <-done
}

func (s *sqlite) close() error {
	if s.wake != nil {
		close(s.wake)
		s.wg.Wait()
	}
	return s.db.Close()
}

// bolt is bbolt, a transaction a document or its own batching.
type bolt struct {
	db    *bbolt.DB
	batch bool
}

func openBolt(batch bool) func(string) (putter, error) {
	return func(dir string) (putter, error) {
		db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, nil)
		if err != nil {
			return nil, err
		}
		err = db.Update(func(tx *bbolt.Tx) error { _, e := tx.CreateBucket([]byte("c")); return e })
		return &bolt{db, batch}, err
	}
}

func (b *bolt) put(worker, n int, doc []byte) error {
	key := binary.BigEndian.AppendUint64(nil, uint64(worker)<<40|uint64(n))
	f := func(tx *bbolt.Tx) error { return tx.Bucket([]byte("c")).Put(key, doc) }
	if b.batch {
		return b.db.Batch(f)
	}
	return b.db.Update(f)
}

func (b *bolt) close() error { return b.db.Close() }

// redisServer is a real server with appendfsync always, on a socket of its own.
type redisServer struct {
	cmd *exec.Cmd
	c   *redis.Client
}

func redisMissing() string {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return "redis-server is not installed (Debian: redis-server)"
	}
	return ""
}

func openRedis(dir string) (putter, error) {
	sock := filepath.Join(dir, "s")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", sock, "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: sock, PoolSize: 80, ReadTimeout: time.Minute})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for c.Ping(ctx).Err() != nil {
		if ctx.Err() != nil {
			cmd.Process.Kill()
			cmd.Wait()
			return nil, fmt.Errorf("redis-server did not answer on %s in 10 s", sock)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return &redisServer{cmd, c}, nil
}

func (r *redisServer) put(worker, n int, doc []byte) error {
	return r.c.Set(context.Background(), fmt.Sprintf("%d/%d", worker, n), doc, 0).Err()
}

func (r *redisServer) close() error {
	r.c.Close()
	r.cmd.Process.Signal(os.Interrupt)
	r.cmd.Wait()
	return nil
}

// gitRepo adds and commits one file a document.
type gitRepo struct{ dir string }

func gitMissing() string {
	if _, err := exec.LookPath("git"); err != nil {
		return "git is not installed"
	}
	return ""
}

func openGit(dir string) (putter, error) {
	g := &gitRepo{dir}
	for _, a := range [][]string{
		{"init", "-q"}, {"config", "user.name", "b"}, {"config", "user.email", "b@example.org"},
		{"config", "core.fsync", "all"}, {"config", "gc.auto", "0"},
	} {
		if err := g.run(a...); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func (g *gitRepo) run(args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Dir = g.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %v: %w: %s", args, err, out)
	}
	return nil
}

func (g *gitRepo) put(worker, n int, doc []byte) error {
	name := fmt.Sprintf("%d-%d.json", worker, n)
	if err := os.WriteFile(filepath.Join(g.dir, name), doc, 0o600); err != nil {
		return err
	}
	if err := g.run("add", name); err != nil {
		return err
	}
	return g.run("commit", "-qm", name)
}

func (g *gitRepo) close() error { return nil }

package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

// store is forge-cpd's store by itself: no socket, no daemon.
type store struct {
	s        storage.Store
	mu       sync.Mutex
	sessions map[int]checkpoint.ID
}

func openStore(dir string) (putter, error) { return newStore(storage.Options{Dir: dir}) }

func openStoreSyncFS(dir string) (putter, error) {
	return newStore(storage.Options{Dir: dir, SyncFS: true})
}

func newStore(o storage.Options) (*store, error) {
	s, err := storage.Open(context.Background(), o)
	if err != nil {
		return nil, err
	}
	return &store{s: s, sessions: map[int]checkpoint.ID{}}, nil
}

func (k *store) session(worker int) (checkpoint.ID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id, ok := k.sessions[worker]; ok {
		return id, nil
	}
	s, _, err := k.s.CreateSession(context.Background(), storage.NewSession{Name: fmt.Sprint("bench ", worker), OwnerUID: uint32(os.Getuid())})
	if err == nil {
		k.sessions[worker] = s.ID
	}
	return s.ID, err
}

func (k *store) create(worker int, doc []byte) (checkpoint.Receipt, error) {
	id, err := k.session(worker)
	if err != nil {
		return checkpoint.Receipt{}, err
	}
	return storage.Create(context.Background(), k.s, &storage.NewCheckpoint{SessionID: id, Message: "m", State: doc})
}

func (k *store) put(worker, _ int, doc []byte) error {
	_, err := k.create(worker, doc)
	return err
}

func (k *store) settle() error {
	_, err := k.s.Sync(context.Background())
	return err
}

func (k *store) close() error { return k.s.Close() }

// fill puts n small checkpoints into one session, many at a time.
func (k *store) fill(worker, n int, doc []byte) error {
	id, err := k.session(worker)
	if err != nil {
		return err
	}
	const ahead = 256
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		fail error
		room = make(chan struct{}, ahead)
	)
	for range n {
		room <- struct{}{}
		wg.Add(1)
		k.s.Submit(context.Background(), &storage.NewCheckpoint{SessionID: id, Message: "m", State: doc}, func(_ checkpoint.Receipt, err error) {
			if err != nil {
				mu.Lock()
				fail = err
				mu.Unlock()
			}
			<-room
			wg.Done()
		})
	}
	wg.Wait()
	if fail != nil {
		return fail
	}
	return k.settle()
}

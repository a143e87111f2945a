package storage

import "context"

// Published waits until all that was acknowledged is files. The journal's segment stays.
func Published(ctx context.Context, s Store) error { return s.(*dirStore).awaitPublished(ctx) }

// HoldPublisher keeps what is acknowledged from now on in the journal, until it is let go.
func HoldPublisher(s Store) (release func()) {
	d := s.(*dirStore)
	d.round.Lock()
	return d.round.Unlock
}

package blob

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Roots calls yield for every content that a record names. It returns the first error of
// yield, and an error of its own when it cannot know them all.
type Roots func(yield func(Sum) error) error

// sweepBatch is how many files are removed while Put waits.
const sweepBatch = 32

// Swept is what a Sweep removed.
type Swept struct {
	Files int
	Bytes int64
}

// Sweep removes what neither a root nor a caller of Put holds. Roots must tell of every
// record that is not durably removed; where it, or a list that it names, cannot be read,
// nothing is removed at all: what that list names is not known.
func (s *Store) Sweep(ctx context.Context, roots Roots) (Swept, error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	s.touched = map[Sum]bool{}
	for sum := range s.held {
		s.touched[sum] = true
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.touched = nil
		s.mu.Unlock()
	}()
	// Listed first: what is written from now on is not a candidate.
	there, err := s.list()
	if err != nil {
		return Swept{}, err
	}
	live := map[Sum]bool{}
	if err := roots(func(sum Sum) error { return errors.Join(ctx.Err(), s.mark(live, sum)) }); err != nil {
		return Swept{}, fmt.Errorf("nothing is collected while what is in use cannot be read: %w", err)
	}
	dead := slices.DeleteFunc(there, func(sum Sum) bool { return live[sum] })
	var swept Swept
	for batch := range slices.Chunk(dead, sweepBatch) {
		if err := ctx.Err(); err != nil {
			return swept, err
		}
		if err := s.sweep(batch, live, &swept); err != nil {
			return swept, err
		}
	}
	return swept, nil
}

// list returns the objects of the directory; other names are Verify's business.
func (s *Store) list() ([]Sum, error) {
	entries, err := s.fs.ReadDir(s.opts.Dir)
	if err != nil {
		return nil, err
	}
	sums := make([]Sum, 0, len(entries))
	for _, e := range entries {
		if sum, err := ParseSum(e.Name); err == nil && e.Mode.IsRegular() {
			sums = append(sums, sum)
		}
	}
	return sums, nil
}

// mark adds a content and all that it is made of.
func (s *Store) mark(live map[Sum]bool, root Sum) error {
	if live[root] {
		return nil
	}
	kind, body, err := s.read(root)
	if err != nil {
		return err
	}
	if kind == kindList {
		l, err := parseList(body)
		if err != nil {
			return &Damage{s.path(root), err.Error()}
		}
		add := func(sum Sum) error { live[sum] = true; return nil }
		if err := s.expand(l, add, add); err != nil {
			return err
		}
	}
	live[root] = true
	return nil
}

func (s *Store) sweep(batch []Sum, live map[Sum]bool, swept *Swept) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.Lock()
	touched := slices.Collect(maps.Keys(s.touched))
	clear(s.checked)
	s.bytes = -1
	s.mu.Unlock()
	for _, sum := range touched {
		if err := s.mark(live, sum); err != nil {
			return err
		}
	}
	for _, sum := range batch {
		if live[sum] {
			continue
		}
		info, err := s.fs.Lstat(s.path(sum))
		if err != nil {
			return err
		}
		if err := s.fs.Remove(s.path(sum)); err != nil {
			return err
		}
		swept.Files++
		swept.Bytes += info.Size
	}
	return nil
}

// Bytes is the size of all files. The first call, and the first after a Sweep, looks at each.
func (s *Store) Bytes() (int64, error) {
	s.mu.Lock()
	total := s.bytes
	s.mu.Unlock()
	if total >= 0 {
		return total, nil
	}
	s.gate.Lock() // nothing comes or goes while it counts
	defer s.gate.Unlock()
	there, err := s.list()
	if err != nil {
		return 0, err
	}
	total = 0
	for _, sum := range there {
		info, err := s.fs.Lstat(s.path(sum))
		if err != nil {
			return 0, err
		}
		total += info.Size
	}
	s.mu.Lock()
	s.bytes = total
	s.mu.Unlock()
	return total, nil
}

package blob

import (
	"context"
	"errors"
	"io/fs"
)

// Report is the outcome of Verify. Skipped counts what the disk refused to read.
type Report struct {
	Files   int
	Skipped int
	Damage  []Damage
}

// Verify reads every file again, and finds what the roots name and is not there. pace, if
// not nil, is told of a file's bytes before they are read.
func (s *Store) Verify(ctx context.Context, roots Roots, pace func(bytes int64) error) (Report, error) {
	var r Report
	entries, err := s.fs.ReadDir(s.opts.Dir)
	if err != nil {
		var damage *Damage
		if errors.As(classify(s.opts.Dir, err), &damage) {
			return Report{Damage: []Damage{*damage}}, nil
		}
		return r, err
	}
	bad := map[string]bool{}
	note := func(err error) error {
		var damage *Damage
		switch {
		case err == nil:
		case !errors.As(err, &damage):
			r.Skipped++
		case !bad[damage.Path]:
			bad[damage.Path] = true
			r.Damage = append(r.Damage, *damage)
		}
		return ctx.Err()
	}
	there := make(map[Sum]bool, len(entries))
	for _, e := range entries {
		path := s.opts.Dir + "/" + e.Name
		sum, err := ParseSum(e.Name)
		if err != nil {
			err = note(&Damage{path, "does not belong here"})
		} else {
			there[sum] = true
			err = s.verify(sum, pace, &r, note)
		}
		if err != nil {
			return r, err
		}
	}
	exists := func(sum Sum) error {
		if !there[sum] {
			// It may have been put since the directory was listed.
			if _, err := s.fs.Lstat(s.path(sum)); err != nil {
				return note(classify(s.path(sum), err))
			}
		}
		return nil
	}
	err = roots(func(root Sum) error {
		if err := exists(root); err != nil || bad[s.path(root)] {
			return err
		}
		kind, body, err := s.read(root)
		if err == nil && kind == kindList {
			var l list
			if l, err = parseList(body); err != nil {
				err = &Damage{s.path(root), err.Error()}
			} else {
				err = s.expand(l, exists, exists)
			}
		}
		return note(err)
	})
	return r, err
}

func (s *Store) verify(sum Sum, pace func(int64) error, r *Report, note func(error) error) error {
	info, err := s.fs.Lstat(s.path(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // collected meanwhile; a missing one that is in use is found from the roots
	}
	if err != nil {
		return note(err)
	}
	if pace != nil {
		if err := pace(info.Size); err != nil {
			return err
		}
	}
	kind, body, err := s.read(sum)
	if err != nil {
		if _, gone := s.fs.Lstat(s.path(sum)); errors.Is(gone, fs.ErrNotExist) {
			return nil
		}
		return note(err)
	}
	r.Files++
	if kind == kindList {
		if _, err := parseList(body); err != nil {
			return note(&Damage{s.path(sum), err.Error()})
		}
	}
	return nil
}

// Parts lists the files that keep a content, the one with its name first. What cannot be
// read on the way is told by the error, after the parts that are known.
func (s *Store) Parts(sum Sum) ([]string, error) {
	parts := []string{s.path(sum)}
	kind, body, err := s.read(sum)
	if err != nil || kind != kindList {
		return parts, err
	}
	l, err := parseList(body)
	if err != nil {
		return parts, &Damage{s.path(sum), err.Error()}
	}
	add := func(part Sum) error { parts = append(parts, s.path(part)); return nil }
	err = s.expand(l, add, add)
	return parts, err
}

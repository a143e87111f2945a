package storage

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage/internal/blob"
)

// loadKnown reads which damage the store has put away. What it no longer has of captured
// files is taken from the earlier copy.
func (b *backup) loadKnown() error {
	entries, err := b.from.fs.ReadDir("quarantine")
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name, ".note") {
			continue
		}
		text, err := b.from.readAll("quarantine/" + e.Name)
		if err != nil {
			return err
		}
		note, err := parseRecord(text)
		if err != nil {
			continue // the store's own check names it
		}
		b.known[note.Path] = true
		if name, ok := strings.CutPrefix(note.Path, "blobs/"); ok {
			b.blobs[name] = true
		}
	}
	return nil
}

// copyBlobs copies the captured files that were listed.
func (b *backup) copyBlobs(ctx context.Context) error {
	names := make([]string, 0, len(b.blobs))
	for name := range b.blobs {
		names = append(names, name)
	}
	slices.Sort(names)
	return parallel(len(names), b.o.Workers, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := b.copyBlob(names[i])
		return err
	})
}

// copyBlob copies one object; false when neither the store nor the earlier copy has it whole.
func (b *backup) copyBlob(name string) (bool, error) {
	path := "blobs/" + name
	sum, err := blob.ParseSum(name)
	if err != nil {
		return false, nil
	}
	check := func(stored []byte) error { return blob.Check(sum, stored) }
	if b.link(path, -1, check) {
		return true, nil
	}
	body, err := b.from.readAll(path)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil // collected; if a checkpoint of the copy names it, that is found
	}
	if errors.Is(err, errStrange) {
		b.damaged(checkpoint.ID{}, path, err.Error())
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := check(body); err != nil {
		b.damaged(checkpoint.ID{}, path, err.Error())
		return false, nil
	}
	err = b.put(path, body)
	if errors.Is(err, syscall.EEXIST) {
		return true, nil // another worker was quicker
	}
	return err == nil, err
}

// finishBlobs copies what the new checkpoints name and was not listed at the beginning.
// Where something is gone by now, its checkpoint was deleted: the session is read again.
func (b *backup) finishBlobs(ctx context.Context) error {
	objects, err := blob.Open(b.to.fs, blob.Options{Dir: "blobs", Tmp: "tmp"})
	if err != nil {
		return err
	}
	todo := make([]checkpoint.ID, 0, len(b.sessions))
	for id := range b.sessions {
		todo = append(todo, id)
	}
	for last := false; len(todo) > 0; last = true {
		var again []checkpoint.ID
		for _, id := range todo {
			if err := ctx.Err(); err != nil {
				return err
			}
			whole, err := b.sessionBlobs(objects, b.sessions[id], last)
			if err != nil {
				return err
			}
			if !whole {
				again = append(again, id)
			}
		}
		for _, id := range again {
			if err := b.copySession(ctx, id); err != nil {
				return err
			}
		}
		todo = again
		if last {
			return nil
		}
	}
	return nil
}

// sessionBlobs sees to it that all contents are there which a session's newly copied
// checkpoints name. The last time, what is missing is damage.
func (b *backup) sessionBlobs(objects *blob.Store, s *copied, last bool) (whole bool, err error) {
	if s == nil {
		return true, nil
	}
	whole = true
	for id, names := range s.contents {
		for _, name := range names {
			path, err := b.complete(objects, name)
			if err != nil {
				return false, err
			}
			if path == "" {
				continue
			}
			whole = false
			if last {
				b.damaged(id, path, "a captured file is gone or damaged")
			}
		}
	}
	return whole || last, nil
}

// complete copies what is missing of a content, and names what cannot be had.
func (b *backup) complete(objects *blob.Store, name string) (missing string, err error) {
	sum, err := blob.ParseSum(name)
	if err != nil {
		return "", err
	}
	for {
		parts, err := objects.Parts(sum)
		var damage *blob.Damage
		if err != nil && !errors.As(err, &damage) {
			return "", err
		}
		added := false
		for _, p := range parts {
			if _, err := b.to.fs.Lstat(p); err == nil {
				continue
			}
			ok, err := b.copyBlob(strings.TrimPrefix(p, "blobs/"))
			if err != nil {
				return "", err
			}
			if !ok {
				return p, nil
			}
			added = true
		}
		if damage == nil {
			return "", nil
		}
		if !added {
			return damage.Path, nil
		}
	}
}

// copyQuarantine copies what was put away, but for checkpoints that the copy has whole.
func (b *backup) copyQuarantine() error {
	entries, err := b.from.fs.ReadDir("quarantine")
	if err != nil {
		return ignoreMissing(err)
	}
	skip := map[string]bool{}
	for _, e := range entries {
		path := "quarantine/" + e.Name
		if !strings.HasSuffix(e.Name, ".note") {
			continue
		}
		text, err := b.from.readAll(path)
		if err != nil {
			return err
		}
		if note, err := parseRecord(text); err == nil && b.has(note.Path) {
			skip[path], skip[note.File] = true, true
		}
	}
	for _, e := range entries {
		path := "quarantine/" + e.Name
		if skip[path] || b.link(path, -1, func([]byte) error { return nil }) {
			continue
		}
		body, err := b.from.readAll(path)
		if errors.Is(err, errStrange) {
			continue
		}
		if err != nil {
			return err
		}
		if err := b.put(path, body); err != nil {
			return err
		}
	}
	return nil
}

// has says that the copy holds, whole, what is damaged in the store.
func (b *backup) has(path string) bool {
	if !strings.Contains(path, "/checkpoints/") && !strings.HasPrefix(path, "blobs/") {
		return false
	}
	_, err := b.to.fs.Lstat(path)
	return err == nil
}

// copyNotes copies a checkpoint's annotations as the manifest knows them; the daemon may
// have added some that it does not know yet.
func (b *backup) copyNotes(s *copied, session checkpoint.ID, r record, known, sure bool) (bool, error) {
	file := notesPath(session, r.CheckpointID)
	if s.has(file) { // of an attempt before, when there may have been fewer
		body, err := b.to.readAll(file)
		if err == nil && differs(body, r.Sum) == nil {
			return true, nil
		}
		if err := errors.Join(err, b.to.fs.Remove(file)); err != nil {
			return false, err
		}
		s.forget(file)
	} else if known && b.link(file, r.Bytes, func(body []byte) error { return differs(body, r.Sum) }) {
		s.keep(file, 0)
		return true, nil
	}
	body, err := b.from.readAll(file)
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errStrange) {
		return false, err
	}
	body = firstLines(body, r.Count)
	if err != nil || differs(body, r.Sum) != nil {
		if !sure && !b.known[file] {
			return false, nil
		}
		b.damaged(r.CheckpointID, file, "it is not what the manifest says")
		if b.old == nil {
			return true, nil
		}
		if body, err = b.old.readAll(file); err != nil || differs(body, r.Sum) != nil {
			return true, nil
		}
	}
	if err := b.put(file, body); err != nil {
		return false, err
	}
	s.keep(file, 0)
	return true, nil
}

func differs(body []byte, sum string) error {
	if hexSum(body) != sum {
		return &damageError{"it is not what the manifest says"}
	}
	return nil
}

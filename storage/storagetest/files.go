package storagetest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var fileTests = map[string]func(*harness){
	"CapturedFilesComeBack":            filesComeBack,
	"FilesGoWithTheirLastCheckpoint":   filesAreCollected,
	"VersionsOfAFileShareWhatTheyHold": filesShare,
}

func filesComeBack(h *harness) {
	s := h.session("s")
	contents := map[string]string{
		"/abs/path": "text", "empty": "", "binary": "\x00\xff\xfe", "long.jsonl": strings.Repeat(`{"type":"line"}`+"\n", 20_000),
	}
	c := h.create(s.ID, "with files", func(c *storage.NewCheckpoint) {
		for _, path := range []string{"/abs/path", "empty", "binary", "long.jsonl"} {
			file(path, contents[path])(c)
		}
	})
	none := h.create(s.ID, "without")
	h.twice(func() {
		for _, f := range h.decode(h.get(c.CheckpointID)).Context.Files {
			sum := sha256.Sum256([]byte(contents[f.Path]))
			h.equal("described", []any{f.Mode, f.Bytes, f.SHA256}, []any{"0640", len(contents[f.Path]), hex.EncodeToString(sum[:])})
			got, content, err := h.s.ReadFile(h.Context(), c.CheckpointID, f.Path)
			h.must(err)
			h.equal("file", got, f)
			if string(content) != contents[f.Path] {
				h.Fatalf("%s came back with %d bytes", f.Path, len(content))
			}
		}
		h.equal("files", len(h.decode(h.get(c.CheckpointID)).Context.Files), 4)
		_, _, err := h.s.ReadFile(h.Context(), c.CheckpointID, "other")
		h.want(err, checkpoint.ErrNotFound)
		_, _, err = h.s.ReadFile(h.Context(), none.CheckpointID, "empty")
		h.want(err, checkpoint.ErrNotFound)
	})
}

func (h *harness) blobBytes() int64 {
	h.Helper()
	_, err := h.s.Sync(h.Context())
	h.must(err)
	st, err := h.s.Stats(h.Context())
	h.must(err)
	return st.BlobBytes
}

func filesAreCollected(h *harness) {
	s := h.session("s")
	h.equal("none yet", h.blobBytes(), 0)
	a := h.create(s.ID, "a", file("f", strings.Repeat("shared", 100)), file("g", "only a's"))
	b := h.create(s.ID, "b", file("f", strings.Repeat("shared", 100)))
	both := h.blobBytes()
	h.must(h.s.Delete(h.Context(), a.CheckpointID))
	one := h.blobBytes()
	if one <= 0 || one >= both {
		h.Fatalf("%d bytes, %d after one was deleted", both, one)
	}
	_, content, err := h.s.ReadFile(h.Context(), b.CheckpointID, "f")
	h.must(err)
	h.equal("content", len(content), 600)
	_, err = h.s.Compact(h.Context(), s.ID, checkpoint.Retention{KeepRecent: ptr(int64(0))}, storage.CompactOptions{})
	h.must(err)
	h.twice(func() { h.equal("none is left", h.blobBytes(), 0) })
}

func filesShare(h *harness) {
	s := h.session("s")
	var log strings.Builder
	for i := range 20 {
		for j := range 100 {
			fmt.Fprintf(&log, `{"line":%d,"of":%d,"text":"some words that repeat"}`+"\n", j, i)
		}
		h.create(s.ID, "x", file("log", log.String()))
	}
	if used := h.blobBytes(); used > int64(log.Len()) {
		h.Fatalf("20 versions of a growing file of %d bytes at last take %d", log.Len(), used)
	}
	st, err := h.s.Latest(h.Context(), s.ID)
	h.must(err)
	_, content, err := h.s.ReadFile(h.Context(), st.Summary.ID, "log")
	h.must(err)
	h.equal("content", len(content), log.Len())
}

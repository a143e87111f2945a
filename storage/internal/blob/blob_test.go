package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-cpd/forge-cpd/storage/internal/vfs"
)

func newDisk(t testing.TB) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	for _, d := range []string{"tmp", "quarantine"} {
		if err := m.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func open(t testing.TB, fsys vfs.FS) *Store {
	t.Helper()
	s, err := Open(fsys, Options{Dir: "blobs", Tmp: "tmp", Quarantine: func(p, _ string) error {
		return fsys.Rename(p, "quarantine/"+path.Base(p))
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, content []byte) Sum {
	t.Helper()
	sum, release, err := s.Put(content)
	if err != nil {
		t.Fatal(err)
	}
	release()
	return sum
}

// noise does not compress; text does.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for r := rand.New(rand.NewPCG(seed, 2)); b.Len() < n; {
		fmt.Fprintf(&b, `{"type":"assistant","uuid":"%016x","n":%d}`+"\n", r.Uint64(), r.IntN(100))
	}
	return b.Bytes()[:n]
}

func size(t testing.TB, m vfs.FS, dir string) (files int, bytes int64) {
	t.Helper()
	entries, err := m.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := m.Lstat(dir + "/" + e.Name)
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size
	}
	return len(entries), bytes
}

func only(sums ...Sum) Roots {
	return func(yield func(Sum) error) error {
		for _, s := range sums {
			if err := yield(s); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestWhatIsPutComesBack(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	var sums []Sum
	var contents [][]byte
	for i, n := range []int{0, 1, 31, 32, 33, minChunk - 1, minChunk, minChunk + 1, avgChunk, maxChunk, maxChunk + 1, 100_000, 3_000_000} {
		contents = append(contents, noise(uint64(i), n), text(uint64(i), n), make([]byte, n))
	}
	for _, c := range contents {
		sums = append(sums, put(t, s, c))
	}
	s = open(t, m.Clone())
	for i, sum := range sums {
		if sum != SumOf(contents[i]) {
			t.Fatal("a content is named by its SHA-256")
		}
		got, err := s.Get(sum)
		if err != nil || !bytes.Equal(got, contents[i]) {
			t.Fatalf("content of %d bytes: %d came back, %v", len(contents[i]), len(got), err)
		}
	}
	if n, _ := size(t, m, "tmp"); n != 0 {
		t.Fatalf("%d files left in tmp", n)
	}
	r, err := s.Verify(t.Context(), only(sums...), nil)
	if err != nil || len(r.Damage) != 0 || r.Skipped != 0 {
		t.Fatal(r, err)
	}
	want := func() int64 { _, b := size(t, m, "blobs"); return b }()
	if got, err := s.Bytes(); err != nil || got != want {
		t.Fatalf("Bytes = %d, %v; the files have %d", got, err, want)
	}
	_, err = s.Get(SumOf([]byte("never put")))
	var damage *Damage
	if !errors.As(err, &damage) || damage.Path != "blobs/"+SumOf([]byte("never put")).String() {
		t.Fatal(err)
	}
}

// A transcript kept at each of its tool calls may take 0.8 of its final size with
// everything that the store adds; this much of it is for the contents.
func TestTranscriptKeptAtEachToolCallIsSmall(t *testing.T) {
	for name, want := range map[string]struct {
		calls int
		ratio float64
	}{"claude-code-a": {28, 0.35}, "claude-code-b": {52, 0.35}} {
		t.Run(name, func(t *testing.T) {
			whole, err := os.ReadFile("../../../autotrigger/transcript/testdata/" + name + ".jsonl")
			if err != nil {
				t.Fatal(err)
			}
			m := newDisk(t)
			s := open(t, m)
			var sums []Sum
			at, full := 0, 0
			for line := range bytes.Lines(whole) {
				at += len(line)
				if bytes.Contains(line, []byte(`"type":"tool_result"`)) {
					sums = append(sums, put(t, s, whole[:at]))
					full += at
				}
			}
			if len(sums) != want.calls {
				t.Fatalf("%d calls, want %d", len(sums), want.calls)
			}
			files, stored := size(t, m, "blobs")
			ratio := float64(stored) / float64(len(whole))
			t.Logf("%d contents of %d bytes, the last of %d, in %d files of %d bytes: %.3f x", len(sums), full, at, files, stored, ratio)
			if ratio > want.ratio {
				t.Errorf("%.3f x the final size, want at most %.2f", ratio, want.ratio)
			}
			for i, sum := range sums {
				if got, err := s.Get(sum); err != nil || !bytes.HasPrefix(whole, got) {
					t.Fatal(i, err)
				}
			}
			// All but the newest version go, and with them what only they had.
			if _, err := s.Sweep(t.Context(), only(sums[len(sums)-1])); err != nil {
				t.Fatal(err)
			}
			if _, now := size(t, m, "blobs"); now > stored*9/10 {
				t.Errorf("%d of %d bytes are left for one version", now, stored)
			}
			if got, err := s.Get(sums[len(sums)-1]); err != nil || !bytes.HasPrefix(whole, got) {
				t.Fatal(err)
			}
		})
	}
}

// The dictionary and what was written before there was one are part of the format.
func TestChunksOfBothKindsStayReadable(t *testing.T) {
	if got := SumOf([]byte(dictionary)).String(); got != "3e1441b3882a26c75386fa97e2691c20c25a588c8226895442ef352d794064e6" {
		t.Fatalf("the dictionary changed (%s): chunks that were written with it are lost", got)
	}
	content := text(7, 1500)
	sum := SumOf(content)
	plain, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for kind, stored := range map[byte][]byte{
		kindPlain:  content,
		kindPacked: plain.EncodeAll(content, nil),
		kindText:   textEncoder().EncodeAll(content, nil),
	} {
		got, body, err := decode(sum, seal(sum, append([]byte{kind}, stored...)))
		if err != nil || got != kind || !bytes.Equal(body, content) {
			t.Errorf("kind %c: %d bytes, %v", kind, len(body), err)
		}
	}
	if kind := chunkObject(sum, content).stored[0]; kind != kindText {
		t.Errorf("text is kept as %c", kind)
	}
	if _, _, err := decode(sum, seal(sum, append([]byte{kindPacked}, textEncoder().EncodeAll(content, nil)...))); err == nil {
		t.Error("a chunk was read without the dictionary that it needs: this test compares nothing")
	}
}

func TestEachContentIsStoredOnce(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	c := text(1, 200_000)
	put(t, s, c)
	before, bytesBefore := size(t, m, "blobs")
	put(t, s, c)
	put(t, open(t, m.Clone()), c)
	if n, b := size(t, m, "blobs"); n != before || b != bytesBefore {
		t.Fatal("the same content again took room")
	}
	// One line in the middle changed: most chunks are the same.
	c2 := bytes.Clone(c)
	copy(c2[100_000:], "changed")
	put(t, s, c2)
	if n, _ := size(t, m, "blobs"); n > before+6 {
		t.Fatalf("a change of one line made %d new files", n-before)
	}
}

func TestSweepKeepsWhatIsNamedOrHeld(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	a, b := text(1, 300_000), append(text(1, 200_000), text(2, 100_000)...)
	sumA := put(t, s, a)
	sumB, release, err := s.Put(b)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, noise(3, 50_000))
	if swept, err := s.Sweep(t.Context(), only(sumA)); err != nil || swept.Files == 0 {
		t.Fatal(swept, err)
	}
	for sum, want := range map[Sum][]byte{sumA: a, sumB: b} {
		if got, err := s.Get(sum); err != nil || !bytes.Equal(got, want) {
			t.Fatal(err)
		}
	}
	release()
	release() // a second call changes nothing
	if _, err := s.Sweep(t.Context(), only(sumA)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(sumB); err == nil {
		t.Fatal("nobody held it any more")
	}
	if got, err := s.Get(sumA); err != nil || !bytes.Equal(got, a) {
		t.Fatal(err)
	}
	if swept, err := s.Sweep(t.Context(), only()); err != nil || swept.Files == 0 {
		t.Fatal(swept, err)
	}
	if n, _ := size(t, m, "blobs"); n != 0 {
		t.Fatalf("%d files are left when nothing is named", n)
	}
}

// A content that is found while the names are gathered, and named only afterwards, stays.
func TestSweepKeepsWhatIsHeldMeanwhile(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	content := text(1, 300_000)
	sum := put(t, s, content)
	var release func()
	if _, err := s.Sweep(t.Context(), func(func(Sum) error) (err error) {
		release, err = s.Hold(sum)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(sum); err != nil || !bytes.Equal(got, content) {
		t.Fatal(err)
	}
	release()
	if _, err := s.Sweep(t.Context(), only()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Hold(sum); err == nil {
		t.Fatal("what is gone cannot be held")
	}
}

func TestSweepRemovesNothingWhileSomethingCannotBeRead(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	kept := put(t, s, text(1, 300_000))
	put(t, s, text(2, 300_000))
	before, _ := size(t, m, "blobs")
	if _, err := s.Sweep(t.Context(), func(func(Sum) error) error { return errors.New("a record is unreadable") }); err == nil {
		t.Fatal("roots that are not known must stop it")
	}
	if err := m.Remove("blobs/" + kept.String()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Sweep(t.Context(), only(kept))
	var damage *Damage
	if !errors.As(err, &damage) || damage.Path != "blobs/"+kept.String() {
		t.Fatal(err)
	}
	if n, _ := size(t, m, "blobs"); n != before-1 {
		t.Fatal("something was removed")
	}
}

func TestPutAndSweepAtTheSameTime(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	var mu sync.Mutex
	named := map[Sum][]byte{}
	roots := func(yield func(Sum) error) error {
		mu.Lock()
		defer mu.Unlock()
		for sum := range named {
			if err := yield(sum); err != nil {
				return err
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range 60 {
				c := text(uint64(r.IntN(3)), 20_000+r.IntN(30_000)) // much in common
				sum, release, err := s.Put(c)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				named[sum] = c
				mu.Unlock()
				release()
				if got, err := s.Get(sum); err != nil || !bytes.Equal(got, c) {
					t.Error("lost while it was named:", err)
				}
				if r.IntN(2) == 0 {
					// A version of its own that nobody names goes with the next sweep.
					put(t, s, append(c, byte(w), 'x'))
				}
			}
		})
	}
	sweeper := make(chan struct{})
	go func() {
		defer close(sweeper)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Sweep(context.Background(), roots); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-sweeper
	for sum, c := range named {
		if got, err := s.Get(sum); err != nil || !bytes.Equal(got, c) {
			t.Fatal(err)
		}
	}
}

func TestDamageIsFoundNamedAndHealedByPuttingAgain(t *testing.T) {
	content := append(text(1, 60_000), noise(1, 20_000)...)
	other := noise(9, 30_000)
	base := newDisk(t)
	s := open(t, base)
	sum, otherSum := put(t, s, content), put(t, s, other)
	parts, err := s.Parts(sum)
	if err != nil || len(parts) < 4 {
		t.Fatal(parts, err)
	}
	otherParts, err := s.Parts(otherSum)
	if err != nil {
		t.Fatal(err)
	}
	for what, harm := range map[string]func(m *vfs.Mem, p string) error{
		"gone":   func(m *vfs.Mem, p string) error { return m.Remove(p) },
		"empty":  func(m *vfs.Mem, p string) error { return edit(m, p, func(b []byte) []byte { return nil }) },
		"cut":    func(m *vfs.Mem, p string) error { return edit(m, p, func(b []byte) []byte { return b[:len(b)-1] }) },
		"longer": func(m *vfs.Mem, p string) error { return edit(m, p, func(b []byte) []byte { return append(b, 0) }) },
		"zeros": func(m *vfs.Mem, p string) error {
			return edit(m, p, func(b []byte) []byte { return make([]byte, len(b)) })
		},
		"directory": func(m *vfs.Mem, p string) error { return errors.Join(m.Remove(p), m.Mkdir(p)) },
		"fifo":      func(m *vfs.Mem, p string) error { return errors.Join(m.Remove(p), m.Mkfifo(p)) },
		"link":      func(m *vfs.Mem, p string) error { return errors.Join(m.Remove(p), m.Symlink("../tmp", p)) },
		"swapped": func(m *vfs.Mem, p string) error {
			return errors.Join(m.Rename(p, "x"), m.Rename(otherParts[0], p), m.Rename("x", otherParts[0]))
		},
	} {
		for i, p := range parts {
			t.Run(fmt.Sprint(what, i), func(t *testing.T) {
				m := base.Clone()
				if err := harm(m, p); err != nil {
					t.Fatal(err)
				}
				s := open(t, m)
				var damage *Damage
				if _, err := s.Get(sum); !errors.As(err, &damage) || damage.Path != p {
					t.Fatalf("got %v, want damage of %s", err, p)
				}
				if what != "swapped" {
					if got, err := s.Get(otherSum); err != nil || !bytes.Equal(got, other) {
						t.Fatalf("a neighbour is not served: %v", err)
					}
				}
				r, err := s.Verify(t.Context(), only(sum, otherSum), nil)
				found := false
				for _, d := range r.Damage {
					found = found || d.Path == p
				}
				if err != nil || !found {
					t.Fatalf("verify found %v, %v", r.Damage, err)
				}
				put(t, s, content)
				if got, err := s.Get(sum); err != nil || !bytes.Equal(got, content) {
					t.Fatalf("putting the content again must heal it: %v", err)
				}
			})
		}
	}
}

func edit(m *vfs.Mem, p string, change func([]byte) []byte) error {
	f, err := m.Open(p, os.O_RDWR)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	b = change(b)
	_, werr := f.WriteAt(0, b)
	return errors.Join(f.Truncate(int64(len(b))), werr, f.Close())
}

func TestEveryByteOfEveryObjectIsChecked(t *testing.T) {
	m := newDisk(t)
	s := open(t, m)
	for _, c := range [][]byte{text(1, 1500), noise(1, 300), append(text(2, 40_000), noise(2, 9000)...)} {
		parts, err := s.Parts(put(t, s, c))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			sum, err := ParseSum(strings.TrimPrefix(p, "blobs/"))
			if err != nil {
				t.Fatal(err)
			}
			stored, err := readFile(m, p)
			if err != nil {
				t.Fatal(err)
			}
			for i := range stored {
				old := stored[i]
				for _, v := range []byte{old ^ 1, old ^ 0x80, 0, 0xff, old + 1} {
					if stored[i] = v; v == old {
						continue
					}
					if _, _, err := decode(sum, stored); err == nil {
						t.Fatalf("byte %d of %s: %#x for %#x is not found", i, p, v, old)
					}
				}
				stored[i] = old
			}
			for n := range stored {
				if _, _, err := decode(sum, stored[:n]); err == nil {
					t.Fatalf("%s cut to %d bytes is not found", p, n)
				}
			}
		}
	}
}

func FuzzObject(f *testing.F) {
	for _, c := range [][]byte{nil, []byte("x"), text(1, 5000), text(2, 60_000)} {
		for _, o := range split(SumOf(c), c) {
			f.Add(o.stored[:len(o.stored)-trailer])
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		// With a right checksum, so that what is behind it is reached.
		sum := SumOf(body)
		kind, b, err := decode(sum, seal(sum, bytes.Clone(body)))
		if err == nil && kind != kindList && SumOf(b) != sum {
			t.Fatal("a content that is not its name's was taken")
		}
		if kind != kindList {
			return
		}
		l, err := parseList(b)
		if err != nil {
			return
		}
		if got, err := l.finish(nil); err == nil && uint64(len(got)) != l.size {
			t.Fatal("a list gave another length than it says")
		}
		again, err := parseList(l.encode())
		if err != nil || again.size != l.size || !bytes.Equal(again.rest, l.rest) {
			t.Fatal("a list does not survive being written:", err)
		}
	})
}

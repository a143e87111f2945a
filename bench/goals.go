package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// goal is one promise of speed: got must not be under (or over) want.
type goal struct {
	What string  `json:"what"`
	Want float64 `json:"want"`
	Over bool    `json:"over"` // true: at least want; false: at most
	Got  float64 `json:"got"`
	Note string  `json:"note,omitempty"`
}

func (g goal) met() bool {
	if g.Over {
		return g.Got >= g.Want
	}
	return g.Got <= g.Want
}

// report is all that a run found.
type report struct {
	Date    time.Time `json:"date"`
	Machine string    `json:"machine"`
	Short   bool      `json:"short"`
	Puts    []result  `json:"puts"`
	Times   []timing  `json:"times"`
	Goals   []goal    `json:"goals"`
	Notes   []string  `json:"notes,omitempty"`
}

func newReport(short bool) *report {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(b), "model name\t: "); ok {
			model, _, _ = strings.Cut(after, "\n")
		}
	}
	return &report{
		Date: time.Now().UTC(), Short: short,
		Machine: fmt.Sprintf("%d x %s, %s/%s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version()),
	}
}

// find returns a contender's result in a cell.
func (r *report) find(name string, c cell) *result {
	for i := range r.Puts {
		if p := &r.Puts[i]; p.Name == name && p.cell == c && p.Skipped == "" {
			return p
		}
	}
	return nil
}

// between is the median, over the rounds, of a figure of one contender to another's.
func (r *report) between(a, b string, c cell, f func(sample) float64) (float64, bool) {
	x, y := r.find(a, c), r.find(b, c)
	if x == nil || y == nil || len(x.Rounds) != len(y.Rounds) {
		return 0, false
	}
	q := make([]float64, len(x.Rounds))
	for i := range q {
		q[i] = f(x.Rounds[i]) / f(y.Rounds[i])
	}
	return medianOf(q), true
}

func rate(s sample) float64 { return s.Rate }
func p50(s sample) float64  { return s.P50 }
func p99(s sample) float64  { return s.P99 }

func (r *report) goal(what string, want float64, over bool, got float64, note string) {
	r.Goals = append(r.Goals, goal{what, want, over, got, note})
}

// ratio adds a goal about two contenders, if both ran.
func (r *report) ratio(what, a, b string, c cell, f func(sample) float64, want float64, over bool) {
	if got, ok := r.between(a, b, c, f); ok {
		r.goal(what, want, over, got, "")
	} else {
		r.Notes = append(r.Notes, what+": not measured, "+a+" or "+b+" did not run")
	}
}

// print writes the tables as Markdown.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %s", r.Date.Format("2006-01-02 15:04 MST"), r.Machine)
	if r.Short {
		fmt.Fprint(w, " (short run)")
	}
	fmt.Fprint(w, "\n\n")
	var last cell
	for i, p := range r.Puts {
		if i == 0 || p.cell != last {
			last = p.cell
			how := ""
			if p.Settled {
				how = ", until all is at rest"
			}
			fmt.Fprintf(w, "\n### %d clients, %s documents%s\n\n| way | documents/s | ratio | p50 ms | ratio | p99 ms | ratio |\n|---|---|---|---|---|---|---|\n", p.Clients, size(p.Bytes), how)
		}
		if p.Skipped != "" {
			fmt.Fprintf(w, "| %s | - | - | - | - | - | %s |\n", p.Name, p.Skipped)
			continue
		}
		fmt.Fprintf(w, "| %s | %.0f | %.2f | %.3f | %.2f | %.3f | %.2f |\n", p.Name, p.Rate, p.Ratio, p.P50, p.P50x, p.P99, p.P99x)
	}
	if len(r.Times) > 0 {
		fmt.Fprint(w, "\n### Times\n\n| what | who | ms |\n|---|---|---|\n")
	}
	for _, t := range r.Times {
		fmt.Fprintf(w, "| %s | %s | %.4g |\n", t.What, t.Who, t.MS)
	}
	fmt.Fprint(w, "\n### Goals\n\n| goal | wanted | got | met |\n|---|---|---|---|\n")
	for _, g := range r.Goals {
		sign, met := "<=", "no"
		if g.Over {
			sign = ">="
		}
		if g.met() {
			met = "yes"
		}
		if g.Note != "" {
			met += ", " + g.Note
		}
		fmt.Fprintf(w, "| %s | %s %g | %.3g | %s |\n", g.What, sign, g.Want, g.Got, met)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n- %s", n)
	}
	fmt.Fprintln(w)
}

// The tables of a document stand between these lines.
const docStart, docEnd = "<!-- what follows is written by make bench -->\n", "<!-- to here -->\n"

// document puts the tables into a Markdown document in place of those that are there.
func (r *report) document(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), docStart)
	_, after, ended := strings.Cut(rest, docEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no lines %q and %q", path, docStart, docEnd)
	}
	var tables strings.Builder
	r.print(&tables)
	return os.WriteFile(path, []byte(before+docStart+"\n"+tables.String()+"\n"+docEnd+after), 0o644)
}

func (r *report) save(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d KB", n>>10)
}

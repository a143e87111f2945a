package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows in columns that fit the terminal. What is not needed goes first:
// empty columns, then ids' ends, then columns with the lowest keep until the rest fits, and
// the one that is flexible is cut. With no terminal nothing is left out or cut.
type table struct {
	columns []column
	rows    [][]string
}

type column struct {
	title string
	right bool // numbers
	flex  bool // may be cut, down to 12 characters, or 28 while a column can go
	keep  int  // 0: always there; else the higher stays the longer
	id    bool // may be cut to a prefix that still names each row, 13 characters or more
	paint func(string) string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer, width int, s style) error {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = len(c.title)
		for _, r := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	shown := t.fit(widths, width)
	var line strings.Builder
	cell := func(i int, text string, last bool, paint func(string) string) {
		if n := widths[i]; t.columns[i].id && len(text) > n {
			text = text[:n]
		} else if utf8.RuneCountInString(text) > n {
			text = string([]rune(text)[:n-1]) + "…"
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
		if paint != nil {
			text = paint(text)
		}
		switch {
		case t.columns[i].right:
			text = pad + text
		case !last:
			text += pad
		}
		line.WriteString(text)
		if !last {
			line.WriteString("  ")
		}
	}
	for n := -1; n < len(t.rows); n++ {
		line.Reset()
		for k, i := range shown {
			last := k == len(shown)-1
			if n < 0 {
				cell(i, t.columns[i].title, last, s.dim)
			} else {
				cell(i, t.rows[n][i], last, t.columns[i].paint)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// fit chooses the columns and narrows the flexible ones.
func (t *table) fit(widths []int, width int) []int {
	var shown []int
	for i := range t.columns {
		if width == 0 || !t.empty(i) {
			shown = append(shown, i)
		}
	}
	if width == 0 {
		return shown
	}
	if sum(widths, shown) > width {
		for _, i := range shown {
			if t.columns[i].id {
				widths[i] = t.prefix(i)
			}
		}
	}
	const narrowest, readable = 12, 28
	for {
		least := narrowest
		if t.droppable(shown) { // rather lose a column than what can be read
			least = readable
		}
		over := sum(widths, shown) - width
		for _, i := range shown {
			if over > 0 && t.columns[i].flex && widths[i] > least {
				cut := min(over, widths[i]-least)
				if t.droppable(shown) && cut < over {
					continue // a column will go: see then how much must be cut
				}
				widths[i] -= cut
				over -= cut
			}
		}
		if over <= 0 || !t.droppable(shown) {
			return shown
		}
		shown = t.drop(shown)
	}
}

// sum is the width of a line.
func sum(widths, shown []int) int {
	total := -2
	for _, i := range shown {
		total += widths[i] + 2
	}
	return total
}

// empty columns say nothing.
func (t *table) empty(i int) bool {
	for _, r := range t.rows {
		if r[i] != "" {
			return false
		}
	}
	return len(t.rows) > 0
}

// prefix is how much of a column's ids tells them apart. The first 13 characters of an id
// are its time to the millisecond.
func (t *table) prefix(i int) int {
	n := 13
	for seen := map[string]bool{}; ; clear(seen) {
		for _, r := range t.rows {
			seen[r[i][:min(n, len(r[i]))]] = true
		}
		whole := map[string]bool{}
		for _, r := range t.rows {
			whole[r[i]] = true
		}
		if len(seen) == len(whole) {
			return n
		}
		n++
	}
}

func (t *table) droppable(shown []int) bool {
	for _, i := range shown {
		if t.columns[i].keep > 0 {
			return true
		}
	}
	return false
}

func (t *table) drop(shown []int) []int {
	least := -1
	for k, i := range shown {
		if t.columns[i].keep > 0 && (least < 0 || t.columns[i].keep < t.columns[shown[least]].keep) {
			least = k
		}
	}
	return append(append([]int(nil), shown[:least]...), shown[least+1:]...)
}

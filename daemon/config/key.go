package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Key is one key of the file: what the decoder checks, and what the documents say.
type Key struct {
	// Name is dotted; an element of a list is [], a name chosen by the user is {}.
	Name string
	// Doc says what it does and why the default is what it is.
	Doc string
	// Min and Max bound a number, in Unit, or a duration in nanoseconds.
	Min, Max int64
	Unit     string
	// OneOf lists the only texts that are taken.
	OneOf []string
	// Restart: a changed value waits for the daemon's next start.
	Restart bool

	check func(text string) string // says what is wrong with a text, or ""
}

// Lookup finds the row of a key, with or without the numbers of list elements.
func Lookup(key string) (Key, bool) {
	i, ok := keyIndex[generic(key)]
	if !ok {
		return Key{Name: key}, false
	}
	return Keys[i], true
}

// rowOf finds the row of a key as the decoder counts it ("sessions[0].auto.cron"). The
// same type has the same rows wherever it stands.
func rowOf(key string) Key {
	if row, ok := Lookup(key); ok {
		return row
	}
	return Key{Name: key, Min: math.MinInt64, Max: math.MaxInt64}
}

var (
	elementNumber = regexp.MustCompile(`\[\d+\]`)
	keyIndex      = func() map[string]int {
		index := make(map[string]int, len(Keys))
		for i, k := range Keys {
			index[k.Name] = i
		}
		return index
	}()
)

func generic(key string) string {
	key = elementNumber.ReplaceAllString(key, "[]")
	if rest, ok := strings.CutPrefix(key, "sessions[].auto"); ok {
		key = "auto" + rest
	}
	if rest, ok := strings.CutPrefix(key, "auto.retention."); ok {
		key = "retention." + rest
	}
	return key
}

func (k Key) checkText(text string) string {
	if len(k.OneOf) > 0 && !slices.Contains(k.OneOf, text) {
		return fmt.Sprintf("must be %s, not %.60q", orList(k.OneOf), text)
	}
	if k.check != nil {
		return k.check(text)
	}
	return ""
}

func (k Key) wantText() string {
	if len(k.OneOf) > 0 {
		return orList(k.OneOf)
	}
	return "text"
}

func (k Key) wantNumber() string {
	want := "a whole number"
	if k.Unit != "" {
		want += " of " + k.Unit
	}
	return want + k.rangeText(func(i int64) string { return fmt.Sprint(i) })
}

func (k Key) wantDuration() string {
	return "a duration such as 30s, 5m or 1h" + k.rangeText(func(i int64) string { return FormatDuration(time.Duration(i)) })
}

func (k Key) rangeText(format func(int64) string) string {
	switch {
	case k.Min != math.MinInt64 && k.Max != math.MaxInt64:
		return ", from " + format(k.Min) + " to " + format(k.Max)
	case k.Min != math.MinInt64:
		return ", " + format(k.Min) + " or more"
	}
	return ""
}

// FormatDuration writes a duration as a person would: 1h, not 1h0m0s.
func FormatDuration(d time.Duration) string {
	text := d.String()
	if d != 0 && strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// orList joins what is allowed; nothing is written "".
func orList(items []string) string {
	items = slices.Clone(items)
	for i, item := range items {
		if item == "" {
			items[i] = `""`
		}
	}
	if len(items) == 1 {
		return items[0]
	}
	return strings.Join(items[:len(items)-1], ", ") + " or " + items[len(items)-1]
}

// hint says what an unknown key should have been: the nearest one, or all.
func hint(name string, known []string) string {
	best, distance := "", min(3, len(name)/2+1) // of a short name half is another word
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "the keys here are " + strings.Join(known, ", ")
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

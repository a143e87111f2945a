package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/forge-cpd/forge-cpd/client"
)

// maxPage is the most that one page of a list holds on the wire.
const maxPage = 1000

// pages gathers a list's items, as they came, until limit (0: all), and gives the cursor
// of what is left.
func pages(ctx context.Context, c *client.Client, limit int, method, member string,
	params func(limit int, cursor string) any) ([]json.RawMessage, string, error) {
	if limit < 0 {
		return nil, "", usagef("--limit %d: give how many at most, or 0 for all", limit)
	}
	items := []json.RawMessage{}
	cursor := ""
	for {
		n := maxPage
		if limit > 0 {
			n = min(n, limit-len(items))
		}
		raw, err := c.Call(ctx, method, params(n, cursor))
		if err != nil {
			return nil, "", err
		}
		var page map[string]json.RawMessage
		var part []json.RawMessage
		if err := json.Unmarshal(raw, &page); err != nil {
			return nil, "", fmt.Errorf("%s: %w", method, err)
		}
		if err := json.Unmarshal(page[member], &part); err != nil {
			return nil, "", fmt.Errorf("%s: %w", method, err)
		}
		cursor = ""
		if next, ok := page["next_cursor"]; ok {
			if err := json.Unmarshal(next, &cursor); err != nil {
				return nil, "", fmt.Errorf("%s: %w", method, err)
			}
		}
		items = append(items, part...)
		if cursor == "" || limit > 0 && len(items) >= limit {
			return items, cursor, nil
		}
	}
}

// printPage prints a list in the wire's shape, item by item as it came.
func (a *app) printPage(member string, items []json.RawMessage, next string) error {
	buf := []byte(`{"` + member + `":[`)
	for i, item := range items {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, item...)
	}
	buf = append(buf, ']')
	if next != "" {
		cursor, err := json.Marshal(next)
		if err != nil {
			return err
		}
		buf = append(append(buf, `,"next_cursor":`...), cursor...)
	}
	return a.printRaw(append(buf, '}'))
}

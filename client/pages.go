package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// AllSessions goes through session.list page by page and ends at the first error.
func (c *Client) AllSessions(ctx context.Context, p rpc.SessionListParams) iter.Seq2[checkpoint.Session, error] {
	return func(yield func(checkpoint.Session, error) bool) {
		for {
			page, err := c.Sessions(ctx, &p)
			if err != nil {
				yield(checkpoint.Session{}, err)
				return
			}
			for _, s := range page.Sessions {
				if !yield(s, nil) {
					return
				}
			}
			if p.Cursor = page.NextCursor; p.Cursor == "" {
				return
			}
		}
	}
}

// AllCheckpoints goes through checkpoint.list page by page and ends at the first error.
func (c *Client) AllCheckpoints(ctx context.Context, p rpc.CheckpointListParams) iter.Seq2[checkpoint.Summary, error] {
	return func(yield func(checkpoint.Summary, error) bool) {
		for {
			page, next, err := c.Checkpoints(ctx, &p)
			if err != nil {
				yield(checkpoint.Summary{}, err)
				return
			}
			for _, s := range page {
				if !yield(s, nil) {
					return
				}
			}
			if p.Cursor = next; next == "" {
				return
			}
		}
	}
}

// Export goes through store.export page by page, each as the bytes that Import takes.
func (c *Client) Export(ctx context.Context, p rpc.ExportParams) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for {
			page, err := c.ExportPage(ctx, &p)
			if err != nil {
				yield(nil, err)
				return
			}
			var head struct {
				Next string `json:"next_cursor"`
			}
			if err := json.Unmarshal(page, &head); err != nil {
				yield(nil, fmt.Errorf("a page of the export cannot be read: %w", err))
				return
			}
			if !yield(page, nil) {
				return
			}
			if p.Cursor = head.Next; p.Cursor == "" {
				return
			}
		}
	}
}

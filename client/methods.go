package client

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// repeatable methods change nothing more when they are carried out twice.
var repeatable = map[string]bool{
	"rpc.discover": true, "daemon.info": true, "daemon.health": true, "daemon.metrics": true,
	"daemon.prometheus": true, "daemon.sync": true, "daemon.reload": true,
	"session.create": true, "session.get": true, "session.list": true, "session.close": true, "session.reopen": true,
	"session.put_state": true, "checkpoint.create": true, // its id is given: see CreateCheckpoint
	"checkpoint.get": true, "checkpoint.file": true, "checkpoint.latest": true, "checkpoint.at": true,
	"checkpoint.list": true, "checkpoint.restore": true, "checkpoint.diff": true, "checkpoint.validate": true,
	"checkpoint.validate_all": true, "checkpoint.hypothesis_state": true,
	"auto.enable": true, "auto.disable": true, "auto.get": true, "store.export": true, "store.import": true,
}

// ByID names a session by its id.
func ByID(id checkpoint.ID) rpc.SessionRef { return rpc.SessionRef{SessionID: id} }

// ByKey names a session by its key.
func ByKey(key string) rpc.SessionRef { return rpc.SessionRef{Key: key} }

// Restored is a checkpoint without its state, and the state.
type Restored struct {
	Checkpoint checkpoint.Checkpoint `json:"checkpoint"`
	State      json.RawMessage       `json:"state"`
}

// invoke calls a method and decodes its result.
func invoke[R any](ctx context.Context, c *Client, method string, params any) (R, error) {
	var result R
	raw, err := c.Call(ctx, method, params)
	if err != nil {
		return result, err
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return result, fmt.Errorf("the daemon's answer to %s is not as this client knows it: %w", method, err)
	}
	return result, nil
}

// Discover gives the daemon's OpenRPC document.
func (c *Client) Discover(ctx context.Context) (json.RawMessage, error) {
	return c.Call(ctx, "rpc.discover", nil)
}

// Info says who answers: daemon.info. On a new connection it is what the handshake was
// answered, within Handshake.
func (c *Client) Info(ctx context.Context) (*rpc.Info, error) {
	r := c.newRetry()
	for {
		cn, err := c.current()
		if err == nil && cn != nil {
			return invoke[*rpc.Info](ctx, c, "daemon.info", nil)
		}
		if err == nil {
			if cn, err = c.connect(ctx); err == nil {
				info := *cn.info
				return &info, nil
			}
		}
		if !r.again(ctx, "daemon.info", err) {
			return nil, err
		}
	}
}

// Health says what is wrong, if anything: daemon.health.
func (c *Client) Health(ctx context.Context, p *rpc.HealthParams) (*rpc.Health, error) {
	return invoke[*rpc.Health](ctx, c, "daemon.health", p)
}

// Metrics gives the daemon's counters: daemon.metrics.
func (c *Client) Metrics(ctx context.Context) (*rpc.Metrics, error) {
	return invoke[*rpc.Metrics](ctx, c, "daemon.metrics", nil)
}

// Prometheus gives the same as OpenMetrics text: daemon.prometheus.
func (c *Client) Prometheus(ctx context.Context) (string, error) {
	r, err := invoke[rpc.Prometheus](ctx, c, "daemon.prometheus", nil)
	return r.Text, err
}

// Sync returns when all that was acknowledged is published as files: daemon.sync. It gives
// the highest sequence number.
func (c *Client) Sync(ctx context.Context) (uint64, error) {
	r, err := invoke[rpc.SyncResult](ctx, c, "daemon.sync", nil)
	return r.Sequence, err
}

// Reload re-reads the daemon's configuration: daemon.reload.
func (c *Client) Reload(ctx context.Context) (*rpc.ReloadResult, error) {
	return invoke[*rpc.ReloadResult](ctx, c, "daemon.reload", nil)
}

// Shutdown asks the daemon to drain and stop: daemon.shutdown.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.Call(ctx, "daemon.shutdown", nil)
	return err
}

// CreateSession makes a session, or gives the one with that key or id: session.create.
// Without either a repetition would make a second one, so an id is picked here.
func (c *Client) CreateSession(ctx context.Context, p *rpc.SessionCreateParams) (*rpc.SessionCreateResult, error) {
	q := *p
	if q.Key == "" && q.SessionID.IsZero() {
		q.SessionID = checkpoint.NewID()
	}
	return invoke[*rpc.SessionCreateResult](ctx, c, "session.create", &q)
}

// Session gives one session: session.get.
func (c *Client) Session(ctx context.Context, s rpc.SessionRef) (*checkpoint.Session, error) {
	return invoke[*checkpoint.Session](ctx, c, "session.get", rpc.SessionParams{SessionRef: s})
}

// Sessions gives one page of sessions, newest activity first: session.list.
func (c *Client) Sessions(ctx context.Context, p *rpc.SessionListParams) (*rpc.SessionListResult, error) {
	return invoke[*rpc.SessionListResult](ctx, c, "session.list", p)
}

// CloseSession ends a session's automation and creates: session.close.
func (c *Client) CloseSession(ctx context.Context, s rpc.SessionRef) (*checkpoint.Session, error) {
	return invoke[*checkpoint.Session](ctx, c, "session.close", rpc.SessionParams{SessionRef: s})
}

// ReopenSession undoes CloseSession: session.reopen.
func (c *Client) ReopenSession(ctx context.Context, s rpc.SessionRef) (*checkpoint.Session, error) {
	return invoke[*checkpoint.Session](ctx, c, "session.reopen", rpc.SessionParams{SessionRef: s})
}

// DeleteSession removes a session and its checkpoints, and counts those: session.delete.
func (c *Client) DeleteSession(ctx context.Context, s rpc.SessionRef) (int, error) {
	r, err := invoke[rpc.SessionDeleteResult](ctx, c, "session.delete", rpc.SessionParams{SessionRef: s})
	return r.Deleted, err
}

// PutState leaves the state that automatic checkpoints will take: session.put_state.
func (c *Client) PutState(ctx context.Context, s rpc.SessionRef, state json.RawMessage) (uint64, error) {
	r, err := invoke[rpc.PutStateResult](ctx, c, "session.put_state", rpc.PutStateParams{SessionRef: s, State: state})
	return r.Revision, err
}

// CreateCheckpoint keeps a state; when it returns, the state is on stable storage:
// checkpoint.create. A zero CheckpointID is picked here, so that a call whose answer was
// lost can be repeated: Existing is then true, which is no error.
func (c *Client) CreateCheckpoint(ctx context.Context, p *rpc.CheckpointCreateParams) (*checkpoint.Receipt, error) {
	q := *p
	if q.CheckpointID.IsZero() {
		q.CheckpointID = checkpoint.NewID()
	}
	return invoke[*checkpoint.Receipt](ctx, c, "checkpoint.create", &q)
}

// Checkpoint gives one checkpoint, verified: checkpoint.get.
func (c *Client) Checkpoint(ctx context.Context, id checkpoint.ID) (*checkpoint.Checkpoint, error) {
	return invoke[*checkpoint.Checkpoint](ctx, c, "checkpoint.get", rpc.CheckpointParams{CheckpointID: id})
}

// File gives one captured file of a checkpoint, verified: checkpoint.file.
func (c *Client) File(ctx context.Context, id checkpoint.ID, path string) (*rpc.CheckpointFileResult, error) {
	return invoke[*rpc.CheckpointFileResult](ctx, c, "checkpoint.file", rpc.CheckpointFileParams{CheckpointID: id, Path: path})
}

// Latest gives the session's newest checkpoint, or nil: checkpoint.latest.
func (c *Client) Latest(ctx context.Context, s rpc.SessionRef) (*checkpoint.Checkpoint, error) {
	return invoke[*checkpoint.Checkpoint](ctx, c, "checkpoint.latest", rpc.SessionParams{SessionRef: s})
}

// At gives the last checkpoint not after a time or a number, or nil: checkpoint.at.
func (c *Client) At(ctx context.Context, p *rpc.CheckpointAtParams) (*checkpoint.Checkpoint, error) {
	return invoke[*checkpoint.Checkpoint](ctx, c, "checkpoint.at", p)
}

// Checkpoints gives one page of summaries in sequence order, and the cursor of the next
// page ("" after the last): checkpoint.list. AllCheckpoints goes through the pages.
func (c *Client) Checkpoints(ctx context.Context, p *rpc.CheckpointListParams) ([]checkpoint.Summary, string, error) {
	r, err := invoke[struct {
		Checkpoints []checkpoint.Summary `json:"checkpoints"`
		NextCursor  string               `json:"next_cursor"`
	}](ctx, c, "checkpoint.list", p)
	return r.Checkpoints, r.NextCursor, err
}

// Restore gives a checkpoint's verified state and makes it the session's head, unless
// MoveHead is false: checkpoint.restore.
func (c *Client) Restore(ctx context.Context, p *rpc.RestoreParams) (*Restored, error) {
	return invoke[*Restored](ctx, c, "checkpoint.restore", p)
}

// Fork makes a session that begins with a copy of a checkpoint: checkpoint.fork.
func (c *Client) Fork(ctx context.Context, p *rpc.ForkParams) (*checkpoint.Session, error) {
	return invoke[*checkpoint.Session](ctx, c, "checkpoint.fork", p)
}

// Diff gives the RFC 6902 patch between two states: checkpoint.diff.
func (c *Client) Diff(ctx context.Context, p *rpc.DiffParams) (*rpc.DiffResult, error) {
	return invoke[*rpc.DiffResult](ctx, c, "checkpoint.diff", p)
}

// DeleteCheckpoint removes one checkpoint: checkpoint.delete.
func (c *Client) DeleteCheckpoint(ctx context.Context, id checkpoint.ID) error {
	_, err := c.Call(ctx, "checkpoint.delete", rpc.CheckpointParams{CheckpointID: id})
	return err
}

// Compact removes the checkpoints that no rule keeps: checkpoint.compact.
func (c *Client) Compact(ctx context.Context, p *rpc.CompactParams) (*rpc.CompactResult, error) {
	return invoke[*rpc.CompactResult](ctx, c, "checkpoint.compact", p)
}

// Annotate adds a note for good: checkpoint.annotate.
func (c *Client) Annotate(ctx context.Context, p *rpc.AnnotateParams) (*checkpoint.Annotation, error) {
	return invoke[*checkpoint.Annotation](ctx, c, "checkpoint.annotate", p)
}

// Validate reads one checkpoint's stored bytes again: checkpoint.validate.
func (c *Client) Validate(ctx context.Context, id checkpoint.ID) (*rpc.ValidateResult, error) {
	return invoke[*rpc.ValidateResult](ctx, c, "checkpoint.validate", rpc.CheckpointParams{CheckpointID: id})
}

// ValidateAll reads everything again; a zero ref is the whole store: checkpoint.validate_all.
func (c *Client) ValidateAll(ctx context.Context, s rpc.SessionRef) (*rpc.ValidateAllResult, error) {
	return invoke[*rpc.ValidateAllResult](ctx, c, "checkpoint.validate_all", rpc.ValidateAllParams{SessionRef: s})
}

// HypothesisState gives state.hypothesis_state, or null: checkpoint.hypothesis_state.
func (c *Client) HypothesisState(ctx context.Context, id checkpoint.ID) (json.RawMessage, error) {
	r, err := invoke[rpc.HypothesisStateResult](ctx, c, "checkpoint.hypothesis_state", rpc.CheckpointParams{CheckpointID: id})
	return r.HypothesisState, err
}

// EnableAuto lets the daemon take checkpoints by itself: auto.enable. config is a partial
// AutoConfig; nil takes the daemon's defaults.
func (c *Client) EnableAuto(ctx context.Context, s rpc.SessionRef, config json.RawMessage) (*checkpoint.AutoConfig, error) {
	return invoke[*checkpoint.AutoConfig](ctx, c, "auto.enable", rpc.AutoEnableParams{SessionRef: s, Config: config})
}

// DisableAuto ends that: auto.disable.
func (c *Client) DisableAuto(ctx context.Context, s rpc.SessionRef) error {
	_, err := c.Call(ctx, "auto.disable", rpc.SessionParams{SessionRef: s})
	return err
}

// Auto tells how a session's automation stands: auto.get.
func (c *Client) Auto(ctx context.Context, s rpc.SessionRef) (*rpc.AutoGetResult, error) {
	return invoke[*rpc.AutoGetResult](ctx, c, "auto.get", rpc.SessionParams{SessionRef: s})
}

// Trigger tells the daemon that something happened: auto.trigger.
func (c *Client) Trigger(ctx context.Context, p *rpc.AutoTriggerParams) (*rpc.AutoTriggerResult, error) {
	return invoke[*rpc.AutoTriggerResult](ctx, c, "auto.trigger", p)
}

// ExportPage gives one page of an export as the bytes that Import takes: store.export.
// They must not be decoded and encoded again on the way, or checksums will not match.
func (c *Client) ExportPage(ctx context.Context, p *rpc.ExportParams) (json.RawMessage, error) {
	return c.Call(ctx, "store.export", p)
}

// Import takes one page: store.import.
func (c *Client) Import(ctx context.Context, page json.RawMessage) (*rpc.ImportResult, error) {
	return invoke[*rpc.ImportResult](ctx, c, "store.import", rpc.ImportParams{Data: page})
}

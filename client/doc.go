// Package client speaks to a forge-cpd daemon from Go programs.
//
// Start with a zero Client: it finds the daemon's socket as the forge-cpd command does
// (FORGE_CPD_SOCKET, then the configuration, then the per-user default), connects at the
// first call, and is safe for concurrent use. Every method of the wire has a Go method
// with the params and results of package rpc; Call takes any method by its name.
//
//	c := &client.Client{}
//	defer c.Close()
//	s, err := c.CreateSession(ctx, &rpc.SessionCreateParams{Name: "my agent", Key: "run-7"})
//	r, err := c.CreateCheckpoint(ctx, &rpc.CheckpointCreateParams{
//		SessionRef: client.ByID(s.ID), Message: "before the refactoring", State: state})
//
// # States are bytes
//
// A state goes in and comes out as json.RawMessage. It is never decoded into Go values, so
// number literals, member order, escapes and duplicate members stay as they are; only
// white space between tokens may go.
//
// # Errors
//
// What the daemon answers is a *checkpoint.Error: errors.Is(err, checkpoint.ErrNotFound)
// holds here as it does in the daemon. What keeps it from answering is told by
// ErrNotRunning (nobody listens), ErrNoAnswer (it listens and does not answer),
// ErrConnectionLost and *VersionError (another API major; it names which of the two is too old).
//
// # When the connection breaks
//
// A client that was connected once connects again by itself, for up to RetryFor a call, so
// a restart of the daemon is a delay and no failure. What happens to a call in flight:
//
//   - not sent yet, or refused with retry (the daemon is draining, a limit was met): sent again;
//   - it only reads, or repeating it changes nothing more: sent again;
//   - CreateCheckpoint, CreateSession: sent again. The client picks the id of a checkpoint
//     when the caller did not, so that the daemon recognises the repetition (Existing is true
//     on it);
//   - anything else may or may not have happened: ErrConnectionLost.
//
// Sessions that the program attached are attached again on the new connection. A
// subscription resumes after the last event it gave out: see Subscription.
package client

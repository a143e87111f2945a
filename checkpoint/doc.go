// Package checkpoint holds the words that every other package of forge-cpd shares:
// checkpoints, sessions, events, triggers, retention rules and the errors that
// programs tell apart with errors.Is. It opens no file and no socket and starts no
// goroutine, so anything may import it.
//
// The JSON shapes are those of the wire contract; docs/api.md lists them.
package checkpoint

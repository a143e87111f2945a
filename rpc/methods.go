package rpc

import (
	"context"
	"reflect"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// order says how a method stands to the others on its connection.
type order int

const (
	free    order = iota // to nothing
	change               // changes one session
	read                 // reads one session, or the whole store when it names none
	barrier              // after all changes before it, and before all that come after it
)

// naming says how a method names its session.
type naming int

const (
	bySession    naming = iota + 1 // exactly one of session_id and key
	maybeSession                   // at most one of them
	byCheckpoint                   // checkpoint_id
	byNew                          // session.create
)

// method is one row of the table from which dispatch, decoding, rpc.discover and
// docs/api.md come.
type method struct {
	name, summary string
	order         order
	naming        naming
	large         bool // its result can be large: see gate
	transient     bool // nothing refers to the bytes of its params once it has succeeded
	params        reflect.Type
	result        reflect.Type
	fields        *fields
	call          func(context.Context, Service, any) (any, error)
}

// row makes one from a method of Service.
func row[P, R any](name string, o order, n naming, f func(Service, context.Context, *P) (R, error), summary string) *method {
	params := reflect.TypeFor[P]()
	return &method{
		name: name, summary: summary, order: o, naming: n,
		params: params, result: reflect.TypeFor[R](), fields: fieldsOf(params),
		call: func(ctx context.Context, s Service, p any) (any, error) { return f(s, ctx, p.(*P)) },
	}
}

// plain is row for a method that takes nothing.
func plain[R any](name string, o order, f func(Service, context.Context, NoParams) (R, error), summary string) *method {
	return row(name, o, 0, func(s Service, ctx context.Context, _ *NoParams) (R, error) { return f(s, ctx, NoParams{}) }, summary)
}

func big(m *method) *method {
	m.large = true
	return m
}

func transient(m *method) *method {
	m.transient = true
	return m
}

// methods are all but rpc.discover, in the order of the contract.
var methods = []*method{
	plain("daemon.info", free, Service.Info, "Who answers: name, version, API, process, paths."),
	row("daemon.health", read, 0, Service.Health, "Whether all is well. With validate, the newest recent checkpoints of each session are read back; nothing is changed."),
	plain("daemon.metrics", read, Service.Metrics, "Counters and gauges."),
	plain("daemon.prometheus", read, Service.Prometheus, "The metrics as OpenMetrics text."),
	plain("daemon.sync", barrier, Service.Sync, "Returns when all that was acknowledged is durable and published as its own file."),
	plain("daemon.reload", free, Service.Reload, "Reads the configuration again. A bad one is refused whole, and the old stays."),
	plain("daemon.shutdown", read, Service.Shutdown, "Drains and stops the daemon."),

	row("session.create", change, byNew, Service.SessionCreate, "Makes a session, or returns the one with that key or session_id unchanged."),
	row("session.get", read, bySession, Service.SessionGet, "One session."),
	big(row("session.list", read, 0, Service.SessionList, "Sessions, newest activity first.")),
	row("session.close", change, bySession, Service.SessionClose, "Ends a session's automation and its creates; reads go on."),
	row("session.reopen", change, bySession, Service.SessionReopen, "Makes a closed session active again."),
	row("session.delete", change, bySession, Service.SessionDelete, "Removes a session with its checkpoints."),
	row("session.put_state", change, bySession, Service.SessionPutState, "Leaves the state that the next automatic checkpoint will take."),
	row("session.attach", change, bySession, Service.SessionAttach, "Makes this connection the session's agent; with provides_state it is asked state.capture when a trigger fires."),
	row("session.detach", change, bySession, Service.SessionDetach, "Takes session.attach back."),

	transient(row("checkpoint.create", change, bySession, Service.CheckpointCreate, "Keeps a state. It is on stable storage when the reply comes.")),
	big(row("checkpoint.get", read, byCheckpoint, Service.CheckpointGet, "One checkpoint, verified, with its annotations.")),
	big(row("checkpoint.file", read, byCheckpoint, Service.CheckpointFile, "One file of a checkpoint's context.files, verified.")),
	big(row("checkpoint.latest", read, bySession, Service.CheckpointLatest, "The session's newest checkpoint, or null.")),
	big(row("checkpoint.at", read, bySession, Service.CheckpointAt, "The checkpoint with the highest number among those at or before a time or a number, or null.")),
	big(row("checkpoint.list", read, maybeSession, Service.CheckpointList, "Summaries in sequence order.")),
	big(row("checkpoint.restore", change, bySession, Service.CheckpointRestore, "Verifies a checkpoint, returns it, and makes it the session's head unless move_head is false.")),
	row("checkpoint.fork", barrier, 0, Service.CheckpointFork, "A new session whose first checkpoint is a copy of this one."),
	big(row("checkpoint.diff", read, 0, Service.CheckpointDiff, "The RFC 6902 patch from one checkpoint's state to another's.")),
	row("checkpoint.delete", change, byCheckpoint, Service.CheckpointDelete, "Removes one checkpoint."),
	row("checkpoint.compact", change, bySession, Service.CheckpointCompact, "Removes what no given rule keeps."),
	row("checkpoint.annotate", change, byCheckpoint, Service.CheckpointAnnotate, "Adds a note for good."),
	row("checkpoint.validate", read, byCheckpoint, Service.CheckpointValidate, "Reads the stored bytes of one checkpoint again."),
	row("checkpoint.validate_all", read, maybeSession, Service.CheckpointValidateAll, "Reads the stored bytes of a session or of the whole store again."),
	big(row("checkpoint.hypothesis_state", read, byCheckpoint, Service.CheckpointHypothesisState, "state.hypothesis_state of one checkpoint, or null.")),

	row("auto.enable", change, bySession, Service.AutoEnable, "Has the daemon take checkpoints of a session by itself."),
	row("auto.disable", change, bySession, Service.AutoDisable, "Ends a session's automation."),
	row("auto.get", read, bySession, Service.AutoGet, "A session's automation: configuration, next runs, counts."),
	row("auto.trigger", change, bySession, Service.AutoTrigger, "Tells that something happened that may call for a checkpoint."),

	big(row("store.export", read, maybeSession, Service.StoreExport, "One page of a lossless export. Move pages as bytes: one that was encoded anew does not verify.")),
	row("store.import", barrier, 0, Service.StoreImport, "Takes one page of an export."),

	row("events.subscribe", barrier, maybeSession, Service.EventsSubscribe, "Sends this connection the notification event for each durable change."),
	row("events.unsubscribe", free, 0, Service.EventsUnsubscribe, "Ends a subscription."),
}

var methodByName = func() map[string]*method {
	byName := make(map[string]*method, len(methods))
	for _, m := range methods {
		byName[m.name] = m
	}
	return byName
}()

func sessionOf(params any) SessionRef {
	return reflect.ValueOf(params).Elem().FieldByName("SessionRef").Interface().(SessionRef)
}

func checkpointOf(params any) checkpoint.ID {
	switch p := params.(type) {
	case *CheckpointParams:
		return p.CheckpointID
	case *RestoreParams:
		return p.CheckpointID
	case *CheckpointFileParams:
		return p.CheckpointID
	case *AnnotateParams:
		return p.CheckpointID
	}
	return checkpoint.ID{}
}

// discoverMethod is served by the server itself: see conn.call.
var discoverMethod = &method{
	name: "rpc.discover", summary: "The OpenRPC document of these methods.", order: free,
	params: reflect.TypeFor[NoParams](), result: reflect.TypeFor[RawResult](), fields: fieldsOf(reflect.TypeFor[NoParams]()),
}

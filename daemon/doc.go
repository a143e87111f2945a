// Package daemon puts the parts together: it opens the store, makes the private socket,
// answers the methods of rpc.Service, lets autotrigger take checkpoints by itself, and
// drains in a bound when it is told to stop. Run is the way in; it returns after the last
// goroutine it started has ended.
//
// It is the only package that starts long-lived goroutines, and the only place where the
// store, the wire and the triggers meet.
package daemon

// Package rpc is the wire: JSON-RPC 2.0 on a Unix socket. Service is what it calls, Server
// serves it, and the structs beside Service are the params and results, for clients too.
//
// What a peer sends goes through, from the outside in: frames (cuts the stream into bounded
// frames of either framing), stream (takes a frame apart and keeps raw ids, params and
// results out of the jsonrpc2 library's sight), the library, conn (decodes params strictly
// by the method table and gives a request its place in the order), the Service. Replies go
// back the same way and wait in output, which never makes the one who sends wait.
//
// The method table in methods.go is the only list of methods: dispatch, decoding, the
// OpenRPC document of rpc.discover and docs/api.md come from it. ToWire and FromWire are the
// only place where errors and the wire's numbers meet.
//
// What bounds a client is in Limits; budget bounds all of them together.
package rpc

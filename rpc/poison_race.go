//go:build race

package rpc

// poison spoils buffers that are given back, in tests with the race detector.
const poison = true

package storage_test

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

// A store that was closed leaves no goroutine behind.
func TestMain(m *testing.M) {
	if os.Getenv("FORGE_CPD_FAULT") != "" {
		// Small stores by the million: memory is there to be used, and need not be sampled.
		debug.SetGCPercent(800)
		runtime.MemProfileRate = 0
	}
	goleak.VerifyTestMain(m)
}

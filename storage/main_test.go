package storage_test

import (
	"os"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

// A store that was closed leaves no goroutine behind.
func TestMain(m *testing.M) {
	if os.Getenv("FORGE_CPD_FAULT") != "" {
		debug.SetGCPercent(800) // small stores by the million: memory is there to be used
	}
	goleak.VerifyTestMain(m)
}

package client

import (
	"testing"

	"go.uber.org/goleak"
)

// A client that was closed leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

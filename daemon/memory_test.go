package daemon

import (
	"context"
	runtimemetrics "runtime/metrics"
	"testing"
	"time"
)

// While much is allocated collections are spared; afterwards all is as it was.
func TestCollectionsAreSparedWhileBusy(t *testing.T) {
	t.Setenv("GOGC", "")
	percent := func() uint64 {
		s := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
		runtimemetrics.Read(s)
		return s[0].Value.Uint64()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		spareCollections(ctx, 50*time.Millisecond)
	}()
	var keep [][]byte
	for deadline := time.Now().Add(20 * time.Second); percent() == 100; {
		keep = append(keep[:0], make([]byte, 1<<20))
		if time.Now().After(deadline) {
			t.Fatal("collections are not spared")
		}
	}
	for deadline := time.Now().Add(20 * time.Second); percent() != 100; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("collections are still spared long after")
		}
	}
	cancel()
	<-done
	if p := percent(); p != 100 {
		t.Errorf("GOGC is %d at the end", p)
	}
}

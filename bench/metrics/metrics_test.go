// Package metrics_test lets Prometheus itself read the daemon's metrics. Its parser brings
// a long list of requirements along, which this module has so that the daemon's need not.
package metrics_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// serve builds and starts the real daemon with /metrics on a free port.
func serve(t *testing.T) (c *client.Client, url string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "forge-cpd")
	build := exec.Command("go", "build", "-o", binary, "./cmd/forge-cpd")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("metrics: {listen: %q}\n", addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "run", "s")
	cmd := exec.Command(binary, "serve", "--config", config, "--socket", socket, "--data-dir", filepath.Join(dir, "data"))
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	})
	// The first line comes when it is ready.
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	c = &client.Client{Socket: socket}
	t.Cleanup(func() { c.Close() })
	return c, "http://" + addr + "/metrics"
}

// scrape reads a text as Prometheus does, and gives its series by name and labels.
func scrape(t *testing.T, text []byte, contentType string) map[string]float64 {
	t.Helper()
	p, err := textparse.New(text, contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return series
		}
		if err != nil {
			t.Fatalf("Prometheus does not read it: %v\n%s", err, text)
		}
		if entry == textparse.EntrySeries {
			name, _, value := p.Series()
			if _, twice := series[string(name)]; twice {
				t.Errorf("%s is there twice", name)
			}
			series[string(name)] = value
		}
	}
}

func TestPrometheusReadsTheMetrics(t *testing.T) {
	c, url := serve(t)
	ctx := context.Background()
	s, err := c.CreateSession(ctx, &rpc.SessionCreateParams{Name: `a "name"` + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.CreateCheckpoint(ctx, &rpc.CheckpointCreateParams{SessionRef: client.ByID(s.ID), Message: "m", State: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(ctx, &rpc.RestoreParams{SessionRef: client.ByID(s.ID), CheckpointID: r.CheckpointID}); err != nil {
		t.Fatal(err)
	}
	text, err := c.Prometheus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, series := range map[string]map[string]float64{
		"socket":   scrape(t, []byte(text), "application/openmetrics-text; version=1.0.0; charset=utf-8"),
		"/metrics": scrape(t, body, resp.Header.Get("Content-Type")),
	} {
		if len(series) < 50 {
			t.Errorf("%s: %d series", name, len(series))
		}
		for want, value := range map[string]float64{
			"forge_cpd_checkpoints": 1, "forge_cpd_active_sessions": 1, "forge_cpd_creates_total": 1, "forge_cpd_healthy": 1,
			`forge_cpd_automatic_total{outcome="taken"}`: 0, "forge_cpd_create_seconds_count": 1, `forge_cpd_create_seconds_bucket{le="+Inf"}`: 1,
			"forge_cpd_restore_seconds_count": 1,
		} {
			if got, ok := series[want]; !ok || got != value {
				t.Errorf("%s: %s is %v (there: %v), want %v", name, want, got, ok, value)
			}
		}
	}
}

package main

import (
	"bytes"
	"os"
	"testing"
)

func TestThePageIsNotStale(t *testing.T) {
	want, err := page()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/api.md is stale: run go generate ./rpc")
	}
}

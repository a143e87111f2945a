# `make help` lists the targets.
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help build run demo test test-race lint fmt

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/forge-cpd
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/forge-cpd ./cmd/forge-cpd

run: build ## build and start the daemon on its defaults
	bin/forge-cpd serve

test: ## run all tests
	$(GO) test ./...

test-race: ## run all tests with the race detector
	$(GO) test -race ./...

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run make fmt"; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

fmt: ## format the code
	gofmt -w .

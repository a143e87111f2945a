# `make help` lists the targets. Only Go and make are needed for build, run, demo and test.
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X main.version=$(VERSION)
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

FUZZTIME ?= 60s
FAULT ?= full
BENCH ?= full
# BENCHFLAGS='-doc ../docs/benchmarks.md' puts the tables into the document.
BENCHFLAGS ?=

DESTDIR ?=
PREFIX ?= /usr/local
# The units belong to systemd's own tree under /usr and to /usr/local/lib otherwise.
UNITDIR ?= $(PREFIX)/lib/systemd

.DEFAULT_GOAL := help
.PHONY: help build run demo test test-race test-fault test-agents test-systemd fuzz bench nightly \
	lint fmt generate install deb test-deb clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/forge-cpd
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/forge-cpd ./cmd/forge-cpd

run: build ## build and start the daemon on its defaults
	bin/forge-cpd serve --welcome

demo: build ## a crash in the middle of a real transcript: what was kept, restored and lost
	$(GO) run ./cmd/forge-cpd/demo bin/forge-cpd

test: ## run all tests; those that need a program that is missing skip and say so
	$(GO) test ./...
	cd bench && $(GO) test ./metrics

test-race: ## run all tests with the race detector
	$(GO) test -race ./...

test-fault: ## crashes, power cuts, failing disks and damage; FAULT=short for the short form
	@# Beside each other, so that those which wait for a disk and those which compute fill the processors.
	FORGE_CPD_FAULT=$(FAULT) $(GO) test -count=1 -timeout 30m -p 4 -parallel 4 -run '^TestFault' ./...
	FORGE_CPD_FAULT=$(FAULT) $(GO) test -race -count=1 -timeout 30m -run '^TestFaultLinear' ./storage

test-agents: build ## the real Claude Code, Codex and Gemini against a model of our own; needs npm
	FORGE_CPD_AGENTS=1 $(GO) test -count=1 -timeout 30m -v -run '^TestAgents' ./...

test-systemd: build ## the units: verified, scored, and run under a real systemd where that is possible
	FORGE_CPD_SYSTEMD=1 $(GO) test -count=1 -timeout 10m -v ./systemd/...

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg || exit 1; \
		done; \
	done

bench: build ## side by side with what it is compared with; BENCH=short for the short form
	@if [ "$(BENCH)" = full ] && command -v npm >/dev/null; then npm ci --silent --prefix bench/langgraph; fi
	mkdir -p dist && cd bench && BENCH=$(BENCH) $(GO) run . -bin ../bin/forge-cpd $(BENCHFLAGS)

nightly: lint test-race test-fault test-agents test-systemd test-deb ## everything, in its long form
	$(MAKE) fuzz FUZZTIME=5m
	$(MAKE) bench

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run make fmt"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fmt: ## format the code
	gofmt -w .

generate: ## write the generated documents anew: schema, example, references
	$(GO) generate ./...

install: build ## install under DESTDIR and PREFIX: binary, units, man pages, completions, example
	packaging=$$(pwd)/systemd/package DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' UNITDIR='$(UNITDIR)' systemd/package/install

deb: ## build dist/forge-cpd_VERSION_ARCH.deb, the same bytes from the same commit
	GO='$(GO)' VERSION='$(VERSION)' systemd/package/build-deb

test-deb: ## install, upgrade, remove and purge the package in a clean Debian tree; needs root and debootstrap
	systemd/package/test-deb

clean: ## remove what was built
	rm -rf bin dist

# opt-rbd: the rbd command for nodes that cannot install it.
# Every target installs what it needs first (scripts/deps); `make help` lists them.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# pacific: the oldest Ceph release whose librbd the one binary must run with.
TAGS := pacific
# urfave/cli's writer of man pages stays out: 350 kB that no command uses.
LEAN := urfave_cli_no_docs
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.1.4

GO_BUILD := go build -trimpath -ldflags '-s -w'
SOURCES := $(shell find cmd internal systemd go.mod go.sum -type f ! -name '*_test.go' 2>/dev/null)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

deps: ## install the Debian packages that are missing, and say which
	@scripts/deps

build: deps bin/rbd bin/shim bin/installer ## bin/rbd, bin/shim, bin/installer

bin/rbd: $(SOURCES) | deps
	CGO_ENABLED=1 $(GO_BUILD) -tags $(TAGS),$(LEAN) -o $@ ./cmd/rbd

bin/shim: $(SOURCES) | deps
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -E opt_rbd_entry' -o $@ ./cmd/shim

bin/installer: $(SOURCES) | deps
	CGO_ENABLED=0 $(GO_BUILD) -tags $(LEAN) -o $@ ./cmd/installer

payload: build bin/payload/payload.json ## bin/payload: what a node gets: rbd and every library it loads

bin/payload/payload.json: bin/rbd
	go run ./cmd/payload --program bin/rbd --out bin/payload

test: build payload images ## every test, on a real cluster, a real node, a real kubelet
	go vet -tags $(TAGS) ./...
	go test -tags $(TAGS) -p 1 -timeout 40m ./...
	go -C test/deploy vet ./... && go -C test/deploy test ./...

demo: build payload images ## the whole story in front of you: no rbd, the error, the installer, the pod's disk
	@go run ./test/demo

bench: build payload images ## costs next to the genuine rbd and the docker-run wrapper
	@go run ./test/bench

images: deps # what the nodes of the tests boot from: built once, then from ~/.cache/opt-rbd
	@go run ./test/lab images

lint: deps ## golangci-lint at its pinned version
	go run $(GOLANGCI_LINT) run --build-tags $(TAGS) ./...

vulncheck: deps ## known vulnerabilities in what we link (needs the Go vulnerability database)
	go run $(GOVULNCHECK) -tags $(TAGS) ./...

image: build ## a ceph-common image with our rbd first on PATH, from Debian packages
	image/build

clean: ## remove bin/ and build/
	rm -rf bin build

.PHONY: help deps build payload images test demo bench lint vulncheck image clean

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

# The CPU to build for, as Go calls it: of this machine, or arm64 (make build payload ARCH=arm64) by Debian's cross
# compiler, with the libraries of a Debian for that CPU in ROOT.
HOST := $(shell go env GOHOSTARCH)
ARCH := $(HOST)
ifeq ($(ARCH),$(HOST))
BIN := bin
ROOT := /
else
BIN := bin/$(ARCH)
ROOT := build/root-$(ARCH)
TARGET := GOARCH=$(ARCH) CC='aarch64-linux-gnu-gcc --sysroot=$(CURDIR)/$(ROOT)'
endif

# What image/build goes by.
export ARCH IMAGE_BASE BUILDER

SYFT := github.com/anchore/syft/cmd/syft@v1.57.0

GO_BUILD := $(TARGET) go build -trimpath -ldflags '-s -w'
SOURCES := $(shell find cmd internal share systemd go.mod go.sum -type f ! -name '*_test.go' 2>/dev/null)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

deps: ## install the Debian packages that are missing, and say which
	@scripts/deps $(filter-out $(HOST),$(ARCH))

build: deps $(BIN)/rbd $(BIN)/shim $(BIN)/installer ## bin/rbd, bin/shim, bin/installer; ARCH=arm64: in bin/arm64

# The libraries that a program for another CPU is linked with: unpacked, none of their programs is run.
build/root-%: | deps
	rm -rf $@.new && mkdir -p build
	mmdebstrap --quiet --mode=root --variant=extract --architectures=$* --include=librbd-dev,librados-dev,libc6-dev,kmod \
		--aptopt='Apt::Install-Recommends "false"' bookworm $@.new
	echo 'include /etc/ld.so.conf.d/*.conf' >$@.new/etc/ld.so.conf
	mv $@.new $@

$(BIN)/rbd: $(SOURCES) | deps $(filter build/%,$(ROOT))
	CGO_ENABLED=1 $(GO_BUILD) -tags $(TAGS),$(LEAN) -o $@ ./cmd/rbd

$(BIN)/shim: $(SOURCES) | deps
	CGO_ENABLED=0 $(TARGET) go build -trimpath -ldflags '-s -w -E opt_rbd_entry' -o $@ ./cmd/shim

$(BIN)/installer: $(SOURCES) | deps
	CGO_ENABLED=0 $(GO_BUILD) -tags $(LEAN) -o $@ ./cmd/installer

payload: build $(BIN)/payload/payload.json ## bin/payload: what a node gets: rbd and every library it loads

# SOURCES are here for cmd/payload's own: what rbd is made of may be the same when what is put beside it is not.
$(BIN)/payload/payload.json: $(BIN)/rbd $(SOURCES)
	go run ./cmd/payload --root $(ROOT) --program $(BIN)/rbd --out $(BIN)/payload

sysext: payload ## bin/opt-rbd.raw: rbd in /usr/bin by systemd-sysext, instead of files in /opt
	go run ./cmd/sysext -bin $(BIN)

arm64: # what test/image starts
	@$(MAKE) --no-print-directory build payload ARCH=arm64

test: build payload sysext arm64 images ## every test but the long ones, on a real cluster, a real node, a real kubelet
	go vet -tags $(TAGS) ./...
	# By itself, in its folder: only so what passes is heard, here how many points of interruption were tried.
	go -C internal/node test -tags $(TAGS) -timeout 40m
	go test -tags $(TAGS) -p 1 -timeout 40m $$(go list -tags $(TAGS) ./... | grep -v '/internal/node$$')
	go -C test/deploy vet ./... && go -C test/deploy test ./...
	go -C test/butane vet ./... && go -C test/butane test ./...

demo: build payload images ## the whole story in front of you: no rbd, the error, the installer, the pod's disk
	@go run ./test/demo

bench: build payload images ## costs next to the genuine rbd and the docker-run wrapper
	@go run -tags $(TAGS) ./test/bench

images: deps # what the nodes of the tests boot from: built once, then from ~/.cache/opt-rbd
	@go run ./test/lab images

lint: deps ## golangci-lint at its pinned version
	go run $(GOLANGCI_LINT) run --build-tags $(TAGS) ./...

vulncheck: deps ## known vulnerabilities in what we link (needs the Go vulnerability database)
	go run $(GOVULNCHECK) -tags $(TAGS) ./...

image: build ## bin/ceph-common.tar for docker load, from Debian packages; IMAGE_BASE=debian:trixie: by docker or podman on that base
	image/build

test-full: test test-long ## make test, and what takes long

test-long: image-test ## the image, every way to fail at every change, and other releases of Ceph (1 GB of packages)
	go test -tags $(TAGS),full -run InEachWay -timeout 30m ./internal/node
	go test -tags $(TAGS),matrix -count=1 -v -timeout 60m ./test/matrix

image-test: image ## a second build has the same digest; podman runs the image, and builds it by the Containerfile
	go test -tags $(TAGS),image -run 'Reproducible|TestRun' -timeout 40m ./test/image

sbom: image ## bin/ceph-common.spdx.json: every package and module in the image
	go run $(SYFT) scan docker-archive:bin/ceph-common.tar --source-name ceph-common -o spdx-json=bin/ceph-common.spdx.json

clean: ## remove bin/ and build/
	rm -rf bin build

.PHONY: help deps build payload sysext arm64 images test test-full test-long demo bench lint vulncheck image image-test sbom clean

module github.com/opt-rbd/opt-rbd

go 1.26.0

// The product.
require (
	github.com/aymanbagabas/go-udiff v0.4.1 // the diffs of installer plan
	github.com/ceph/go-ceph v0.41.0
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/fsnotify/fsnotify v1.10.1 // changes of the node's files, for installer run
	github.com/godbus/dbus/v5 v5.2.2 // the values in which systemd answers: go-systemd gives some as text
	github.com/urfave/cli/v2 v2.27.7
	golang.org/x/sync v0.25.0 // headers of many images at once, bounded
	golang.org/x/sys v0.50.0 // the kernel keyring, uevents, mounts
	golang.org/x/term v0.48.0 // whether there is a terminal for a bar, and how wide it is
)

// The container image.
require github.com/google/go-containerregistry v0.22.1

// Tests and the demo.
require (
	github.com/google/go-cmp v0.7.0
	github.com/schollz/progressbar/v3 v3.19.1 // the spinner of make demo
	go.yaml.in/yaml/v3 v3.0.4 // YAML in the documentation
	mvdan.cc/sh/v3 v3.12.0 // commands in the documentation
)

require (
	github.com/cpuguy83/go-md2man/v2 v2.0.7 // indirect
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/xrash/smetrics v0.0.0-20240521201337-686a1a2994c1 // indirect
)

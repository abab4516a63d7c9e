// Package krbd maps and unmaps images through the rbd driver of the Linux
// kernel: one line written to /sys/bus/rbd, the secret handed over in a kernel
// keyring, and udev's word that the device is ready.
//
// It needs neither cgo nor a connection to the cluster. It is not the place
// for what a cluster must be asked (monitors, keys, features of an image): a
// caller brings that along in a [Request].
package krbd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// How long udev may take, where the caller sets no other limit. A map has to
// hand out a device whose links and permissions are there, so it waits long;
// after an unmap there is only cleaning up left to wait for.
const (
	MapWait   = 60 * time.Second
	UnmapWait = 10 * time.Second
)

// Host is the machine whose kernel is spoken to. The zero value is this one.
type Host struct {
	// Root is a folder that stands for "/": sys, dev and run are looked up in
	// it. Empty means the real ones.
	Root string
	// Stderr gets warnings, each a line that starts with "rbd: ", and what
	// modprobe has to say. Nil drops them.
	Stderr io.Writer
	// Wait overrides MapWait and UnmapWait where it is not zero.
	Wait time.Duration
}

func (h Host) path(p string) string { return filepath.Join(cmp.Or(h.Root, "/"), p) }

func (h Host) warn(text string) {
	if h.Stderr != nil {
		fmt.Fprintln(h.Stderr, "rbd: "+text)
	}
}

func (h Host) wait(def time.Duration) time.Duration {
	if h.Wait != 0 {
		return h.Wait
	}
	return def
}

// Monitor is one address of a monitor. A monitor that speaks both versions of
// the messenger protocol has one for each.
type Monitor struct {
	Addr  netip.AddrPort
	Msgr2 bool // the address of the second version of the protocol
}

// Request is what a map needs.
type Request struct {
	Spec     spec.Spec
	Monitors []Monitor
	// ID is the name of the Ceph user, without "client.".
	ID string
	// Secret is the user's key. The zero value means that there is none in any
	// keyring file; the kernel's own keyrings are then looked into, and a
	// cluster without authentication needs none.
	Secret  Secret
	Options MapOptions
}

// Device is a mapped image.
type Device struct {
	ID           int // the N of /sys/bus/rbd/devices/N
	Spec         spec.Spec
	Major, Minor uint32
	Path         string // the device node: /dev/rbdN
}

// Map maps an image and returns its device once udev is done with it.
//
// The part of the kernel cannot be interrupted; the option mount_timeout
// bounds it. The wait for udev ends with ctx or after [MapWait], whichever is
// first. An error is always a [*Error]; where the kernel has the device all
// the same, the error names it.
func (h Host) Map(ctx context.Context, req Request) (Device, error) {
	if err := ctx.Err(); err != nil {
		return Device{}, &Error{Text: err.Error(), Errno: errnoOf(err)}
	}
	if err := req.check(); err != nil {
		return Device{}, err
	}
	h.loadModule(ctx)
	for _, d := range h.devices() {
		if d.Spec == req.Spec {
			h.warn(textAlreadyMapped(d.Path))
			break
		}
	}

	var mon *monitor
	if !req.Options.noudev() {
		// Opened before the write, or the event could be missed. Without a
		// monitor (no netlink in this sandbox) udev's database says the same,
		// only later.
		mon, _ = openMonitor(monitorBuffer)
		defer mon.Close()
	}

	since := time.Now()
	line, err := h.add(mon, req)
	if err != nil {
		return Device{}, err
	}
	dev, err := h.findAdded(line, req.Spec)
	if err != nil {
		return Device{}, err
	}
	if !req.Options.noudev() {
		if err := h.awaitUdev(ctx, mon, "add", dev, h.diskseq(dev), since, h.wait(MapWait)); err != nil {
			return dev, &Error{Text: textUdevWait, Hint: hintUdevAdd(dev.Path, err), Errno: errnoOf(err), Device: dev.Path}
		}
	}
	if err := h.checkNode(dev); err != nil {
		return dev, err
	}
	return dev, nil
}

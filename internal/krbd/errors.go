package krbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// Error is a failed map or unmap.
type Error struct {
	// Text says which step failed, in the words of the genuine tool, without
	// its "rbd: " in front. It can be empty.
	Text string
	// Hint says what to do about it. It can be empty.
	Hint string
	// Errno is the reason, and the exit status of a command.
	Errno syscall.Errno
	// Device is the device node that the kernel has in spite of the failure,
	// or empty.
	Device string
	// Err is ErrLost or nil.
	Err error
}

// ErrLost is in the error of a map that the kernel has done, where it cannot
// be told which device it made.
var ErrLost = errors.New("the device cannot be told")

func (e *Error) Error() string {
	if e.Text == "" {
		return errno.Text(e.Errno)
	}
	return e.Text + ": " + errno.Text(e.Errno)
}

func (e *Error) Unwrap() []error {
	if e.Err != nil {
		return []error{e.Errno, e.Err}
	}
	return []error{e.Errno}
}

// errnoOf is the number that stands for err in an exit status; EIO where it
// has none of its own.
func errnoOf(err error) syscall.Errno {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, context.Canceled):
		return syscall.ECANCELED
	}
	return syscall.EIO
}

// The words that go to a terminal, in one place. Scripts and other programs
// match them: they are the genuine tool's, and only hints are our own.
const (
	textSysfsWrite = "sysfs write failed"
	textUdevWait   = "udev wait failed"
	textNoMonitor  = "failed to get mon address (possible ms_mode mismatch)"
)

func textModule(status int) string {
	return fmt.Sprintf("failed to load rbd kernel module (%d)", status)
}
func textAlreadyMapped(dev string) string { return "warning: image already mapped as " + dev }
func textAddSecret(key string) string     { return fmt.Sprintf("failed to add secret '%s' to kernel", key) }
func textNoNode(dev string) string {
	return fmt.Sprintf("mapping succeeded but %s is not accessible, is host /dev mounted?", dev)
}
func textWrongNode(dev string, major, minor, wantMajor, wantMinor uint32) string {
	return fmt.Sprintf("mapping succeeded but %s (%d:%d) does not match expected %d:%d", dev, major, minor, wantMajor, wantMinor)
}
func textNotBlock(dev string) string   { return fmt.Sprintf("'%s' is not a block device", dev) }
func textNotRbd(dev string) string     { return fmt.Sprintf("'%s' is not an rbd device", dev) }
func textNotMapped(s spec.Spec) string { return s.String() + ": not a mapped image or snapshot" }
func textMappedTwice(s spec.Spec, dev string) string {
	return fmt.Sprintf("%s: mapped more than once, unmapping %s only", s, dev)
}
func textOptionValue(key string) string        { return key + " option requires a value" }
func textOptionInvalid(key, val string) string { return fmt.Sprintf("invalid %s value '%s'", key, val) }
func textOptionUnknown(kind, key string) string {
	return fmt.Sprintf("unknown %s option '%s'", kind, key)
}

// hintAdd says what the kernel most likely means by an error number.
func hintAdd(e syscall.Errno, r Request, mons string, driver bool) string {
	switch e {
	case syscall.ENOENT:
		if !driver {
			return "the kernel has no rbd driver: load the module rbd"
		}
		return "the cluster has no such pool, namespace, image or snapshot"
	case syscall.EACCES:
		return "the cluster refused the key of client." + r.ID + ": compare it with ceph auth get client." + r.ID
	case syscall.EPERM:
		return "mapping takes root with CAP_SYS_ADMIN on the host, and client." + r.ID + " the capabilities mon 'profile rbd' and osd 'profile rbd'"
	case syscall.ETIMEDOUT:
		return "no monitor of " + mons + " answered this host in time: see that it reaches them, and that ms_mode suits the ports"
	case syscall.EROFS:
		return "another client has the image mapped exclusively, or the mapping would have to write to what is read-only"
	case syscall.EINVAL:
		return "the kernel does not know one of the options, or its value: see dmesg"
	}
	return ""
}

func hintBusy(dev string, users []string) string {
	if len(users) == 0 {
		return dev + " is in use by a process or in another mount namespace; fuser -v " + dev + " can tell, and -o force unmaps it all the same"
	}
	return dev + " is in use: " + strings.Join(users, ", ")
}

func hintUdevAdd(dev string, err error) string {
	return fmt.Sprintf("%s is mapped, but udev did not report it (%v): see that systemd-udevd runs and that this process is in the host's network namespace, or map with -o noudev", dev, err)
}

// What a failed command ends with, before a colon and the error number: see
// errno.Wrap.
const (
	MapFailed   = "map failed"
	UnmapFailed = "unmap failed"
	ListFailed  = "device list failed"
)

// Syslog is the line that follows every failed map on stdout.
const Syslog = `In some cases useful info is found in syslog - try "dmesg | tail".`

// features are the names of the bits in a mask of image features. The kernel's
// supported_features is such a mask.
var features = []string{
	"layering", "striping", "exclusive-lock", "object-map", "fast-diff", "deep-flatten",
	"journaling", "data-pool", "operations", "migrating", "non-primary", "dirty-cache",
}

// changeable are those that a user can take from an image: exclusive-lock,
// object-map, fast-diff, deep-flatten and journaling.
const changeable = 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6

// Mismatch is the line that follows on stdout where a map failed with ENXIO.
// image is the mask of the image's features, and supported that of
// [Host.SupportedFeatures], 0 where it is not known. name is the image's spec
// as a user types it, without a default pool.
func Mismatch(name string, image, supported uint64) string {
	const mismatch = "RBD image feature set mismatch. "
	if supported == 0 {
		return mismatch + `Try disabling features unsupported by the kernel with "rbd feature disable".`
	}
	missing := image &^ supported
	if fixed := missing &^ changeable; fixed != 0 {
		return mismatch + "This image cannot be mapped because the following immutable features are unsupported by the kernel:" + featureNames(fixed) + "."
	}
	return mismatch + `You can disable features unsupported by the kernel with "rbd feature disable ` + name + featureNames(missing) + `".`
}

// featureNames puts a space before each name.
func featureNames(mask uint64) (s string) {
	for bit, name := range features {
		if mask&(1<<bit) != 0 {
			s += " " + name
		}
	}
	return s
}

// What the genuine tool says of command lines that it refuses or ignores a
// part of.
const (
	UnmapNeedsName = "unmap requires either image name or device path"
	BadMap         = "couldn't parse map options"
	BadUnmap       = "couldn't parse unmap options"
	BadDefaults    = "couldn't parse default map options"
	NoQuiesce      = "warning: quiesce is not supported"
	NoQuiesceHook  = "warning: quiesce-hook is not supported"
)

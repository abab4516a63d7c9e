package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// hints says what to do about an error, in no, one or more lines. They are
// printed after the lines of the genuine tool, and only on failures.
func hints(c *call, err error) []string {
	var lines []string
	for _, hint := range []func(*call, error) []string{connectHints, deviceHints, imageHints} {
		lines = append(lines, hint(c, err)...)
	}
	return lines
}

// connectHints explains why a cluster does not take this client.
func connectHints(c *call, err error) []string {
	if !errors.Is(err, ceph.ErrConnect) {
		return nil
	}
	name := c.cluster.Name()
	if errors.Is(err, ceph.ErrKey) {
		return []string{ceph.ErrKey.Error()}
	}
	if c.cluster.Config("mon_host") == "" {
		return []string{"no monitor is known: give them with -m, or in the mon_host of a ceph.conf (-c)"}
	}
	switch errno.Code(err) {
	case syscall.EACCES, syscall.EPERM:
		return []string{fmt.Sprintf("the monitors refused %s: compare its key here with \"ceph auth get %s\"", name, name)}
	case syscall.ENOENT, syscall.EOPNOTSUPP:
		return []string{fmt.Sprintf("no key for %s: give it with --keyring or --keyfile; looked in %s", name, c.cluster.Config("keyring"))}
	case syscall.ETIMEDOUT, syscall.EINVAL, syscall.EHOSTUNREACH:
		return monitorHints(c)
	}
	return nil
}

// monitorHints tries every monitor and names those that do not answer.
func monitorHints(c *call) []string {
	monitors, err := c.cluster.Monitors()
	if err != nil {
		return []string{err.Error()}
	}
	lines := make([]string, len(monitors))
	var group sync.WaitGroup
	for i, m := range monitors {
		group.Go(func() {
			conn, err := net.DialTimeout("tcp", m.Addr.String(), 2*time.Second)
			if err != nil {
				lines[i] = fmt.Sprintf("monitor %s cannot be reached: %v", m.Addr, reason(err))
				return
			}
			conn.Close()
			lines[i] = fmt.Sprintf("monitor %s can be reached, but did not answer in time", m.Addr)
		})
	}
	group.Wait()
	return lines
}

// reason is an error of the network without what was dialled, which the line
// has already.
func reason(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no answer")
	}
	return err
}

// deviceHints explains what keeps the kernel from mapping.
func deviceHints(_ *call, err error) []string {
	var own *krbd.Error
	if !errors.As(err, &own) {
		return nil
	}
	if own.Hint != "" {
		return []string{own.Hint}
	}
	if _, err := os.Stat("/sys/bus/rbd"); errors.Is(err, os.ErrNotExist) && own.Errno == syscall.ENOENT {
		return []string{"this kernel has no rbd: load the module on the host (modprobe rbd), or install the package of kernel modules that has it"}
	}
	return nil
}

// imageHints explains what keeps an image from being changed or removed, and
// what a client that may not do something lacks.
func imageHints(c *call, err error) []string {
	command := c.line.Command
	switch code := errno.Code(err); {
	case code == syscall.EBUSY && command == &removeCommand.Command:
		return aboutImage(c, watcherHints)
	case code == syscall.ENOTEMPTY && command == &removeCommand.Command:
		return aboutImage(c, snapHints)
	case code == syscall.EINVAL && command == &resizeCommand.Command && !c.Bool("allow-shrink"):
		return aboutImage(c, shrinkHints)
	case code == syscall.EPERM && fromCluster(err) && !errors.Is(err, ceph.ErrConnect):
		name := c.cluster.Name()
		return []string{fmt.Sprintf("%s lacks the capability: see \"ceph auth get %s\"; for images it is mon 'profile rbd' osd 'profile rbd pool=NAME'", name, name)}
	}
	return nil
}

// fromCluster says that an error is an answer of librados or librbd, not a
// mistake in the line that has the same number.
func fromCluster(err error) bool {
	var own *errno.Error
	return !errors.As(err, &own) || own.Err != nil
}

// aboutImage opens the image of the line once more and asks it. Without an
// answer there is no hint.
func aboutImage(c *call, ask func(*call, spec.Spec, *rbd.Image) []string) []string {
	c.next = 0
	s, err := c.spec(spec.Form{})
	if err != nil {
		return nil
	}
	image, err := c.open(s, true)
	if err != nil {
		return nil
	}
	defer image.Close()
	return ask(c, s, image)
}

// watcherHints names the clients that have an image open.
func watcherHints(_ *call, _ spec.Spec, image *rbd.Image) []string {
	watchers, err := image.ListWatchers()
	if err != nil {
		return nil
	}
	var lines []string
	for _, w := range watchers {
		lines = append(lines, fmt.Sprintf("client.%d at %s has it open: unmap or close it there; "+
			"if that host is gone for good, \"ceph osd blocklist add %s\" frees it", w.Id, w.Addr, w.Addr))
	}
	return lines
}

// snapHints names the snapshots that keep an image from being removed, and
// whether clones or protection keep them in turn.
func snapHints(_ *call, s spec.Spec, image *rbd.Image) []string {
	snaps, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == rbd.SnapNamespaceTypeUser })
	if err != nil {
		return nil
	}
	var lines []string
	for _, snap := range snaps {
		if protected, err := image.GetSnapshot(snap.Name).IsProtected(); err == nil && protected {
			s.Snap = snap.Name
			lines = append(lines, fmt.Sprintf("snapshot %s is protected: \"rbd snap unprotect %s\" comes first", snap.Name, s))
		}
	}
	if _, children, err := image.ListChildren(); err == nil && len(children) > 0 {
		lines = append(lines, "clones of it: "+strings.Join(children, ", "))
	}
	return lines
}

// shrinkHints says what a smaller size would cost.
func shrinkHints(c *call, _ spec.Spec, image *rbd.Image) []string {
	wanted, err := c.size()
	if err != nil {
		return nil
	}
	size, err := image.GetSize()
	if err != nil || size <= wanted {
		return nil
	}
	return []string{fmt.Sprintf("the image has %s: what lies beyond %s would be lost, so shrink the file system first", output.Size(size), output.Size(wanted))}
}

package krbd

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// pause is what the genuine tool waits before it asks the kernel again.
const pause = 250 * time.Millisecond

// UnmapDevice unmaps the device whose node is path, or the disk of the
// partition whose node it is. An error is always a [*Error].
func (h Host) UnmapDevice(ctx context.Context, path string, opts UnmapOptions) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return &Error{Text: textNotBlock(path), Errno: syscall.EINVAL}
	}
	d, err := h.byNumber(unix.Major(st.Rdev), unix.Minor(st.Rdev))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{Text: textNotRbd(path), Errno: syscall.EINVAL}
	case err != nil:
		return &Error{Text: textNotRbd(path), Errno: errnoOf(err)}
	}
	return h.unmap(ctx, d, opts)
}

// UnmapSpec unmaps the device that want is mapped as; where there are several,
// the first one, with a warning. An error is always a [*Error].
func (h Host) UnmapSpec(ctx context.Context, want spec.Spec, opts UnmapOptions) error {
	var found []Device
	// A listing of a folder that others change meanwhile can miss an entry.
	for try := range 3 {
		if try > 0 && !sleep(ctx, pause) {
			break
		}
		for _, d := range h.devices() {
			if d.Spec == want {
				found = append(found, d)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	if len(found) == 0 {
		return &Error{Text: textNotMapped(want), Errno: syscall.EINVAL}
	}
	if len(found) > 1 {
		h.warn(textMappedTwice(want, found[0].Path))
	}
	return h.unmap(ctx, found[0], opts)
}

func (h Host) unmap(ctx context.Context, d Device, opts UnmapOptions) error {
	var mon *monitor
	if !opts.noudev() {
		mon, _ = openMonitor(monitorBuffer)
		defer mon.Close()
	}
	seq, since := h.diskseq(d), time.Now()
	line := strconv.Itoa(d.ID)
	if o := opts.String(); o != "" {
		line += " " + o
	}
	err := h.write("remove", line)
	// Right after a map or a last close udev has the device open for a moment,
	// to look at what is on it.
	for try := 0; errors.Is(err, unix.EBUSY) && try < 2; try++ {
		if try == 0 {
			sleep(ctx, pause)
		} else if !opts.noudev() {
			h.settle(ctx, 10*time.Second)
		}
		err = h.write("remove", line)
	}
	if err != nil {
		e := &Error{Text: textSysfsWrite, Errno: errnoOf(err), Device: d.Path}
		if e.Errno == syscall.EBUSY {
			e.Hint = hintBusy(d.Path, h.users(d))
		}
		return e
	}
	if opts.noudev() {
		return nil
	}
	// It is unmapped, whatever udev has still to clean up.
	if err := h.awaitUdev(ctx, mon, "remove", d, seq, since, h.wait(UnmapWait)); err != nil {
		h.warn(textUdevWait + ": " + errno.Text(errnoOf(err)))
	}
	return nil
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

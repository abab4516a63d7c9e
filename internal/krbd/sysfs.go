package krbd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/spec"
)

const bus = "sys/bus/rbd"

// List returns the mapped devices in the genuine tool's order, which is that of
// their ids as text: 10 comes before 2. Without the rbd module there are none.
func (h Host) List() ([]Device, error) {
	_, err := os.ReadDir(h.path(bus + "/devices"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Errno: errnoOf(err)}
	}
	return h.devices(), nil
}

// devices reads what is mapped, in the order of os.ReadDir; a device that goes away meanwhile is left out.
func (h Host) devices() []Device {
	entries, _ := os.ReadDir(h.path(bus + "/devices"))
	var list []Device
	for _, e := range entries {
		if d, err := h.device(e.Name()); err == nil {
			list = append(list, d)
		}
	}
	return list
}

func (h Host) device(id string) (Device, error) {
	n, err := strconv.Atoi(id)
	if err != nil {
		return Device{}, err
	}
	attr := func(name string) string {
		text, e := h.attr(id, name)
		if e != nil && err == nil {
			err = e
		}
		return text
	}
	number := func(name string) uint32 {
		v, e := strconv.ParseUint(attr(name), 10, 32)
		if e != nil && err == nil {
			err = e
		}
		return uint32(v)
	}
	d := Device{
		ID:    n,
		Spec:  spec.Spec{Pool: attr("pool"), Image: attr("name"), Snap: attr("current_snap")},
		Major: number("major"),
		Path:  "/dev/rbd" + id,
	}
	if d.Spec.Snap == head {
		d.Spec.Snap = ""
	}
	if err != nil {
		return Device{}, err
	}
	// Kernels before 3.14 have no minor (each device has its own major), those
	// before 4.19 no namespaces.
	if minor, e := h.attr(id, "minor"); e == nil {
		v, _ := strconv.ParseUint(minor, 10, 32)
		d.Minor = uint32(v)
	}
	d.Spec.Namespace, _ = h.attr(id, "pool_ns")
	return d, nil
}

// attr reads one attribute of a device. Names can end in spaces, so only the
// newline of the kernel's goes.
func (h Host) attr(id, name string) (string, error) {
	b, err := os.ReadFile(h.path(bus + "/devices/" + id + "/" + name))
	return strings.TrimSuffix(string(b), "\n"), err
}

// SupportedFeatures is the mask of image features that this kernel can map.
// The error is fs.ErrNotExist where it does not say (before Linux 4.11, or
// without the module).
func (h Host) SupportedFeatures() (uint64, error) {
	b, err := os.ReadFile(h.path(bus + "/supported_features"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 0, 64)
}

// write gives the kernel one line in one write: what is not taken at once must
// not be sent as a second line, as os.File would. A kernel whose devices share
// a major number has NAME_single_major beside NAME, and wants it.
func (h Host) write(name, line string) error {
	fd, err := unix.Open(h.path(bus+"/"+name+"_single_major"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		fd, err = unix.Open(h.path(bus+"/"+name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Write(fd, []byte(line))
	if err == nil && n != len(line) {
		err = unix.E2BIG
	}
	return err
}

// checkNode makes sure that the device node is there and is the right one: in
// a container /dev need not be the host's.
func (h Host) checkNode(d Device) error {
	var st unix.Stat_t
	if err := unix.Stat(h.path(d.Path), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return &Error{Text: textNoNode(d.Path), Errno: syscall.EINVAL, Device: d.Path}
	}
	major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
	if major != d.Major || minor != d.Minor {
		return &Error{Text: textWrongNode(d.Path, major, minor, d.Major, d.Minor), Errno: syscall.EINVAL, Device: d.Path}
	}
	return nil
}

// byNumber finds the device that a block device number belongs to; a
// partition belongs to its disk's.
func (h Host) byNumber(major, minor uint32) (Device, error) {
	dir, err := filepath.EvalSymlinks(h.path(fmt.Sprintf("sys/dev/block/%d:%d", major, minor)))
	if err != nil {
		return Device{}, err
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	parent, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
	if err != nil {
		return Device{}, err
	}
	mapped, err := filepath.EvalSymlinks(h.path(bus + "/devices/" + filepath.Base(parent)))
	if err != nil {
		return Device{}, err
	}
	if mapped != parent {
		return Device{}, fs.ErrNotExist
	}
	return h.device(filepath.Base(parent))
}

// diskseq is the number that the kernel gives each disk only once (Linux 5.15
// and later), or empty: it tells a device from one of the same name before it.
func (h Host) diskseq(d Device) string {
	b, _ := os.ReadFile(h.path(fmt.Sprintf("sys/dev/block/%d:%d/diskseq", d.Major, d.Minor)))
	return strings.TrimSpace(string(b))
}

// users says what holds the disk of d or its partitions: mounts of this mount
// namespace, and devices on top such as LVM's.
func (h Host) users(d Device) (list []string) {
	disk := h.path(fmt.Sprintf("sys/dev/block/%d:%d", d.Major, d.Minor))
	var numbers []string
	partitions, _ := filepath.Glob(disk + "/*/dev")
	for _, path := range append(partitions, disk+"/dev") {
		b, _ := os.ReadFile(path)
		numbers = append(numbers, strings.TrimSpace(string(b)))
	}
	mounts, _ := Mounts(h.path("proc/self/mountinfo"))
	for _, m := range mounts {
		if slices.Contains(numbers, m.Number) {
			list = append(list, "mounted on "+m.Point)
		}
	}
	for _, pattern := range []string{"/holders/*", "/*/holders/*"} {
		holders, _ := filepath.Glob(disk + pattern)
		for _, path := range holders {
			list = append(list, "part of /dev/"+filepath.Base(path))
		}
	}
	return list
}

// Mount is a line of a file mountinfo.
type Mount struct {
	Number string // MAJOR:MINOR; of some file systems not that of a device
	Point  string
	Source string
}

// Mounts reads the file mountinfo of a process, in the order of mounting.
func Mounts(mountinfo string) ([]Mount, error) {
	text, err := os.ReadFile(mountinfo)
	var list []Mount
	for line := range strings.Lines(string(text)) {
		// ID, parent, MAJOR:MINOR, root, mount point, options, ... - type source options: see proc_pid_mountinfo(5)
		before, after, _ := strings.Cut(line, " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(source) > 1 {
			list = append(list, Mount{fields[2], unescape(fields[4]), unescape(source[1])})
		}
	}
	return list, err
}

// unescape reads the octal numbers that mountinfo has for white space and \.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

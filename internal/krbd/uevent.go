package krbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groupUdev is the multicast group in which udevd sends events on when it is
// done with them. (The kernel's own, in group 1, say nothing that a write to
// sysfs has not said by returning: the device and its node are there.)
const groupUdev = 2

// monitorBuffer is the socket's buffer in bytes: every monitor gets the events
// of all disks, also while its process has no time to read them.
const monitorBuffer = 2 << 20

// event is one uevent: the properties that the kernel and udev gave it.
type event map[string]string

// block reports whether e is about the whole disk of d; seq is d's diskseq.
func (e event) block(d Device, seq string) bool {
	return e["SUBSYSTEM"] == "block" &&
		e["MAJOR"] == fmt.Sprint(d.Major) && e["MINOR"] == fmt.Sprint(d.Minor) &&
		(seq == "" || e["DISKSEQ"] == "" || e["DISKSEQ"] == seq)
}

// A message of udevd is "libudev\0", a header of 32-bit numbers, and behind it
// the properties as KEY=VALUE\0. Numbers are in the machine's byte order but
// for the magic and the hashes, which a filter in the kernel compares.
const (
	prefix       = "libudev\x00"
	magicAt      = 8
	propertiesAt = 16 // the offset of the properties, then their size
	subsystemAt  = 24 // a hash of SUBSYSTEM, then one of DEVTYPE
	headerSize   = 40
	magic        = 0xfeedcafe
	hashOfBlock  = 0xf0031db7
	hashOfDisk   = 0x7bcbc5ee
)

// parseEvent reads a message of udevd.
func parseEvent(msg []byte) (event, bool) {
	if len(msg) < headerSize || !bytes.HasPrefix(msg, []byte(prefix)) || binary.BigEndian.Uint32(msg[magicAt:]) != magic {
		return nil, false
	}
	at := uint64(binary.NativeEndian.Uint32(msg[propertiesAt:]))
	size := uint64(binary.NativeEndian.Uint32(msg[propertiesAt+4:]))
	if at > uint64(len(msg)) || size > uint64(len(msg))-at {
		return nil, false
	}
	msg = msg[at : at+size]
	e := event{}
	for prop := range bytes.SplitSeq(msg, []byte{0}) {
		if key, value, ok := strings.Cut(string(prop), "="); ok && key != "" {
			e[key] = value
		}
	}
	return e, len(e) > 0
}

// monitor listens to uevents. A nil monitor hears nothing.
//
// It keeps the events of rbd disks since it was opened. There are events of a
// device on the rbd bus too, but udevd does not start on a disk before it is
// done with the device above it.
type monitor struct {
	file   *os.File
	conn   syscall.RawConn
	buf    []byte
	events []event
	lost   bool // the buffer ran full: events are missing
}

// onlyDisks has the kernel drop every event but those of whole disks, so that
// of many programs that wait at once each wakes only for what can be its own.
var onlyDisks = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: subsystemAt},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: hashOfBlock},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: subsystemAt + 4},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: hashOfDisk},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

func openMonitor(buffer int) (*monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "uevents")
	// FORCE goes beyond net.core.rmem_max and needs CAP_NET_ADMIN.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(onlyDisks)), Filter: &onlyDisks[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupUdev})
	}
	conn, e := f.SyscallConn()
	// A socket without deadlines could not be given up.
	if err = errors.Join(err, e, f.SetReadDeadline(time.Time{})); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &monitor{file: f, conn: conn, buf: make([]byte, 64<<10)}, nil
}

func (m *monitor) Close() {
	if m != nil {
		_ = m.file.Close()
	}
}

// wake ends a read that is going on or the next one.
func (m *monitor) wake() {
	if m != nil {
		_ = m.file.SetReadDeadline(time.Unix(1, 0))
	}
}

// collect reads events until wake is called or something is wrong with the
// socket.
func (m *monitor) collect() {
	for m.read() == nil {
	}
}

// read waits for one event and keeps it if it is of an rbd disk. It fails with
// os.ErrDeadlineExceeded; that events were lost is noted and not an error.
func (m *monitor) read() error {
	if m == nil {
		return errors.ErrUnsupported
	}
	var n int
	var from unix.Sockaddr
	var err error
	if e := m.conn.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), m.buf, 0)
		return err != unix.EAGAIN
	}); e != nil {
		return e
	}
	switch {
	case err == unix.ENOBUFS:
		m.lost = true
		return nil
	case err == unix.EINTR:
		return nil
	case err != nil:
		return err
	}
	// Only root may send to a group; anything else is not an event.
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Groups == 0 {
		return nil
	}
	if e, ok := parseEvent(m.buf[:n]); ok && e["SUBSYSTEM"] == "block" && strings.HasPrefix(e["DEVPATH"], "/devices/rbd/") {
		m.events = append(m.events, e)
	}
	return nil
}

// awaitUdev waits until udev has reported action ("add" or "remove") for the
// disk of d, seq being its diskseq and since the time before the kernel was
// told.
//
// Beside the events it looks at udev's database, where the same can be read a
// little later: that is what is left where events were lost, and where none
// arrive because they are sent in the initial network namespace only.
func (h Host) awaitUdev(ctx context.Context, mon *monitor, action string, d Device, seq string, since time.Time, wait time.Duration) error {
	end := time.Now().Add(wait)
	for seen := 0; ; {
		deaf := mon == nil || mon.lost
		for ; mon != nil && seen < len(mon.events); seen++ {
			if e := mon.events[seen]; e["ACTION"] == action && e.block(d, seq) {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(end) {
			if h.udevRecorded(action, d, since) { // and busy with something else
				return nil
			}
			return fmt.Errorf("waited %v: %w", wait, syscall.ETIMEDOUT)
		}
		if deaf {
			if h.udevDone(action, d, since) {
				return nil
			}
			time.Sleep(min(50*time.Millisecond, end.Sub(now)))
			continue
		}
		_ = mon.file.SetReadDeadline(now.Add(min(250*time.Millisecond, end.Sub(now))))
		switch err := mon.read(); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if h.udevDone(action, d, since) {
				return nil
			}
		case err != nil:
			mon.lost = true
		}
	}
}

// udevDone reports whether udev has dealt with the disk of d and has nothing
// left to do.
func (h Host) udevDone(action string, d Device, since time.Time) bool {
	return !h.udevBusy() && h.udevRecorded(action, d, since)
}

// udevRecorded reports whether udev's database says that the disk of d came or
// went. It does so before the programs of the rules have run.
func (h Host) udevRecorded(action string, d Device, since time.Time) bool {
	st, err := os.Stat(h.path(fmt.Sprintf("run/udev/data/b%d:%d", d.Major, d.Minor)))
	if action == "remove" {
		return errors.Is(err, fs.ErrNotExist)
	}
	// A record from before is of another device with the same number. The
	// clock of file times is some milliseconds behind.
	return err == nil && st.ModTime().After(since.Add(-20*time.Millisecond))
}

// udevBusy reports whether udevd has events in hand: /run/udev/queue is there
// that long.
func (h Host) udevBusy() bool {
	_, err := os.Stat(h.path("run/udev/queue"))
	return err == nil
}

// settle waits until udevd has no events in hand, as udevadm settle does. It
// needs no udevadm, which is not where only the files of the rbd command are.
func (h Host) settle(ctx context.Context, wait time.Duration) {
	for end := time.Now().Add(wait); h.udevBusy() && ctx.Err() == nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

package krbd

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// head is what the kernel calls an image that is mapped as it is now, not as a
// snapshot of it.
const head = "-"

// maxLine is the longest line that the kernel takes whole and shows whole
// again in config_info.
const maxLine = 4095

// loadModule loads the rbd module where the kernel has no rbd yet. A failure
// is only told: the module can be built in, or loaded by somebody else.
func (h Host) loadModule(ctx context.Context) {
	if h.hasDriver() {
		return
	}
	// A PATH without the sbin folders is common, for cron and for users.
	program, err := exec.LookPath("modprobe")
	if err != nil {
		program = "/sbin/modprobe"
	}
	// Kernels without the parameter (before 3.14) ignore it.
	cmd := exec.CommandContext(ctx, program, "rbd", "single_major=Y")
	cmd.Env = []string{} // CEPH_ARGS can hold a key
	cmd.Stderr = h.Stderr
	if err := cmd.Run(); err != nil {
		status := 127 // what a shell says where there is no such program
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			status = exit.ExitCode()
		}
		h.warn(textModule(status))
	}
}

func (h Host) hasDriver() bool {
	_, err := os.Stat(h.path(bus))
	return err == nil
}

// check refuses what the kernel would read as something else: it takes the
// line apart at white space, and the options at commas.
func (r Request) check() error {
	const space = " \t\n\v\f\r\x00"
	for _, f := range []struct{ what, text, bad string }{
		{"pool", r.Spec.Pool, space},
		{"image", r.Spec.Image, space},
		{"snap", r.Spec.Snap, space},
		{"namespace", r.Spec.Namespace, space + ","},
		{"user", r.ID, space + ","},
		{"option", r.Options.String(), space},
	} {
		if strings.ContainsAny(f.text, f.bad) {
			return &Error{Text: "the kernel cannot map with a space or comma in the " + f.what + " name", Errno: syscall.EINVAL}
		}
	}
	if r.Spec.Snap == head {
		return &Error{Text: "the kernel takes the snapshot name - for the image itself", Errno: syscall.EINVAL}
	}
	if r.Spec.Pool == "" || r.Spec.Image == "" {
		return &Error{Text: "image name was not specified", Errno: syscall.EINVAL}
	}
	return nil
}

// line is what goes to the kernel, auth being ",key=..." or the like.
func (r Request) line(auth string) (string, error) {
	var mons []string
	for _, m := range r.Monitors {
		if m.Msgr2 == r.Options.msgr2() {
			mons = append(mons, m.Addr.String())
		}
	}
	if len(mons) == 0 {
		return "", &Error{Text: textNoMonitor, Errno: syscall.ENOENT}
	}
	var b strings.Builder
	b.WriteString(strings.Join(mons, ",") + " name=" + r.ID + auth)
	if o := r.Options.String(); o != "" {
		b.WriteString("," + o)
	}
	if r.Spec.Namespace != "" {
		b.WriteString(",_pool_ns=" + r.Spec.Namespace)
	}
	snap := r.Spec.Snap
	if snap == "" {
		snap = head
	}
	b.WriteString(" " + r.Spec.Pool + " " + r.Spec.Image + " " + snap + mark())
	if b.Len() > maxLine {
		return "", &Error{Text: "the kernel takes 4095 bytes for a map: name fewer monitors", Errno: syscall.E2BIG}
	}
	return b.String(), nil
}

// mark is a random run of white space that makes a line unlike any other.
//
// The kernel does not answer which device it made of a line, and the same image
// can be mapped more than once, at the same time, by different programs. But
// it shows the whole line in the device's config_info, and it skips white space
// at the end: so the line can carry a number that costs nobody anything.
func mark() string {
	var b [24]byte // 48 bits
	for i := range b {
		b[i] = " \t\v\f"[rand.IntN(4)]
	}
	return string(b[:])
}

// add has the kernel map the image and returns the line that it was told.
// Meanwhile mon, where there is one, is kept from running full.
func (h Host) add(mon *monitor, req Request) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The key is put into the process keyring, which is the thread's until
		// another one is started from it: key and write belong on one thread. It is
		// never unlocked, so that the thread and its keyring end here.
		runtime.LockOSThread()
		line, err := h.addOnThread(req)
		done <- result{line, err}
		mon.wake()
	}()
	mon.collect()
	r := <-done
	return r.line, r.err
}

func (h Host) addOnThread(req Request) (string, error) {
	auth, forget, err := h.authenticate(req)
	if err != nil {
		return "", err
	}
	defer forget()
	line, err := req.line(auth)
	if err != nil {
		return "", err
	}
	if err := h.write("add", line); err != nil {
		number := errnoOf(err)
		mons, _, _ := strings.Cut(line, " ")
		return "", &Error{Text: textSysfsWrite, Hint: hintAdd(number, req, mons, h.hasDriver()), Errno: number}
	}
	return line, nil
}

// authenticate hands the secret to the kernel and returns how a line refers to
// it. forget takes it back: a mapping has its own copy.
func (h Host) authenticate(req Request) (auth string, forget func(), err error) {
	name := "client." + req.ID
	forget = func() {}
	if req.Secret.IsZero() {
		if _, err := unix.RequestKey("ceph", name, "", 0); err == nil {
			auth = ",key=" + name
		}
		return auth, forget, nil
	}
	payload, err := req.Secret.payload()
	if err != nil {
		return "", nil, &Error{Text: textAddSecret(name), Hint: "the key is not valid base64", Errno: syscall.EINVAL}
	}
	defer clear(payload)
	id, err := unix.AddKey("ceph", name, payload, unix.KEY_SPEC_PROCESS_KEYRING)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOSYS):
		// A kernel without keyrings, or without the key type: the line itself
		// has to carry the secret.
		return ",secret=" + req.Secret.base64, forget, nil
	case err != nil:
		return "", nil, &Error{Text: textAddSecret(name), Errno: errnoOf(err)}
	}
	forget = func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_PROCESS_KEYRING, 0, 0) }
	return ",key=" + name, forget, nil
}

// findAdded finds the device that the kernel made of line.
func (h Host) findAdded(line string, want spec.Spec) (Device, error) {
	var same []Device
	for _, d := range h.devices() {
		if d.Spec != want {
			continue
		}
		info, err := os.ReadFile(h.path(bus + "/devices/" + strconv.Itoa(d.ID) + "/config_info"))
		if err == nil && strings.TrimSuffix(string(info), "\n") == line {
			return d, nil
		}
		if err != nil {
			same = append(same, d)
		}
	}
	// Before Linux 4.9 there is no config_info; the spec alone says it where
	// it is mapped once.
	if len(same) == 1 {
		return same[0], nil
	}
	return Device{}, &Error{Err: ErrLost, Text: "the kernel mapped " + want.String() + ", but which device it is cannot be told: see rbd device list", Errno: syscall.ENODEV}
}

//go:build guest

package krbd

// These tests need a kernel with rbd and a cluster: test/krbd compiles them,
// puts them into a node and runs each of them there, as root. What they need
// to know is in the file that the variable KRBD_GUEST names.

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var guest struct {
	V1, V2 netip.AddrPort
	ID     string
	Key    string
}

func TestMain(m *testing.M) {
	if id := os.Getenv("KRBD_READ"); id != "" {
		os.Exit(readOnly(id))
	}
	b, err := os.ReadFile(os.Getenv("KRBD_GUEST"))
	if err == nil {
		err = json.Unmarshal(b, &guest)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "KRBD_GUEST:", err)
		os.Exit(1)
	}
	if image := os.Getenv("KRBD_MAP"); image != "" {
		os.Exit(mapOnly(image))
	}
	os.Exit(m.Run())
}

// mapOnly is this program started once more to map one image and print the
// device, as the command does.
func mapOnly(image string) int {
	r, err := request(image, "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Fifty emulated udev workers on two processors may take longer than the
	// usual minute.
	d, err := Host{Wait: 5 * time.Minute}.Map(context.Background(), r)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, d.Path)
	return 0
}

// readOnly is this program started once more, as somebody else, to read a key
// of the kernel. It exits with the number of the kernel's error.
func readOnly(id string) int {
	n, err := strconv.Atoi(id)
	if err == nil {
		_, err = unix.KeyctlBuffer(unix.KEYCTL_READ, n, make([]byte, 100), 0)
	}
	return int(errnoOf(err))
}

func request(image, options string) (Request, error) {
	s, err := spec.Parse(image, spec.Any)
	if s.Pool == "" {
		s.Pool = "rbd"
	}
	r := Request{
		Spec:     s,
		Monitors: []Monitor{{guest.V2, true}, {guest.V1, false}},
		ID:       guest.ID,
		Secret:   NewSecret(guest.Key),
	}
	return r, errors.Join(err, r.Options.Parse(options))
}

func mustRequest(t *testing.T, image, options string) Request {
	t.Helper()
	r, err := request(image, options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mapped maps an image until the test ends.
func mapped(t *testing.T, image, options string) Device {
	t.Helper()
	d, err := Host{}.Map(t.Context(), mustRequest(t, image, options))
	if err != nil {
		t.Fatalf("map %s -o %q: %v", image, options, err)
	}
	t.Cleanup(func() { cleanUp(t, d.Path) })
	return d
}

// cleanUp unmaps what a test may have left.
func cleanUp(t *testing.T, path string) {
	if _, err := os.Stat(filepath.Join("/sys/block", filepath.Base(path))); err != nil {
		return
	}
	if err := (Host{}).UnmapDevice(context.Background(), path, UnmapOptions{}); err != nil {
		t.Errorf("unmap %s: %v", path, err)
	}
}

func unmapOptions(t *testing.T, text string) (o UnmapOptions) {
	t.Helper()
	if err := o.Parse(text); err != nil {
		t.Fatal(err)
	}
	return o
}

// fails checks that err has the number, and gives its other parts.
func fails(t *testing.T, err error, number syscall.Errno) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Errno != number {
		t.Fatalf("got %v, want %v", err, number)
	}
	return e
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "\n")
}

func listed(t *testing.T) (paths []string) {
	t.Helper()
	list, err := Host{}.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		paths = append(paths, d.Path)
	}
	return paths
}

// The first test in the node: its kernel has no rbd yet.
func TestModule(t *testing.T) {
	if _, err := os.Stat("/sys/bus/rbd"); err == nil {
		t.Fatal("the module is loaded: this test must be the first one in the node")
	}
	const conf = "/run/modprobe.d/krbd-test.conf"
	err := os.MkdirAll(filepath.Dir(conf), 0o755)
	if err == nil {
		err = os.WriteFile(conf, []byte("install rbd exit 7\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	_, err = Host{Stderr: &stderr}.Map(t.Context(), mustRequest(t, "disk", ""))
	if e := fails(t, err, syscall.ENOENT); e.Text != textSysfsWrite || !strings.Contains(e.Hint, "no rbd driver") {
		t.Errorf("%+v", e)
	}
	if got := stderr.String(); !strings.HasPrefix(got, "modprobe: ") || !strings.HasSuffix(got, "\nrbd: failed to load rbd kernel module (1)\n") {
		t.Error(got)
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nowhere")
	mapped(t, "disk", "")
	if got := read(t, "/sys/module/rbd/parameters/single_major"); got != "Y" {
		t.Error("single_major:", got)
	}
}

func TestMap(t *testing.T) {
	d := mapped(t, "disk", "")
	if target, err := filepath.EvalSymlinks("/dev/krbd-test/disk"); err != nil || target != d.Path {
		t.Error("udev was not waited for:", target, err)
	}
	dir := fmt.Sprintf("/sys/bus/rbd/devices/%d/", d.ID)
	info := read(t, dir+"config_info")
	if want := fmt.Sprintf("%v name=%s,key=client.%s rbd disk -", guest.V1, guest.ID, guest.ID); strings.TrimSpace(info) != want {
		t.Errorf("config_info is %q, want %q", info, want)
	}
	if d.Spec != (spec.Spec{Pool: "rbd", Image: "disk"}) || fmt.Sprint(d.Major) != read(t, dir+"major") || fmt.Sprint(d.Minor) != read(t, dir+"minor") {
		t.Errorf("%+v", d)
	}
	// The kernel collects keys that nothing refers to in the background.
	for end := time.Now().Add(5 * time.Second); strings.Contains(read(t, "/proc/keys"), "client."+guest.ID); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("the key is still in a keyring:", read(t, "/proc/keys"))
			break
		}
	}
	if err := (Host{}).UnmapDevice(t.Context(), d.Path, UnmapOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat("/dev/krbd-test/disk"); err == nil {
		t.Error("udev was not waited for: the link is still there")
	}
	fails(t, Host{}.UnmapDevice(t.Context(), d.Path, UnmapOptions{}), syscall.EINVAL)
}

// While an image is mapped its key is nowhere in what the kernel shows, and
// while the kernel is told nobody can read it there.
func TestKeyIsNowhere(t *testing.T) {
	d := mapped(t, "disk", "")
	raw, err := NewSecret(guest.Key).payload()
	if err != nil {
		t.Fatal(err)
	}
	looked := make(map[string]bool)
	look := func(where string, text []byte) {
		looked[where] = true
		if bytes.Contains(text, []byte(guest.Key)) || bytes.Contains(text, raw[12:]) || bytes.Contains(text, fmt.Appendf(nil, "%x", raw[12:])) {
			t.Errorf("the key is in %s", where)
		}
	}
	for _, root := range []string{"/sys/bus/rbd", "/sys/devices/rbd", "/sys/module/rbd", "/sys/module/libceph", "/sys/block/" + filepath.Base(d.Path) + "/", "/run/udev"} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if text, err := os.ReadFile(path); err == nil { // some can only be written
				look(path, text)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"/proc/mounts", "/proc/keys", "/proc/key-users", "/proc/partitions"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		look(path, text)
	}
	kernelLog := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, kernelLog)
	if err != nil || !bytes.Contains(kernelLog[:n], []byte("rbd: rbd")) {
		t.Errorf("the kernel's log does not tell of the map: %v", err)
	}
	look("the kernel's log", kernelLog[:n])
	if config := fmt.Sprintf("/sys/devices/rbd/%d/config_info", d.ID); !looked[config] {
		t.Errorf("%s was not looked at; only %d places were", config, len(looked))
	}

	runtime.LockOSThread() // other threads may not have the keyring that the first key makes
	defer runtime.UnlockOSThread()
	auth, forget, err := Host{}.authenticate(mustRequest(t, "disk", ""))
	if err != nil || auth != ",key=client."+guest.ID {
		t.Fatalf("authenticate: %q, %v", auth, err)
	}
	search := func() (int, error) {
		return unix.KeyctlSearch(unix.KEY_SPEC_PROCESS_KEYRING, "ceph", "client."+guest.ID, 0)
	}
	id, err := search()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, make([]byte, 100), 0); err != unix.EOPNOTSUPP {
		t.Errorf("its owner reads the key: %v", err)
	}
	for who, uid := range map[string]uint32{"another process": 0, "another user": 65534} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), fmt.Sprintf("KRBD_READ=%d", id))
		if uid != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		_ = cmd.Run()
		if code := syscall.Errno(cmd.ProcessState.ExitCode()); code != unix.EACCES {
			t.Errorf("%s, that reads the key: %v", who, code)
		}
	}
	forget()
	if id, err := search(); err == nil {
		t.Errorf("the key %d is still there", id)
	}
}

func TestFeatures(t *testing.T) {
	supported, err := Host{}.SupportedFeatures()
	if err != nil || supported&1 == 0 {
		t.Fatalf("%#x, %v", supported, err)
	}
	mapped(t, "plain", "")   // layering alone
	mapped(t, "disk", "")    // the default features
	mapped(t, "striped", "") // striping and data pool
	_, err = Host{}.Map(t.Context(), mustRequest(t, "journaled", ""))
	if e := fails(t, err, syscall.ENXIO); e.Text != textSysfsWrite || e.Device != "" {
		t.Error(e)
	}
}

func TestRefused(t *testing.T) {
	_, err := Host{}.Map(t.Context(), mustRequest(t, "missing", ""))
	fails(t, err, syscall.ENOENT)
	_, err = Host{}.Map(t.Context(), mustRequest(t, "disk@missing", ""))
	fails(t, err, syscall.ENOENT)
	_, err = Host{}.Map(t.Context(), mustRequest(t, "nopool/disk", ""))
	fails(t, err, syscall.ENOENT)

	r := mustRequest(t, "disk", "noshare,mount_timeout=5")
	r.Secret = NewSecret("AQBSZVxnAAAAABAAMTIzNDU2Nzg5MDEyMzQ1Ng==")
	_, err = Host{}.Map(t.Context(), r)
	fails(t, err, syscall.EACCES)
	r.Secret = NewSecret("not base64")
	_, err = Host{}.Map(t.Context(), r)
	if e := fails(t, err, syscall.EINVAL); e.Text != "failed to add secret 'client."+guest.ID+"' to kernel" {
		t.Error(e)
	}

	r = mustRequest(t, "disk", "mount_timeout=1")
	r.Monitors = []Monitor{{Addr: netip.MustParseAddrPort("10.0.2.15:1")}}
	_, err = Host{}.Map(t.Context(), r)
	fails(t, err, syscall.ETIMEDOUT)
	if left := listed(t); len(left) != 0 {
		t.Error("mapped in spite of it:", left)
	}
}

// The key that a mapping took along lives on in it, so the same user with
// another key must not get the old one's connection.
func TestProtocols(t *testing.T) {
	for _, mode := range []string{"", "ms_mode=legacy", "ms_mode=crc", "ms_mode=secure", "ms_mode=prefer-crc", "ms_mode=prefer-secure"} {
		d := mapped(t, "disk", mode)
		want := guest.V2
		if mode == "" || mode == "ms_mode=legacy" {
			want = guest.V1
		}
		if info := read(t, fmt.Sprintf("/sys/bus/rbd/devices/%d/config_info", d.ID)); !strings.HasPrefix(info, want.String()+" ") {
			t.Errorf("%q: %s", mode, info)
		}
		writeBlock(t, d.Path, 0, []byte(mode))
		if got := readBlock(t, d.Path, 0, len(mode)); string(got) != mode {
			t.Errorf("%q: read %q", mode, got)
		}
		cleanUp(t, d.Path)
	}
}

const block = 4096

func writeBlock(t *testing.T, path string, n int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_SYNC, 0)
	if err == nil {
		_, err = f.WriteAt(slices.Concat(data, make([]byte, block-len(data)%block)), n*block)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readBlock reads from the device, not from the kernel's memory of what was
// written.
func readBlock(t *testing.T, path string, n int64, size int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, n*block); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadOnly(t *testing.T) {
	r := mustRequest(t, "disk", "rw")
	r.Options.SetReadOnly()
	d, err := Host{}.Map(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanUp(t, d.Path) })
	snap := mapped(t, "disk@snap", "")
	for _, d := range []Device{d, snap} {
		if got := read(t, "/sys/block/"+filepath.Base(d.Path)+"/ro"); got != "1" {
			t.Errorf("%+v: ro is %s", d, got)
		}
	}
	if snap.Spec.Snap != "snap" || snap.Path == d.Path {
		t.Errorf("%+v", snap)
	}
	if err := (Host{}).UnmapSpec(t.Context(), snap.Spec, UnmapOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := listed(t); !slices.Equal(left, []string{d.Path}) {
		t.Error(left)
	}
}

func TestExclusive(t *testing.T) {
	r := mustRequest(t, "disk", "noshare")
	r.Options.SetExclusive()
	d, err := Host{}.Map(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanUp(t, d.Path) })
	_, err = Host{}.Map(t.Context(), mustRequest(t, "disk", "noshare,exclusive"))
	fails(t, err, syscall.EROFS)
}

func TestNamespace(t *testing.T) {
	d, other := mapped(t, "rbd/ns/disk", ""), mapped(t, "disk", "")
	if d.Spec.Namespace != "ns" || other.Spec.Namespace != "" {
		t.Errorf("%+v %+v", d, other)
	}
	if target, err := filepath.EvalSymlinks("/dev/krbd-test/nsdisk"); err != nil || target != d.Path {
		t.Error(target, err)
	}
	if err := (Host{}).UnmapSpec(t.Context(), d.Spec, UnmapOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := listed(t); !slices.Equal(left, []string{other.Path}) {
		t.Error(left)
	}
}

func TestMappedTwice(t *testing.T) {
	first := mapped(t, "disk", "")
	var stderr bytes.Buffer
	second, err := Host{Stderr: &stderr}.Map(t.Context(), mustRequest(t, "disk", ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanUp(t, second.Path) })
	if got := stderr.String(); got != "rbd: warning: image already mapped as "+first.Path+"\n" || first.Path == second.Path {
		t.Error(got, first, second)
	}
	stderr.Reset()
	if err := (Host{Stderr: &stderr}).UnmapSpec(t.Context(), first.Spec, UnmapOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := stderr.String(); got != "rbd: rbd/disk: mapped more than once, unmapping "+first.Path+" only\n" {
		t.Error(got)
	}
}

func TestBusy(t *testing.T) {
	d := mapped(t, "disk", "")
	run(t, "mkfs.ext4", "-q", d.Path)
	dir := t.TempDir()
	if err := unix.Mount(d.Path, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	e := fails(t, Host{}.UnmapDevice(t.Context(), d.Path, UnmapOptions{}), syscall.EBUSY)
	if e.Text != textSysfsWrite || e.Device != d.Path || e.Hint != d.Path+" is in use: mounted on "+dir {
		t.Errorf("%+v", e)
	}
	if err := os.WriteFile(dir+"/file", []byte("still mounted"), 0o644); err != nil {
		t.Error(err)
	}
	if err := (Host{}).UnmapDevice(t.Context(), d.Path, unmapOptions(t, "force")); err != nil {
		t.Error(err)
	}
	if left := listed(t); len(left) != 0 {
		t.Error(left)
	}
}

// A partition means the disk that it is on.
func TestPartition(t *testing.T) {
	d := mapped(t, "disk", "")
	partitionTable(t, d.Path)
	if err := (Host{}).UnmapDevice(t.Context(), d.Path+"p1", UnmapOptions{}); err != nil {
		t.Error(err)
	}
	if left := listed(t); len(left) != 0 {
		t.Error(left)
	}
}

// partitionTable gives a device one partition until the test ends.
func partitionTable(t *testing.T, path string) {
	t.Helper()
	// Linux, from 1 MiB on, 8 MiB long.
	table := make([]byte, 512)
	entry := table[446:]
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], 2048)
	binary.LittleEndian.PutUint32(entry[12:], 16384)
	table[510], table[511] = 0x55, 0xaa
	writeBlock(t, path, 0, table)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0); err != nil {
		t.Fatal(err)
	}
}

// stopUdev stops udevd and its sockets, which would start it again.
func stopUdev(t *testing.T) {
	t.Helper()
	run(t, "udevadm", "settle")
	run(t, "systemctl", "stop", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service")
	t.Cleanup(func() {
		run(t, "systemctl", "start", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service")
	})
}

func TestUdevStopped(t *testing.T) {
	stopUdev(t)
	start := time.Now()
	d, err := Host{Wait: 2 * time.Second}.Map(t.Context(), mustRequest(t, "disk", ""))
	e := fails(t, err, syscall.ETIMEDOUT)
	if e.Text != textUdevWait || e.Device != d.Path || !strings.Contains(e.Hint, d.Path+" is mapped") || !strings.Contains(e.Hint, "noudev") {
		t.Errorf("%+v", e)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Error("took", took)
	}
	if left := listed(t); len(left) != 1 || left[0] != d.Path {
		t.Error(left)
	}
	var stderr bytes.Buffer
	if err := (Host{Wait: time.Second, Stderr: &stderr}).UnmapDevice(t.Context(), d.Path, UnmapOptions{}); err != nil {
		t.Error(err)
	}
	// A record of an earlier device with this number may be in udev's
	// database: then there is something to wait for, in vain.
	if got := stderr.String(); got != "" && got != "rbd: udev wait failed: (110) Connection timed out\n" {
		t.Error(got)
	}
	d = mapped(t, "disk", "noudev")
	if err := (Host{}).UnmapDevice(t.Context(), d.Path, unmapOptions(t, "noudev")); err != nil {
		t.Error(err)
	}
}

// With the smallest buffer there is, the events of one map do not fit.
func TestNetlinkOverflow(t *testing.T) {
	mon, err := openMonitor(0)
	if err != nil {
		t.Fatal(err)
	}
	defer mon.Close()
	since := time.Now()
	d := mapped(t, "disk", "noudev")
	run(t, "udevadm", "trigger", "--settle", "--type=devices", "--subsystem-match=block")
	if err := (Host{}).awaitUdev(t.Context(), mon, "add", d, (Host{}).diskseq(d), since, 30*time.Second); err != nil {
		t.Error(err)
	}
	if !mon.lost {
		t.Error("no event was lost: the test shows nothing")
	}
}

// Uevents are sent in the initial network namespace only. In another one, a
// pod's for example, udev's database has to do.
func TestNetworkNamespace(t *testing.T) {
	opened := make(chan *monitor, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with its namespace
		var mon *monitor
		if unix.Unshare(unix.CLONE_NEWNET) == nil {
			mon, _ = openMonitor(monitorBuffer)
		}
		opened <- mon
	}()
	mon := <-opened
	if mon == nil {
		t.Fatal("no monitor in a new network namespace")
	}
	defer mon.Close()
	since := time.Now()
	d := mapped(t, "disk", "noudev")
	if err := (Host{}).awaitUdev(t.Context(), mon, "add", d, (Host{}).diskseq(d), since, 30*time.Second); err != nil {
		t.Error(err)
	}
	if mon.lost || len(mon.events) > 0 {
		t.Errorf("it heard something: %+v", mon.events)
	}
	if _, err := os.Stat("/dev/krbd-test/disk"); err != nil {
		t.Error("udev was not waited for:", err)
	}
}

// Each of many maps at once has to print its own device, by other programs'
// maps of the same image, too.
func TestManyAtOnce(t *testing.T) {
	var images []string
	for i := range 30 {
		images = append(images, fmt.Sprintf("many%d", i))
	}
	for range 20 {
		images = append(images, "many0")
	}
	paths, errs := make([]string, len(images)), make([]error, len(images))
	var wg sync.WaitGroup
	start := time.Now()
	for i, image := range images {
		wg.Go(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "KRBD_MAP="+image)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			paths[i] = strings.TrimSpace(string(out))
			if err != nil {
				errs[i] = fmt.Errorf("%w: %s", err, &stderr)
			}
		})
	}
	wg.Wait()
	t.Logf("%d maps at once in %v", len(images), time.Since(start).Round(time.Millisecond))
	seen := map[string]string{}
	for i, image := range images {
		if errs[i] != nil {
			t.Errorf("%s: %v", image, errs[i])
			continue
		}
		t.Cleanup(func() { cleanUp(t, paths[i]) })
		if other, ok := seen[paths[i]]; ok {
			t.Errorf("%s was given to %s and to %s", paths[i], other, image)
		}
		seen[paths[i]] = image
		if got := read(t, "/sys/bus/rbd/devices/"+strings.TrimPrefix(paths[i], "/dev/rbd")+"/name"); got != image {
			t.Errorf("map %s printed %s, which is %s", image, paths[i], got)
		}
	}
}

// test/krbd looks at the image from outside between these two.
func TestDiscardFill(t *testing.T) {
	d := mapped(t, "thin", "")
	for i := range int64(8) {
		writeBlock(t, d.Path, i*1024, bytes.Repeat([]byte{1}, 1<<20))
	}
}

func TestDiscard(t *testing.T) {
	d := mapped(t, "thin", "")
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKGETSIZE64)
	if err != nil {
		t.Fatal(err)
	}
	span := [2]uint64{0, uint64(size)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); e != 0 {
		t.Fatal(e)
	}
	f.Close()
}

// TestCapture writes what testdata holds into the folder that KRBD_CAPTURE
// names: the node's sysfs as far as this package reads it, and uevents as they
// come out of the socket. See testdata/README.
func TestCapture(t *testing.T) {
	out := os.Getenv("KRBD_CAPTURE")
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "udevadm", "settle")
	udev := rawMessages(t)
	disk := mapped(t, "disk", "")
	partitionTable(t, disk.Path)
	mapped(t, "disk@snap", "")
	mapped(t, "rbd/ns/disk", "")

	var tree bytes.Buffer
	for _, pattern := range []string{
		"/sys/bus/rbd/supported_features",
		"/sys/bus/rbd/devices/*",
		"/sys/devices/rbd/[0-9]*/[a-z]*",
		"/sys/devices/rbd/*/block/rbd*/dev*",
		"/sys/devices/rbd/*/block/rbd*/diskseq",
		"/sys/devices/rbd/*/block/rbd*/rbd*/dev",
		"/sys/devices/rbd/*/block/rbd*/rbd*/partition",
		"/sys/devices/pci*/*/virtio*/block/vda/dev*",
		"/sys/dev/block/*",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: nothing there: %v", pattern, err)
		}
		for _, path := range paths {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case info.Mode().IsRegular() && info.Mode()&0o400 != 0:
				if b, err := os.ReadFile(path); err == nil {
					fmt.Fprintf(&tree, "%s = %q\n", path[1:], b)
				}
			case info.Mode()&os.ModeSymlink != 0:
				target, err := os.Readlink(path)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&tree, "%s -> %s\n", path[1:], target)
			}
		}
	}
	save := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	save("node", tree.Bytes())
	save("udev-add-bus", udev("rbd", "add", disk))
	save("udev-add", udev("block", "add", disk))
	cleanUp(t, disk.Path)
	save("udev-remove", udev("block", "remove", disk))
}

// rawMessages listens to udevd and returns a function that gives the next
// message of a kind as it came.
func rawMessages(t *testing.T) func(subsystem, action string, d Device) []byte {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, monitorBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupUdev}))
	if err != nil {
		t.Fatal(err)
	}
	return func(subsystem, action string, d Device) []byte {
		msg := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, msg)
			if err != nil {
				t.Fatalf("no %s event of %s: %v", action, subsystem, err)
			}
			e, ok := parseEvent(msg[:n])
			if ok && e["SUBSYSTEM"] == subsystem && e["ACTION"] == action && (subsystem != "block" || e.block(d, "")) {
				return msg[:n]
			}
		}
	}
}

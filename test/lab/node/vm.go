package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
	"github.com/opt-rbd/opt-rbd/test/lab/image"
)

// Options say what kind of node is wanted; the zero value is one without a
// cluster and without kubelet.
type Options struct {
	// NetNS is the path of the network namespace that QEMU runs in, such as
	// Cluster.NetNS(). The guest reaches the addresses that are reached there.
	// Empty means the caller's.
	NetNS string
	// Kubelet adds kubelet v1.30.14 and the container images of pods; containerd
	// and kubelet are then started at each boot. The first use builds kubelet,
	// which takes minutes.
	Kubelet bool
	// SELinux is for a node whose kernel enforces a policy, with /opt and
	// /usr/local in /var: see image.SELinux.
	SELinux bool
	// Name is the node's host name; empty means node1.
	Name string
	// Memory in MiB; 0 means 512, or 1024 with Kubelet.
	Memory int
	// CPUs; 0 means 2.
	CPUs int
	// Log is told of what takes long; nil means os.Stderr.
	Log io.Writer
}

// stateSize is the size of the disk under the overlays. It is sparse.
const stateSize = 8 << 30

// VM is a running node for callers that have no test. All of its state is in
// open files that have no name, so nothing is left of it when the process
// ends, however that happens: QEMU ends with it.
type VM struct {
	options Options
	disks   disks
	state   *os.File // ext4 under the overlays, kept over reboots
	console *os.File

	mu     sync.Mutex
	qemu   *os.Process
	exited chan struct{} // closed when QEMU has ended
	client *agent.Client
}

// Boot starts a node and returns when it runs commands.
func Boot(ctx context.Context, o Options) (vm *VM, err error) {
	vm = &VM{options: o}
	defer func() {
		if err != nil {
			vm.Kill()
		}
	}()
	if vm.disks, err = build(ctx, o); err != nil {
		return nil, err
	}
	if vm.state, err = unnamed(0); err != nil {
		return nil, err
	}
	if vm.console, err = unnamed(unix.O_APPEND); err != nil {
		return nil, err
	}
	if err := format(ctx, vm.state); err != nil {
		return nil, err
	}
	return vm, vm.start(ctx)
}

// unnamed is a file for reading and writing that no folder has.
func unnamed(flags int) (*os.File, error) {
	// Not /tmp, which may be in memory.
	fd, err := unix.Open("/var/tmp", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a file in /var/tmp: %w", err)
	}
	return os.NewFile(uintptr(fd), "unnamed"), nil
}

// kernelArgs make the boot quiet and quick; systemd is asked for nothing that
// changes what it does. lpj saves the kernel from calibrating its delay loop on
// every emulated CPU, which took a quarter of the boot.
const kernelArgs = "console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0 mitigations=off " +
	"lpj=5000000 tsc=reliable random.trust_cpu=on systemd.show_status=0 systemd.unified_cgroup_hierarchy=1"

// start boots the guest from the state that the disk has.
func (vm *VM) start(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := vm.startOnce(ctx)
		if attempt == 3 || !errors.Is(err, errStuck) {
			return err
		}
		vm.Kill() // nothing has run yet that the disk could miss
	}
}

// errStuck says that the guest's kernel has stopped before it started a
// program. On a busy machine QEMU emulates several CPUs in a way, now and then,
// that one waits for another for ever.
var errStuck = errors.New("its kernel hangs")

// watchBoot cancels with errStuck when the kernel says so on the console, of
// which it reads what comes after from.
func (vm *VM) watchBoot(ctx context.Context, from int64, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		said, err := io.ReadAll(io.NewSectionReader(vm.console, from, 1<<20))
		// Process 1, before it is systemd.
		if err == nil && regexp.MustCompile(`soft lockup - CPU#\d+ stuck for \d+s! \[swapper/0:1\]`).Match(said) {
			cancel(errStuck)
		}
	}
}

func (vm *VM) startOnce(ctx context.Context) error {
	from, err := vm.console.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	host, guest, err := socketPair()
	if err != nil {
		return err
	}
	defer guest.Close()
	args := append(vm.disks.args("/proc/self/fd/3", vm.options), "-chardev", "socket,id=agent,fd=4")
	cmd := exec.Command(qemu, args...)
	cmd.Stdout, cmd.Stderr = vm.console, vm.console
	cmd.ExtraFiles = []*os.File{vm.state, guest}
	exited := make(chan struct{})
	if err := launch(cmd, vm.options.NetNS, exited); err != nil {
		host.Close()
		return err
	}
	vm.mu.Lock()
	vm.qemu, vm.exited = cmd.Process, exited
	vm.mu.Unlock()
	guest.Close() // so that the connection ends with QEMU
	ctx, stop := context.WithTimeout(ctx, bootTimeout)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go vm.watchBoot(ctx, from, cancel)
	client, err := agent.Dial(ctx, host)
	if err != nil {
		return fmt.Errorf("the node did not come up: %w\nits console: %s", errors.Join(err, context.Cause(ctx)), vm.Console())
	}
	vm.mu.Lock()
	vm.client = client
	vm.mu.Unlock()
	return nil
}

// bootTimeout is for a busy machine: a quiet one takes seven seconds.
const bootTimeout = 3 * time.Minute

const qemu = "qemu-system-x86_64"

// disks are what a node boots from; kubelet may be empty.
type disks struct {
	image   image.Image
	kubelet string
}

func build(ctx context.Context, o Options) (d disks, err error) {
	log := o.Log
	if log == nil {
		log = os.Stderr
	}
	images := image.Build
	if o.SELinux {
		images = image.SELinux
	}
	if d.image, err = images(ctx, log); err == nil && o.Kubelet {
		d.kubelet, err = image.KubeletDisk(ctx, log)
	}
	return d, err
}

// args are QEMU's arguments, less the character device named agent.
func (d disks) args(state string, o Options) []string {
	memory, cpus := o.Memory, o.CPUs
	if memory == 0 && o.Kubelet {
		memory = 1024
	} else if memory == 0 {
		memory = 512
	}
	if cpus == 0 {
		cpus = 2
	}
	more := " audit=0 lsm=yama"
	if o.SELinux {
		// SELinux tells of what it denies by the kernel's audit.
		more = " lsm=yama,selinux enforcing=1"
	}
	if o.Name != "" {
		more += " systemd.hostname=" + o.Name
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=multi,tb-size=512", "-M", "q35,hpet=off,smm=off,vmport=off",
		// Emulated wide vectors cost more than they save.
		"-cpu", "max,-avx,-avx2",
		"-smp", fmt.Sprint(cpus), "-m", fmt.Sprint(memory),
		"-kernel", d.image.Kernel, "-initrd", d.image.Initrd, "-append", kernelArgs + more,
		"-serial", "stdio",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=" + agent.PortName,
	}
	disk := func(serial, file, more string) {
		// A comma in a value is written twice.
		args = append(args,
			"-drive", "if=none,format=raw,id="+serial+",file="+strings.ReplaceAll(file, ",", ",,")+more,
			"-device", "virtio-blk-pci,drive="+serial+",serial="+serial)
	}
	disk("root", d.image.Root, ",readonly=on")
	// The host's page cache is safe enough for a disk that lasts no longer than
	// the host.
	disk("state", state, ",cache=unsafe,discard=unmap")
	if d.kubelet != "" {
		disk("kubelet", d.kubelet, ",readonly=on")
	}
	return args
}

// format makes the file system of the state disk.
func format(ctx context.Context, state *os.File) error {
	if err := state.Truncate(stateSize); err != nil {
		return err
	}
	// Inode tables written now are not written by the guest's kernel in the
	// background, and fewer inodes are fewer of them.
	mkfs := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-i", "65536", "-E", "lazy_itable_init=0,nodiscard", "/proc/self/fd/3")
	mkfs.ExtraFiles = []*os.File{state}
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// launch starts a command in a network namespace. It is killed when this
// process ends, also by SIGKILL.
func launch(cmd *exec.Cmd, netns string, exited chan<- struct{}) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		// The namespace belongs to the thread, and the signal comes when the
		// thread that started the child ends. This one is used for nothing else
		// and stays as long as the child does.
		runtime.LockOSThread()
		if netns != "" {
			if err := enterNetNS(netns); err != nil {
				started <- err
				return
			}
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is on the console
			close(exited)
		}
	}()
	return <-started
}

func enterNetNS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace %s: %w", path, err)
	}
	return nil
}

// socketPair is the connection to the agent: our end, and QEMU's.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours := os.NewFile(uintptr(fds[0]), "agent")
	theirs := os.NewFile(uintptr(fds[1]), "agent")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
	}
	return conn, theirs, err
}

// Exec runs a command in the node and returns its exit code, with the streams
// that it names.
func (vm *VM) Exec(ctx context.Context, cmd agent.Command) (int, error) {
	vm.mu.Lock()
	client := vm.client
	vm.mu.Unlock()
	if client == nil {
		return -1, errors.New("the node is not running")
	}
	return client.Run(ctx, cmd)
}

// Result is what a command has said.
type Result struct {
	Stdout, Stderr string
	Code           int // 128+N if signal N ended it
}

// Run runs a command in the node. A nonzero exit code is no error.
func (vm *VM) Run(ctx context.Context, argv ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	code, err := vm.Exec(ctx, agent.Command{Argv: argv, Stdout: &stdout, Stderr: &stderr})
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: code}, err
}

// Stop powers the node off as an admin does. What it had written is there
// after Start.
func (vm *VM) Stop(ctx context.Context) error {
	vm.mu.Lock()
	qemu, exited := vm.qemu, vm.exited
	vm.mu.Unlock()
	if qemu == nil {
		return errors.New("the node is not running")
	}
	// The node may be off before the answer is here.
	r, err := vm.Run(ctx, "systemctl", "poweroff")
	if err == nil && r.Code != 0 {
		return fmt.Errorf("power the node off: exit code %d: %s", r.Code, r.Stderr)
	}
	select {
	case <-exited:
		vm.Kill()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("power the node off: %w", context.Cause(ctx))
	}
}

// Kill ends the node at once, as a power cut does. It does nothing to one that
// is not running.
func (vm *VM) Kill() {
	vm.mu.Lock()
	qemu, exited, client := vm.qemu, vm.exited, vm.client
	vm.qemu, vm.client = nil, nil
	vm.mu.Unlock()
	if qemu != nil {
		_ = qemu.Kill() // it may have ended
		<-exited
	}
	if client != nil {
		client.Close()
	}
}

// Start boots a node again that was stopped or killed.
func (vm *VM) Start(ctx context.Context) error {
	vm.mu.Lock()
	running := vm.qemu != nil
	vm.mu.Unlock()
	if running {
		return errors.New("the node is running")
	}
	return vm.start(ctx)
}

// Reboot powers the node off and boots it again.
func (vm *VM) Reboot(ctx context.Context) error {
	if err := vm.Stop(ctx); err != nil {
		return err
	}
	return vm.Start(ctx)
}

// Console is the end of what the kernel and QEMU have said.
func (vm *VM) Console() string {
	const most = 6000
	size, err := vm.console.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	from := max(0, size-most)
	buf := make([]byte, size-from)
	n, err := vm.console.ReadAt(buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	return string(buf[:n])
}

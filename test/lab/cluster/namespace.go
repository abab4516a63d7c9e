package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// monAddr is the address of the monitor, and of the OSDs that share its host. It is constant: each cluster has a
// network of its own, except for one beside another, which has besideAddr.
const (
	monAddr    = "10.91.0.1"
	besideAddr = "10.91.0.2"
)

// hostAddr is the address of the nth host of several, counted from 0.
func hostAddr(n int) string { return fmt.Sprintf("10.91.0.%d", 11+n) }

func (c *Cluster) openNamespaces() (err error) {
	if c.net, err = os.Open(c.NetNS()); err != nil {
		return err
	}
	c.pid, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", c.supervisor.pid))
	return err
}

// Do runs f in the cluster's network: sockets that f makes and processes that f starts belong there, as do threads that
// a C library called by f makes. Goroutines that f starts do not.
func (c *Cluster) Do(f func() error) error {
	return within(f, c.net)
}

// within runs f on one thread that is in the given namespaces; a PID namespace counts for f's children only. Entering
// them on our own thread, before the fork, is what saves the 10 ms of an nsenter.
func within(f func() error, namespaces ...*os.File) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, ns := range namespaces {
		back, err := enter(ns)
		if err != nil {
			return fmt.Errorf("enter %s: %w", ns.Name(), err)
		}
		defer back()
	}
	return f()
}

// enter moves the locked thread into a namespace and returns the way back.
func enter(ns *os.File) (back func(), err error) {
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, err
	}
	name := "net"
	if kind == unix.CLONE_NEWPID {
		name = "pid"
	}
	own, err := os.Open("/proc/thread-self/ns/" + name)
	if err != nil {
		return nil, err
	}
	if err := unix.Setns(int(ns.Fd()), kind); err != nil {
		return nil, errors.Join(err, own.Close())
	}
	return func() {
		defer own.Close()
		if err := unix.Setns(int(own.Fd()), kind); err != nil {
			panic(fmt.Sprintf("a thread of this program is caught in a namespace of the lab: %v", err))
		}
	}, nil
}

// newNetNS makes a network namespace that lives as long as the file is open or a process is in it.
func newNetNS() (*os.File, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("a thread of this program is caught in a namespace of the lab: %v", back))
	}
	return ns, err
}

// setUpNetwork gives the cluster its address and, where there are several hosts, joins them by a bridge.
func (c *Cluster) setUpNetwork(ctx context.Context) error {
	if c.options.Hosts == 1 {
		return c.ip(ctx, c.net, "link set lo up", "address add "+c.Addr()+"/32 dev lo")
	}
	if err := c.ip(ctx, c.net, "link set lo up", "link add hosts type bridge",
		"address add "+monAddr+"/24 dev hosts", "link set hosts up"); err != nil {
		return err
	}
	for n := range c.options.Hosts {
		host, err := newNetNS()
		if err != nil {
			return err
		}
		c.hosts = append(c.hosts, host)
		port := fmt.Sprintf("host%d", n)
		// The other end is made in the cluster's namespace, which is file descriptor 3 of ip.
		if err := c.ip(ctx, host, "link set lo up",
			"link add eth0 type veth peer name "+port+" netns /proc/self/fd/3",
			"address add "+hostAddr(n)+"/24 dev eth0", "link set eth0 up"); err != nil {
			return err
		}
		if err := c.ip(ctx, c.net, "link set "+port+" master hosts up"); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) ip(ctx context.Context, ns *os.File, lines ...string) error {
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	cmd.ExtraFiles = []*os.File{c.net}
	return within(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	}, ns)
}

// Cmd is an exec.Cmd that starts inside the cluster's network. Use its own methods, not those of the exec.Cmd in it.
type Cmd struct {
	*exec.Cmd
	namespaces []*os.File
}

// Start is exec.Cmd's.
func (c *Cmd) Start() error { return within(c.Cmd.Start, c.namespaces...) }

// Run is exec.Cmd's.
func (c *Cmd) Run() error { return within(c.Cmd.Run, c.namespaces...) }

// Output is exec.Cmd's.
func (c *Cmd) Output() (out []byte, err error) {
	err = within(func() error { out, err = c.Cmd.Output(); return err }, c.namespaces...)
	return out, err
}

// CombinedOutput is exec.Cmd's.
func (c *Cmd) CombinedOutput() (out []byte, err error) {
	err = within(func() error { out, err = c.Cmd.CombinedOutput(); return err }, c.namespaces...)
	return out, err
}

// Command prepares a command that runs in the cluster's network with CEPH_CONF set to the cluster's. What Ceph would
// otherwise read from the environment of the test is not passed on.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	// A command that ignores the closing of its pipes must not hold up the test that gave up on it.
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = []string{"CEPH_CONF=" + c.Conf()}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CEPH_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	return &Cmd{Cmd: cmd, namespaces: []*os.File{c.net}}
}

// Daemon is Command for a process that is to live as long as the cluster: it is in the cluster's PID namespace too, so
// it cannot survive the cluster, nor a test that is killed. The caller waits for it as for any command, or the namespace
// cannot go away before the test does.
func (c *Cluster) Daemon(ctx context.Context, name string, args ...string) *Cmd {
	cmd := c.Command(ctx, name, args...)
	cmd.namespaces = append(cmd.namespaces, c.pid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for the test
	return cmd
}

// Result is what a command said.
type Result struct {
	Stdout, Stderr string
	Code           int // exit code; -1 for one that a signal ended or that did not start
}

// Rbd runs the genuine rbd of ceph-common, whatever else of that name is on PATH, for at most a minute.
func (c *Cluster) Rbd(args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := c.Command(ctx, "/usr/bin/rbd", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		fmt.Fprintf(&stderr, "%v\n", errors.Join(err, ctx.Err()))
		return Result{stdout.String(), stderr.String(), -1}
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

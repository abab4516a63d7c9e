package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// packages tells which Debian package brings each program that a cluster needs.
var packages = map[string]string{
	"ceph-mon":         "ceph-mon",
	"ceph-osd":         "ceph-osd",
	"ceph-mgr":         "ceph-mgr",
	"monmaptool":       "ceph-base",
	"osdmaptool":       "ceph-base",
	"rbd":              "ceph-common",
	"ip":               "iproute2",
	"/usr/bin/python3": "python3",
	"/usr/lib/python3/dist-packages/rados*.so": "python3-rados",
}

// checkHost reports what a cluster lacks on this machine.
func checkHost(o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes namespaces, which takes root: run it with sudo")
	}
	var missing []string
	for name, pkg := range packages {
		if name == "ceph-mgr" && !o.Mgr {
			continue
		}
		if strings.HasPrefix(name, "/") {
			if found, err := filepath.Glob(name); err != nil || found == nil {
				missing = append(missing, pkg)
			}
		} else if _, err := exec.LookPath(name); err != nil && o.Root == "" {
			missing = append(missing, pkg)
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("the lab needs packages that are not installed: apt-get install --no-install-recommends -y %s",
		strings.Join(slices.Compact(missing), " "))
}

// mentions reports whether a program of Ceph knows a word, without the time that asking it for its help takes.
func (c *Cluster) mentions(name, word string) (bool, error) {
	program, err := os.ReadFile(filepath.Join("/", c.options.Root, "usr/bin", name))
	return bytes.Contains(program, []byte(word)), err
}

// program prepares one of Ceph's own programs, of the other release where there is one.
func (c *Cluster) program(ctx context.Context, name string, args ...string) *Cmd {
	cmd := c.Daemon(ctx, filepath.Join("/usr/bin", name), args...)
	// As services are started: an OSD of Debian's Ceph 18 looks for its classes below lib/.
	cmd.Dir = "/"
	if c.options.Root != "" {
		// The root as the supervisor sees it, with what it mounted there.
		cmd.SysProcAttr.Chroot = filepath.Join(fmt.Sprintf("/proc/%d/root", c.supervisor.pid), c.options.Root)
	}
	return cmd
}

// run runs one of Ceph's tools to its end.
func (c *Cluster) run(ctx context.Context, name string, args ...string) error {
	if out, err := c.program(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastWords(string(out)))
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// makeStores makes the stores of monitor and OSDs, side by side.
func (c *Cluster) makeStores(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, c.options.OSDs+1)
	for n := range c.options.OSDs {
		wg.Go(func() {
			errs[n] = c.run(ctx, "ceph-osd", c.osdArgs(n, "--mkfs", "--osd-uuid", newUUID())...)
		})
	}
	errs[c.options.OSDs] = c.makeMonStore(ctx)
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Cluster) makeMonStore(ctx context.Context) error {
	// The OSDs are in the initial map, in their places, so that none has to be created by a command. A pool cannot be put
	// there as well: its placement groups would never come to be.
	if err := c.run(ctx, "osdmaptool", "-c", c.path("daemon.conf"), "--create-from-conf", "--clobber", c.path("osdmap")); err != nil {
		return err
	}
	// A monitor that is given its address by options alone takes the default ports, whatever the options say.
	args := []string{"--create", "--clobber", "--fsid", c.fsid, "--addv", "a", "[v2:" + c.MonV2() + ",v1:" + c.MonV1() + "]", c.path("monmap")}
	// From Ceph 20.2.4 on a new cluster takes only AES-256 keys, which older clients and kernels do not have, unless the
	// monmap says otherwise.
	if known, err := c.mentions("monmaptool", "auth-allowed-ciphers"); err != nil {
		return err
	} else if known {
		args = append(args, "--auth-service-cipher", "aes", "--auth-allowed-ciphers", "aes", "--auth-preferred-cipher", "aes")
	}
	if err := c.run(ctx, "monmaptool", args...); err != nil {
		return err
	}
	return c.run(ctx, "ceph-mon", c.monArgs("--mkfs", "--monmap", c.path("monmap"), "--osdmap", c.path("osdmap"))...)
}

func (c *Cluster) monArgs(args ...string) []string {
	return append([]string{"-c", c.path("daemon.conf"), "--no-mon-config", "-i", "a", "--keyring", c.path("mon.keyring")}, args...)
}

func (c *Cluster) osdArgs(n int, args ...string) []string {
	name := fmt.Sprintf("osd.%d", n)
	return append([]string{"-c", c.path("daemon.conf"), "--no-mon-config", "-i", name[4:],
		"--keyring", c.path(name + "/keyring"), "--public-addr", c.osdAddr(n)}, args...)
}

func (c *Cluster) osdAddr(n int) string {
	if c.options.Hosts == 1 {
		return c.Addr()
	}
	return hostAddr(n % c.options.Hosts)
}

// daemon is one daemon, running or not.
type daemon struct {
	name  string
	start func() *Cmd
	cmd   *Cmd          // nil before the first start
	done  chan struct{} // closed when cmd has ended
}

func (d *daemon) running() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// listDaemons fills the list of daemons, in the order in which they start.
func (c *Cluster) listDaemons() {
	c.daemons = []*daemon{{name: "mon.a", start: func() *Cmd { return c.program(context.Background(), "ceph-mon", c.monArgs("-f")...) }}}
	for n := range c.options.OSDs {
		c.daemons = append(c.daemons, &daemon{name: fmt.Sprintf("osd.%d", n), start: func() *Cmd {
			cmd := c.program(context.Background(), "ceph-osd", c.osdArgs(n, "-f")...)
			if c.hosts != nil {
				cmd.namespaces[0] = c.hosts[n%len(c.hosts)]
			}
			return cmd
		}})
	}
	if c.options.Mgr {
		c.daemons = append(c.daemons, &daemon{name: "mgr.x", start: func() *Cmd {
			return c.program(context.Background(), "ceph-mgr", "-c", c.path("daemon.conf"), "--no-mon-config", "-i", "x", "--keyring", c.path("mgr.x/keyring"), "-f")
		}})
	}
}

// named returns the daemons of these names, all of them when there are none. c.daemonMu is held.
func (c *Cluster) named(names []string) ([]*daemon, error) {
	if c.daemons == nil {
		return nil, errors.New("the daemons belong to the program that started the cluster")
	}
	if len(names) == 0 {
		return slices.Clone(c.daemons), nil
	}
	var found []*daemon
	for _, d := range c.daemons {
		if slices.Contains(names, d.name) {
			found = append(found, d)
		}
	}
	if len(found) != len(names) {
		return nil, fmt.Errorf("no such daemons: %s", strings.Join(names, ", "))
	}
	return found, nil
}

// Stop stops daemons ("mon.a", "osd.0", "mgr.x"; without names all) in good order and returns when they are gone. What a
// memstore OSD held is lost.
func (c *Cluster) Stop(names ...string) error { return c.stop(syscall.SIGTERM, names) }

// Kill ends daemons as a power failure would.
func (c *Cluster) Kill(names ...string) error { return c.stop(syscall.SIGKILL, names) }

// Pause makes daemons hang, with their connections open, until Resume. An OSD that is the only one serves nothing any more
// if that lasts longer than its lease to serve reads, 8 to 16 s (osd_pool_default_read_lease_ratio).
func (c *Cluster) Pause(names ...string) error { return c.signal(syscall.SIGSTOP, names) }

// Resume lets paused daemons go on.
func (c *Cluster) Resume(names ...string) error { return c.signal(syscall.SIGCONT, names) }

func (c *Cluster) signal(sig syscall.Signal, names []string) error {
	c.daemonMu.Lock()
	defer c.daemonMu.Unlock()
	daemons, err := c.named(names)
	if err != nil {
		return err
	}
	for _, d := range daemons {
		if d.running() {
			err = errors.Join(err, d.cmd.Process.Signal(sig))
		}
	}
	return err
}

func (c *Cluster) stop(sig syscall.Signal, names []string) error {
	c.daemonMu.Lock()
	defer c.daemonMu.Unlock()
	daemons, err := c.named(names)
	if err != nil {
		return err
	}
	// The monitor last: an OSD that ends tells it so, and waits for the answer.
	slices.Reverse(daemons)
	for _, d := range daemons {
		if !d.running() {
			continue
		}
		if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-d.done:
		case <-time.After(10 * time.Second):
			return fmt.Errorf("%s does not end", d.name)
		}
	}
	return nil
}

// Restart stops the daemons that run and starts all of these (without names: of the cluster) on the data that they have.
// It waits until the OSDs among them have told the monitor, where it runs, that they are back: a client that still
// speaks to one at its old address takes 10 s and more to ask for the new one.
func (c *Cluster) Restart(names ...string) error {
	if err := c.Stop(names...); err != nil {
		return err
	}
	daemons, err := c.start(names)
	if err != nil || !c.daemons[0].running() {
		return err
	}
	for _, d := range daemons {
		if strings.HasPrefix(d.name, "osd.") {
			err = errors.Join(err, c.waitForOSD(d))
		}
	}
	return err
}

func (c *Cluster) start(names []string) ([]*daemon, error) {
	c.daemonMu.Lock()
	defer c.daemonMu.Unlock()
	daemons, err := c.named(names)
	if err != nil {
		return nil, err
	}
	for _, d := range daemons {
		if err := c.startDaemon(d); err != nil {
			return nil, err
		}
	}
	return daemons, nil
}

func (c *Cluster) startDaemon(d *daemon) error {
	log, err := os.OpenFile(c.path("log/"+d.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, done := d.start(), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended is in its log
		close(done)
	}()
	d.cmd, d.done = cmd, done
	if d.name == "mon.a" {
		return c.waitForPort(d)
	}
	return nil
}

// waitForPort waits until the monitor listens. A daemon that finds the port closed comes back only after a while.
func (c *Cluster) waitForPort(mon *daemon) error {
	return c.Do(func() error {
		for range 2000 {
			conn, err := net.Dial("tcp", c.MonV2())
			if err == nil {
				return conn.Close()
			}
			select {
			case <-mon.done:
				return fmt.Errorf("the monitor ended: %s", tail(c.path("log/"+mon.name)))
			case <-time.After(5 * time.Millisecond):
			}
		}
		return errors.New("the monitor does not listen")
	})
}

func (c *Cluster) waitForOSD(d *daemon) error {
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		if !d.running() {
			return fmt.Errorf("%s ended: %s", d.name, tail(c.path("log/"+d.name)))
		}
		var status struct{ State string }
		if err := askSocket(c.path("run/"+d.name+".asok"), "status", &status); err == nil && status.State == "active" {
			return nil
		}
	}
	return fmt.Errorf("%s does not come up: %s", d.name, tail(c.path("log/"+d.name)))
}

// askSocket asks a daemon something by its admin socket: a NUL ends the question, the answer begins with its length in
// four bytes.
func askSocket(path, command string, answer any) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "{\"prefix\": %q}\x00", command); err != nil {
		return err
	}
	var length uint32
	if err := binary.Read(conn, binary.BigEndian, &length); err != nil {
		return err
	}
	return json.NewDecoder(io.LimitReader(conn, int64(length))).Decode(answer)
}

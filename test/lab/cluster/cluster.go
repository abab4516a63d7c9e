// Package cluster starts a real Ceph cluster for a test and takes it away again.
//
// The cluster is small but not a stand-in: ceph-mon, ceph-osd and, where asked for, ceph-mgr as Debian ships them, with
// cephx on and a pool named rbd. It lives in a network namespace of its own, at the same address every time (Addr),
// so any number of clusters can run beside each other.
//
//	c := cluster.Start(t, cluster.Options{})          // in a test: ended by t.Cleanup
//	c, err := cluster.New(ctx, cluster.Options{})     // anywhere else, TestMain for example: the caller calls Close
//
//	c.Rbd("create", "disk", "--size", "1G")           // the genuine rbd: Result{Stdout, Stderr, Code}
//	c.Command(ctx, "bin/rbd", "ls").Output()          // anything else, inside the cluster's network, CEPH_CONF set
//	c.Do(func() error { ... })                        // Go code whose sockets (and children) are in that network
//	c.Daemon(ctx, "qemu-system-x86_64", ...)          // as Command, and the kernel ends it with the cluster
//	c.MonCommand(`{"prefix": "osd dump"}`)            // what the ceph tool sends, in 2 ms instead of 300
//	c.AddUser("client.kube", "mon", "profile rbd", "osd", "profile rbd pool=rbd")
//	c.Conf(), c.Keyring(u), c.Secret(u), c.Addr(), c.MonV1(), c.MonV2(), c.NetNS(), c.Dir()
//	c.Stop("osd.0"), c.Kill("mon.a"), c.Restart()     // one daemon, some, or without names all
//
// Nothing is left behind, whatever happens to the test: every daemon is in a PID namespace whose first process, the
// supervisor, ends when the pipe from the test closes. With it the kernel ends the daemons and the network, and the
// supervisor has removed the folder before. The folder of a supervisor that was itself killed is swept by the next New.
// The supervisor is this same program, started once more under another name: see supervisor.go.
//
// It needs root and the packages that New names when they are missing. It is no place for what a node or a client does:
// this package knows Ceph's daemons and nothing of rbd beyond the pool.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Store is where an OSD keeps its objects.
type Store string

const (
	// Memstore keeps objects in the OSD's memory: the fastest to start; a stopped OSD has lost them.
	Memstore Store = "memstore"
	// Bluestore keeps objects in a sparse file: for tests in which an OSD stops and comes back.
	Bluestore Store = "bluestore"
)

// Options say what a cluster consists of. The zero value is one monitor and one memstore OSD.
type Options struct {
	// Store of every OSD; empty means Memstore.
	Store Store
	// OSDs is their number; 0 means one for each host.
	OSDs int
	// Hosts spreads the OSDs over that many hosts, each a network namespace with its own address on one bridge; from
	// two hosts on pools have a copy on each of up to three. 0 or 1 keeps everything beside the monitor, one copy.
	Hosts int
	// Mgr starts a ceph-mgr too (300 MB, some seconds until it answers; New waits for it). rbd needs it for perf, the
	// schedules and the task queue only.
	Mgr bool
	// Root is the root folder of a system that holds another Ceph release, whose daemons are then run; empty means the
	// host's. Clients that Command starts are the host's in any case.
	Root string
	// Config lines are added to the daemons' configuration, for example "osd_client_watch_timeout = 8".
	Config []string
	// Beside is another cluster, on one host, whose network this one shares at an address of its own: each reaches the
	// other's daemons. The network is there until both have ended.
	Beside *Cluster `json:"-"`
	// Name makes a cluster that stays when the program that started it ends; Open finds it by this name.
	Name string
}

func (o Options) withDefaults() (Options, error) {
	if o.Store == "" {
		o.Store = Memstore
	}
	if o.Store != Memstore && o.Store != Bluestore {
		return o, fmt.Errorf("no such object store: %s", o.Store)
	}
	o.Hosts = max(o.Hosts, 1)
	if o.OSDs == 0 {
		o.OSDs = o.Hosts
	}
	if o.OSDs < o.Hosts {
		return o, fmt.Errorf("%d OSDs cannot be spread over %d hosts", o.OSDs, o.Hosts)
	}
	if o.Root != "" {
		root, err := filepath.Abs(o.Root)
		if err != nil {
			return o, err
		}
		o.Root = filepath.Clean(root)
	}
	if o.Beside != nil && (o.Hosts > 1 || o.Name != "" || o.Beside.options.Hosts > 1 || o.Beside.options.Beside != nil) {
		return o, errors.New("only two clusters on one host each, that end with the test, share a network")
	}
	if strings.ContainsAny(o.Name, "/.") {
		return o, fmt.Errorf("not a name for a cluster: %s", o.Name)
	}
	return o, nil
}

// addr is the address of the monitor, and of the OSDs that share its host.
func (o Options) addr() string {
	if o.Beside != nil {
		return besideAddr
	}
	return monAddr
}

// copies is the size of the pools.
func (o Options) copies() int { return min(o.Hosts, 3) }

// A Cluster is a running cluster. Its methods may be called from several goroutines.
type Cluster struct {
	options Options
	dir     string
	fsid    string

	supervisor *supervisor
	net, pid   *os.File   // the supervisor's namespaces
	hosts      []*os.File // network namespaces of the hosts, where there are several

	daemonMu sync.Mutex
	daemons  []*daemon

	libradosMu sync.Mutex
	librados   *librados
}

// Start starts a cluster for a test and ends it when the test ends. It fails the test when that does not work.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Name != "" {
		t.Fatal("a test's cluster ends with the test: it has no name")
	}
	c, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.logEnds(t)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// New starts a cluster and returns when its pool rbd serves reads and writes. ctx bounds the start only.
func New(ctx context.Context, o Options) (c *Cluster, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := checkHost(o); err != nil {
		return nil, err
	}
	c = &Cluster{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start of the lab's cluster: %w", err), c.Close())
			c = nil
		}
	}()
	if c.supervisor, err = startSupervisor(o); err != nil {
		return c, err
	}
	c.dir = c.supervisor.dir
	if err := c.openNamespaces(); err != nil {
		return c, err
	}
	if err := c.writeState(); err != nil {
		return c, err
	}
	// Python and librados take 0.1 s to load; they do so while the stores are made.
	if c.librados, err = c.startLibrados(); err != nil {
		return c, err
	}
	if err := c.setUpNetwork(ctx); err != nil {
		return c, err
	}
	if err := c.writeConfiguration(); err != nil {
		return c, err
	}
	if err := c.makeStores(ctx); err != nil {
		return c, err
	}
	c.listDaemons()
	if _, err := c.start(nil); err != nil {
		return c, err
	}
	return c, c.makePool(ctx)
}

// ErrNotRunning says that there is no cluster of that name.
var ErrNotRunning = errors.New("not running")

// Open finds the cluster that New started with Options.Name. Its daemons cannot be stopped one by one from here.
func Open(name string) (*Cluster, error) {
	c := &Cluster{dir: filepath.Join(base, name)}
	state, err := os.ReadFile(filepath.Join(c.dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cluster %s: %w", name, ErrNotRunning)
	}
	if err != nil {
		return nil, err
	}
	var s savedState
	if err := json.Unmarshal(state, &s); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", c.dir, stateFile, err)
	}
	if held, err := lockHeld(c.dir); err != nil {
		return nil, err
	} else if !held {
		return nil, fmt.Errorf("cluster %s: %w", name, ErrNotRunning)
	}
	c.options, c.fsid = s.Options, s.FSID
	c.supervisor = &supervisor{dir: c.dir, pid: s.PID}
	if err := c.openNamespaces(); err != nil {
		return nil, err
	}
	return c, nil
}

const stateFile = "cluster.json"

// savedState is what Open must know.
type savedState struct {
	PID     int // of the supervisor; the lock on the folder says whether it is still the one meant
	FSID    string
	Options Options
}

func (c *Cluster) writeState() error {
	c.fsid = newUUID()
	state, err := json.MarshalIndent(savedState{PID: c.supervisor.pid, FSID: c.fsid, Options: c.options}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, stateFile), append(state, '\n'), 0o644)
}

// Close ends the cluster at once, with everything that Daemon started, and removes its folder.
func (c *Cluster) Close() error {
	var err error
	if c.supervisor != nil {
		err = c.supervisor.end()
	}
	for _, f := range append([]*os.File{c.net, c.pid}, c.hosts...) {
		if f != nil {
			f.Close()
		}
	}
	return err
}

// Dir is the cluster's folder. It disappears with the cluster.
func (c *Cluster) Dir() string { return c.dir }

// Conf is the path of the clients' ceph.conf.
func (c *Cluster) Conf() string { return filepath.Join(c.dir, "ceph.conf") }

// Addr is the address of the monitor, the same for every cluster but one that is beside another.
func (c *Cluster) Addr() string { return c.options.addr() }

// MonV1 is the monitor's address and port for the first messenger protocol, which the kernel speaks by default.
func (c *Cluster) MonV1() string { return c.Addr() + ":6789" }

// MonV2 is the monitor's address and port for the second messenger protocol (ms_mode=crc and secure of the kernel).
func (c *Cluster) MonV2() string { return c.Addr() + ":3300" }

// FSID is the cluster's identity.
func (c *Cluster) FSID() string { return c.fsid }

// NetNS is the path of the cluster's network namespace, for nsenter --net=PATH.
func (c *Cluster) NetNS() string { return fmt.Sprintf("/proc/%d/ns/net", c.supervisor.pid) }

// logEnds tells a failed test which daemons are no longer there, and what each said last.
func (c *Cluster) logEnds(t testing.TB) {
	for _, d := range c.daemons {
		state := "is running"
		if !d.running() {
			state = "is not running"
		}
		t.Logf("%s %s; its log ends in:\n%s", d.name, state, tail(c.path("log/"+d.name)))
	}
}

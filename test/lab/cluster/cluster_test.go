package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Arguments that make this test binary another program: one that starts a cluster and waits to be killed, and one that
// starts daemons from another root folder.
const (
	victim    = "victim"
	otherRoot = "other-root"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == victim {
		c, err := New(context.Background(), Options{})
		if err == nil {
			err = c.Daemon(context.Background(), "sleep", "1000").Start()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(c.supervisor.pid, c.Dir())
		select {}
	}
	if len(os.Args) == 3 && os.Args[1] == otherRoot {
		if err := startInOtherRoot(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestMemstore(t *testing.T) {
	began := time.Now()
	c := Start(t, Options{Config: []string{"osd_client_watch_timeout = 8"}})
	t.Logf("serves after %v", since(began))
	rbd(t, c, "create", "disk", "--size", "16M")
	took := since(began)
	t.Logf("from nothing to a finished rbd create: %v", took)
	if took > time.Minute {
		t.Errorf("that is no longer a matter of a busy machine")
	}
	if out := rbd(t, c, "ls"); out != "disk\n" {
		t.Errorf("rbd ls: %q", out)
	}
	t.Run("user has only its capabilities", func(t *testing.T) { testUser(t, c) })
	t.Run("mon command", func(t *testing.T) { testMonCommand(t, c) })
	t.Run("own network is kept", func(t *testing.T) { testOwnNetwork(t, c) })
	t.Run("paused monitor answers later", func(t *testing.T) { testPausedMonitor(t, c) })
}

func testUser(t *testing.T, c *Cluster) {
	path, err := c.AddUser("client.reader", "mon", "profile rbd", "osd", "profile rbd-read-only pool=rbd")
	if err != nil {
		t.Fatal(err)
	}
	if path != c.Keyring("client.reader") {
		t.Errorf("keyring at %s", path)
	}
	for _, keyring := range []string{path, c.Keyring("client.admin"), filepath.Join(c.Dir(), "mon.keyring"), filepath.Join(c.Dir(), "osd.0", "keyring")} {
		if info, err := os.Stat(keyring); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", keyring, info.Mode(), err)
		}
	}
	secret, err := c.Secret("client.reader")
	if err != nil {
		t.Fatal(err)
	}
	rbd(t, c, "--id", "reader", "ls")
	rbd(t, c, "--id", "reader", "--key", secret, "-k", "/dev/null", "ls")
	if r := c.Rbd("--id", "reader", "create", "another", "--size", "16M"); r.Code != 1 {
		t.Errorf("rbd create without the right: %+v", r)
	}
	if r := c.Rbd("--id", "nobody", "ls"); r.Code == 0 {
		t.Errorf("rbd ls of an unknown user: %+v", r)
	}
}

func testMonCommand(t *testing.T, c *Cluster) {
	out, err := c.MonCommand(`{"prefix": "fsid"}`)
	if err != nil || strings.TrimSpace(string(out)) != c.FSID() {
		t.Errorf("fsid %q, %v; want %s", out, err, c.FSID())
	}
	_, err = c.MonCommand(`{"prefix": "osd pool get", "pool": "none", "var": "size"}`)
	if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("pool that does not exist: %v", err)
	}
	// The line of Config has come to the daemon.
	out, err = c.Command(t.Context(), "ceph", "daemon", filepath.Join(c.Dir(), "run", "osd.0.asok"), "config", "get", "osd_client_watch_timeout").Output()
	if err != nil || !strings.Contains(string(out), `"8"`) {
		t.Errorf("osd_client_watch_timeout: %s, %v", out, err)
	}
}

func testOwnNetwork(t *testing.T, c *Cluster) {
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var inside string
		must(t, c.Do(func() (err error) { inside, err = os.Readlink("/proc/thread-self/ns/net"); return err }))
		outside, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil || inside == before || outside != before {
			t.Fatalf("network inside %s, after %s, before %s, %v", inside, outside, before, err)
		}
	}
	out, err := c.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil || strings.TrimSpace(string(out)) == before {
		t.Errorf("a command's network: %s, %v", out, err)
	}
}

func testPausedMonitor(t *testing.T, c *Cluster) {
	must(t, c.Pause("mon.a"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if out, err := c.Command(ctx, "rbd", "ls").CombinedOutput(); ctx.Err() == nil {
		t.Errorf("rbd ls with a paused monitor: %s, %v", out, err)
	}
	must(t, c.Resume("mon.a"))
	rbd(t, c, "ls")
}

func TestBluestoreSurvives(t *testing.T) {
	began := time.Now()
	c := Start(t, Options{Store: Bluestore})
	rbd(t, c, "create", "disk", "--size", "16M")
	t.Logf("from nothing to a finished rbd create: %v", since(began))
	data := strings.Repeat("kept ", 1000)
	put := c.Command(t.Context(), "rados", "--pool", "rbd", "put", "object", "-")
	put.Stdin = strings.NewReader(data)
	if out, err := put.CombinedOutput(); err != nil {
		t.Fatalf("rados put: %v: %s", err, out)
	}
	check := func(what string, began time.Time) {
		t.Helper()
		if out := rbd(t, c, "ls"); out != "disk\n" {
			t.Errorf("rbd ls after %s: %q", what, out)
		}
		got, err := c.Command(t.Context(), "rados", "--pool", "rbd", "get", "object", "-").Output()
		if err != nil || string(got) != data {
			t.Errorf("object after %s: %d bytes, %v", what, len(got), err)
		}
		t.Logf("serves %v after %s", since(began), what)
	}

	began = time.Now()
	must(t, c.Restart())
	check("a restart", began)

	must(t, c.Kill("osd.0"))
	began = time.Now()
	must(t, c.Restart("osd.0"))
	check("a kill of the OSD", began)

	must(t, c.Stop("mon.a"))
	began = time.Now()
	must(t, c.Restart("mon.a"))
	check("a stop of the monitor", began)

	must(t, c.Kill())
	began = time.Now()
	must(t, c.Restart())
	check("a kill of everything", began)
}

func TestMgrAnswers(t *testing.T) {
	began := time.Now()
	c := Start(t, Options{Mgr: true})
	t.Logf("mgr available after %v", since(began))
	rbd(t, c, "create", "disk", "--size", "16M")
	// Only a mgr knows tasks.
	out, err := c.Command(t.Context(), "ceph", "rbd", "task", "add", "remove", "rbd/disk").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Removing image rbd/disk") {
		t.Errorf("rbd task add remove: %v: %s", err, out)
	}
}

func TestSixOSDsOnThreeHosts(t *testing.T) {
	began := time.Now()
	c := Start(t, Options{OSDs: 6, Hosts: 3})
	t.Logf("serves after %v", since(began))
	rbd(t, c, "create", "disk", "--size", "16M")

	var stat struct {
		NumUp int `json:"num_up_osds"`
		NumIn int `json:"num_in_osds"`
	}
	for range 100 {
		ask(t, c, `{"prefix": "osd stat", "format": "json"}`, &stat)
		if stat.NumUp == 6 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if stat.NumUp != 6 || stat.NumIn != 6 {
		t.Errorf("of 6 OSDs %d are up and %d in", stat.NumUp, stat.NumIn)
	}
	var pool struct{ Size int }
	if ask(t, c, `{"prefix": "osd pool get", "pool": "rbd", "var": "size", "format": "json"}`, &pool); pool.Size != 3 {
		t.Errorf("size of the pool: %d", pool.Size)
	}
	var tree struct {
		Nodes []struct {
			Name, Type string
			Children   []int
		}
	}
	ask(t, c, `{"prefix": "osd tree", "format": "json"}`, &tree)
	hosts := 0
	for _, n := range tree.Nodes {
		if n.Type == "host" {
			hosts++
			if len(n.Children) != 2 {
				t.Errorf("%s has OSDs %v", n.Name, n.Children)
			}
		}
	}
	if hosts != 3 {
		t.Errorf("%d hosts in the CRUSH map", hosts)
	}
	var dump struct {
		OSDs []struct {
			OSD  int
			Addr string `json:"public_addr"`
		}
	}
	ask(t, c, `{"prefix": "osd dump", "format": "json"}`, &dump)
	for _, o := range dump.OSDs {
		if !strings.HasPrefix(o.Addr, hostAddr(o.OSD%3)+":") {
			t.Errorf("osd.%d is at %s", o.OSD, o.Addr)
		}
	}
	// Each copy is on a host of its own: with one host gone, everything is still served.
	must(t, c.Kill("osd.0", "osd.3"))
	rbd(t, c, "create", "another", "--size", "16M")
}

// The root folder has this system's /usr, in place of another release's, which would have to be downloaded.
func TestRootFolder(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", otherRoot, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// startInOtherRoot is the rest of that test in a mount namespace that takes the mounts with it.
func startInOtherRoot(root string) error {
	for _, dir := range []string{"usr", "etc", "dev", "proc", "sys", "var/tmp", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, link := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			return err
		}
	}
	if err := syscall.Mount("/usr", filepath.Join(root, "usr"), "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	c, err := New(context.Background(), Options{Root: root})
	if err != nil {
		return err
	}
	defer c.Close() // the other error counts
	if r := c.Rbd("create", "disk", "--size", "16M"); r.Code != 0 {
		return fmt.Errorf("rbd create: %+v", r)
	}
	here, err := os.Stat(root)
	if err != nil {
		return err
	}
	for _, d := range c.daemons {
		there, err := os.Stat(fmt.Sprintf("/proc/%d/root", d.cmd.Process.Pid))
		if err != nil {
			return err
		}
		if !os.SameFile(here, there) {
			return fmt.Errorf("%s has another root folder than %s", d.name, root)
		}
	}
	return c.Close()
}

func TestClustersDoNotMeet(t *testing.T) {
	a, b := Start(t, Options{}), Start(t, Options{})
	rbd(t, a, "create", "disk", "--size", "16M")
	if out := rbd(t, b, "ls"); out != "" {
		t.Errorf("image of one cluster in the other: %q", out)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	c, err := New(t.Context(), Options{Hosts: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() // for a test that fails before the end
	left := remains(t, c.supervisor.pid)
	must(t, c.Close())
	must(t, c.Close()) // which does nothing
	if r := left(); len(r) != 0 {
		t.Errorf("processes left: %v", r)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder: %v", err)
	}
}

func TestKilledTestLeavesNothing(t *testing.T) {
	cmd, pid, dir := startVictim(t)
	left := remains(t, pid)
	if n := len(left()); n < 5 { // supervisor, monitor, OSD, librados client, sleep
		t.Fatalf("only %d processes found to begin with", n)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	eventually(t, func() error {
		if r := left(); len(r) != 0 {
			return fmt.Errorf("processes left: %v", r)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("folder: %w", err)
		}
		return nil
	})
}

func TestFolderOfKilledSupervisorIsSwept(t *testing.T) {
	cmd, pid, dir := startVictim(t)
	left := remains(t, pid)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	must(t, cmd.Process.Kill())
	cmd.Wait()
	eventually(t, func() error {
		if r := left(); len(r) != 0 {
			return fmt.Errorf("processes left: %v", r)
		}
		return nil
	})
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("this test shows nothing: %v", err)
	}
	living := Start(t, Options{})
	another := Start(t, Options{})
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder: %v", err)
	}
	for _, c := range []*Cluster{living, another} {
		if _, err := os.Stat(c.Conf()); err != nil {
			t.Errorf("a living cluster was swept: %v", err)
		}
	}
}

func TestNamedClusterStays(t *testing.T) {
	name := "named-" + strconv.Itoa(os.Getpid())
	c, err := New(t.Context(), Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.supervisor.end() })
	if _, err := New(t.Context(), Options{Name: name}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one of that name: %v", err)
	}
	rbd(t, c, "create", "disk", "--size", "16M")
	c.supervisor.alive.Close() // as the end of this program does

	found, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if out := rbd(t, found, "ls"); out != "disk\n" {
		t.Errorf("rbd ls: %q", out)
	}
	if out, err := found.MonCommand(`{"prefix": "fsid"}`); err != nil || strings.TrimSpace(string(out)) != c.FSID() {
		t.Errorf("fsid %q, %v", out, err)
	}
	must(t, found.Close())
	if _, err := Open(name); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after its end: %v", err)
	}
}

func TestMissingPackages(t *testing.T) {
	t.Setenv("PATH", "/nowhere")
	_, err := New(t.Context(), Options{Mgr: true})
	want := "apt-get install --no-install-recommends -y ceph-base ceph-common ceph-mgr ceph-mon ceph-osd iproute2"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("without packages: %v", err)
	}
}

func TestFailedStartSaysWhy(t *testing.T) {
	c, err := New(t.Context(), Options{Config: []string{"osd_data = /proc/nonsense"}})
	if err == nil {
		c.Close()
		t.Fatal("started with a folder that cannot be made")
	}
	if text := err.Error(); !strings.Contains(text, "ceph-osd: ") || !strings.Contains(text, "MemStore") || len(text) > 5000 {
		t.Errorf("not the daemon's last words: %v", err)
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		conf, err := os.ReadFile(filepath.Join(base, e.Name(), "daemon.conf"))
		if err == nil && strings.Contains(string(conf), "nonsense") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func BenchmarkCommand(b *testing.B) {
	c := Start(b, Options{})
	for b.Loop() {
		if err := c.Command(b.Context(), "/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func startVictim(t *testing.T) (cmd *exec.Cmd, supervisor int, dir string) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", victim)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &supervisor, &dir); err != nil {
		t.Fatal(err)
	}
	return cmd, supervisor, dir
}

// remains returns a function that lists the processes that are in a namespace of the supervisor or hold one open.
func remains(t *testing.T, supervisor int) func() []string {
	t.Helper()
	var namespaces []string
	for _, kind := range []string{"pid", "net", "mnt"} {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", supervisor, kind))
		if err != nil {
			t.Fatal(err)
		}
		namespaces = append(namespaces, ns)
	}
	return func() (found []string) {
		links, err := filepath.Glob("/proc/[0-9]*/ns/*")
		if err != nil {
			t.Fatal(err)
		}
		fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range append(links, fds...) {
			target, err := os.Readlink(link)
			if err != nil || !slices.Contains(namespaces, target) {
				continue // processes come and go
			}
			process := strings.Split(link, "/")[2]
			// This process holds the namespaces of its own clusters, none of which is asked about once it is closed.
			if process != strconv.Itoa(os.Getpid()) && !slices.Contains(found, process) {
				found = append(found, process)
			}
		}
		return found
	}
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for range 200 {
		if err = check(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error(err)
}

func rbd(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	r := c.Rbd(args...)
	if r.Code != 0 {
		t.Fatalf("rbd %q: %+v", args, r)
	}
	return r.Stdout
}

func ask(t *testing.T, c *Cluster, command string, answer any) {
	t.Helper()
	out, err := c.MonCommand(command)
	if err == nil {
		err = json.Unmarshal(out, answer)
	}
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func since(began time.Time) time.Duration { return time.Since(began).Round(time.Millisecond) }

package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// victim makes the test's program start a node, say QEMU's process ID and wait
// to be killed.
const victim = "opt-rbd-node-victim"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == victim {
		vm, err := Boot(context.Background(), Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(vm.qemu.Pid)
		select {}
	}
	os.Exit(m.Run())
}

func TestKilledTestLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, victim)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(stdout, &pid)
	killed := cmd.Process.Kill()
	cmd.Wait()
	if err != nil || killed != nil {
		t.Fatal(err, killed)
	}
	// What the node has is in files without a name and in QEMU itself.
	for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("QEMU runs on after the test was killed")
		}
	}
}

func TestNode(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	began := time.Now()
	n := Start(t, Options{NetNS: c.NetNS()})
	t.Logf("up after %.1f s", time.Since(began).Seconds())
	t.Run("streams and exit codes", func(t *testing.T) { testRun(t, n.For(t)) })
	t.Run("two commands at once", func(t *testing.T) { testAtOnce(t, n.For(t)) })
	t.Run("files", func(t *testing.T) { testFiles(t, n.For(t)) })
	t.Run("usr is read-only", func(t *testing.T) {
		n := n.For(t)
		r := n.Run("touch", "/usr/x")
		if r.Code == 0 || !strings.Contains(r.Stderr, "Read-only file system") {
			t.Errorf("exit code %d, %s", r.Code, r.Stderr)
		}
		n.Shell("touch /tmp/x /etc/x /opt/x /var/x /root/x /home/x")
	})
	t.Run("no rbd", func(t *testing.T) {
		n := n.For(t)
		if r := n.Run("sh", "-c", "command -v rbd ceph"); r.Code == 0 {
			t.Errorf("there is %s", r.Stdout)
		}
		n.Must("modprobe", "rbd")
		n.Must("test", "-e", "/sys/bus/rbd/add_single_major")
	})
	t.Run("no failed units", func(t *testing.T) {
		n := n.For(t)
		if out := n.Must("systemctl", "--failed", "--plain", "--no-legend"); out != "" {
			t.Error(out)
		}
	})
	t.Run("kernel maps", func(t *testing.T) { testMaps(t, n.For(t), c) })
	t.Run("state is kept", func(t *testing.T) { testState(t, n.For(t)) })
}

func testRun(t *testing.T, n *Node) {
	r := n.Run("sh", "-c", `echo "$0 $1"; echo oops >&2; exit 7`, "a b", "$HOME\n'\"")
	want := Result{Stdout: "a b $HOME\n'\"\n", Stderr: "oops\n", Code: 7}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if r := n.Run("sh", "-c", "kill -TERM $$"); r.Code != 128+15 {
		t.Errorf("exit code %d after SIGTERM", r.Code)
	}
	if _, err := n.VM.Run(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("error of a missing program: %v", err)
	}
	if r := n.Run("sh", "-c", "sleep 60 & echo started"); r.Stdout != "started\n" {
		t.Errorf("a command that leaves a process behind: %+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := n.VM.Run(ctx, "sleep", "54321"); err == nil {
		t.Error("no error although the context ended")
	}
	if r := n.Run("sh", "-c", "cat /proc/[0-9]*/cmdline"); strings.Contains(r.Stdout, "sleep\x0054321") {
		t.Error("the command runs on after its context has ended")
	}
}

// testAtOnce has two commands wait for each other: one after the other they
// would never end.
func testAtOnce(t *testing.T, n *Node) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n.Must("mkfifo", "/tmp/a", "/tmp/b")
	g, ctx := errgroup.WithContext(ctx)
	var got Result
	g.Go(func() error {
		_, err := n.VM.Run(ctx, "sh", "-c", "echo ping >/tmp/a; cat /tmp/b")
		return err
	})
	g.Go(func() (err error) {
		got, err = n.VM.Run(ctx, "sh", "-c", "cat /tmp/a; echo pong >/tmp/b")
		return err
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got.Stdout != "ping\n" {
		t.Errorf("got %+v", got)
	}
}

func testFiles(t *testing.T, n *Node) {
	// More than the agent's queue for a command holds.
	big := make([]byte, 20<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	began := time.Now()
	n.Put("/opt/some dir/big", big, 0o640)
	put := time.Since(began)
	if got := n.Get("/opt/some dir/big"); string(got) != string(big) {
		t.Errorf("%d bytes came back otherwise", len(got))
	}
	t.Logf("20 MiB in after %.1f s, out again after %.1f s", put.Seconds(), time.Since(began).Seconds())
	if mode := n.Must("stat", "-c", "%a %u", "/opt/some dir/big"); mode != "640 0" {
		t.Errorf("mode and owner: %s", mode)
	}

	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "sub/empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "sub/tool"), []byte("#!/bin/sh\necho here\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/tool", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	n.PutDir("/opt/tree", from)
	if out := n.Must("/opt/tree/link"); out != "here" {
		t.Errorf("the tool says %q", out)
	}
	n.GetDir("/opt/tree", to)
	for _, name := range []string{"sub", "sub/empty", "sub/tool", "link"} {
		a, err := os.Lstat(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Lstat(filepath.Join(to, name))
		if err != nil {
			t.Error(err)
		} else if a.Mode() != b.Mode() {
			t.Errorf("%s: mode %v became %v", name, a.Mode(), b.Mode())
		}
	}
	// A program that reads no input does not keep others waiting.
	code, err := n.VM.Exec(t.Context(), agent.Command{Argv: []string{"true"}, Stdin: strings.NewReader(string(big))})
	if code != 0 || err != nil {
		t.Errorf("input that nobody reads: exit code %d, %v", code, err)
	}
}

func testState(t *testing.T, n *Node) {
	for _, again := range []struct {
		name string
		boot func()
	}{{"reboot", n.Reboot}, {"power cut", n.PowerCycle}} {
		before := n.Must("cat", "/proc/sys/kernel/random/boot_id")
		n.Shell(`for d in etc opt var root home; do echo "$1" >/$d/state; done; touch /tmp/gone; sync`, again.name)
		began := time.Now()
		again.boot()
		t.Logf("up again %.1f s after the %s", time.Since(began).Seconds(), again.name)
		if n.Must("cat", "/proc/sys/kernel/random/boot_id") == before {
			t.Fatal("it did not boot again")
		}
		got := n.Shell("cat /etc/state /opt/state /var/state /root/state /home/state")
		if want := strings.TrimSpace(strings.Repeat(again.name+"\n", 5)); got != want {
			t.Errorf("after a %s: %q", again.name, got)
		}
		if r := n.Run("test", "-e", "/tmp/gone"); r.Code == 0 {
			t.Error("/tmp is kept")
		}
	}
}

// testMaps shows that the image has the modules that rbd needs for each way to
// speak to a cluster.
func testMaps(t *testing.T, n *Node, c *cluster.Cluster) {
	n.Must("modprobe", "rbd")
	key, err := c.Secret("client.admin")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"legacy", "crc", "secure"} {
		t.Run(mode, func(t *testing.T) {
			n := n.For(t)
			if r := c.Rbd("create", mode, "--size", "32M"); r.Code != 0 {
				t.Fatalf("rbd create: %+v", r)
			}
			mon := c.MonV1()
			if mode != "legacy" {
				mon = c.MonV2()
			}
			began := time.Now()
			n.Shell(`echo "$1 name=admin,secret=$2,ms_mode=$3 rbd $3 -" >/sys/bus/rbd/add_single_major`, mon, key, mode)
			t.Logf("mapped after %.1f s", time.Since(began).Seconds())
			n.Shell(`
				mkfs.ext4 -q /dev/rbd0
				mount /dev/rbd0 /run/lock
				echo written >/run/lock/file
				umount /run/lock
				blkdiscard -z -o 16M -l 4096 /dev/rbd0
				udevadm settle
				echo 0 >/sys/bus/rbd/remove_single_major`)
		})
	}
}

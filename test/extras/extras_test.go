// Package extras tests on a real node what such a node lacks beside the rbd
// command: that disks are mapped and mounted at boot, that they are given back
// at shutdown, whatever still uses them, and the ways to install other than by
// files.
//
// One node serves all of it. That the files come and go exactly is tested in
// internal/node and test/node.
package extras

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

func TestNode(t *testing.T) {
	// Ceph's own 30 s until a watcher that says nothing is forgotten.
	c := cluster.Start(t, cluster.Options{})
	for _, image := range []string{"disk", "boot", "later"} {
		if r := c.Rbd("create", image, "--size", "64M"); r.Code != 0 {
			t.Fatalf("rbd create: %+v", r)
		}
	}
	n := node.Start(t, node.Options{NetNS: c.NetNS(), Kubelet: true})
	install(n, c, t)

	n.PutPod("disk", node.WriterPod("disk", &node.RBD{
		Monitors: []string{c.MonV1()}, Pool: "rbd", Image: "disk", User: "admin", Keyring: adminKeyring, FSType: "ext4",
	}))
	n.Put("/etc/ceph/rbdmap", []byte(`# the pool is rbd where none is named
boot		id=admin,keyring=`+adminKeyring+`,options='queue_depth=64,alloc_size=65536'
rbd/later	id=admin,keyring=`+adminKeyring+`	# one that is mounted by rbdmap itself
rbd/nosuch	id=admin
`), 0o644)
	n.Put("/etc/fstab", []byte("/dev/rbd/rbd/boot /var/lib/boot ext4 _netdev 0 0\n/dev/rbd/rbd/later /var/lib/later ext4 noauto 0 0\n"), 0o644)
	n.Put("/etc/ceph/rbd.d/rbd/later", []byte("#!/bin/sh\necho \"$@\" >>/root/hooks\n"), 0o755)
	n.Shell(`
		rm /etc/systemd/system-generators/systemd-fstab-generator
		mkdir -p /var/lib/boot /var/lib/later
		for image in boot later; do
			dev=$(/opt/bin/rbd map $image)
			mkfs.ext4 -q $dev
			/opt/bin/rbd unmap $dev
		done`)
	writes := func(times int) func() bool {
		return func() bool { return strings.Count(n.PodLog("disk"), "first line written") >= times }
	}
	n.WaitFor(2*time.Minute, "the pod writes", writes(1))

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := n.VM.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if r := c.Rbd("status", "disk"); r.Stdout != "Watchers: none\n" {
		t.Errorf("the node is off, and there is still a watcher:\n%s%s", r.Stdout, r.Stderr)
	}
	on := time.Now()
	if err := n.VM.Start(ctx); err != nil {
		t.Fatal(err)
	}
	up := time.Since(on)
	n.WaitFor(2*time.Minute, "the pod writes again", writes(2))
	back := time.Since(on)
	t.Logf("the pod's disk is back %.1f s after power-on, %.1f s after the first command", back.Seconds(), (back - up).Seconds())
	if strings.Contains(n.Journal("kubelet"), "rbd image rbd/disk is still being used") {
		t.Error("kubelet waited for a watcher that had stayed behind")
	}

	t.Run("MappedAtBoot", func(t *testing.T) { mappedAtBoot(t, n.For(t)) })
	t.Run("Rbdmap", func(t *testing.T) { rbdmap(t, n.For(t)) })
	t.Run("ShutdownIsNotByHand", func(t *testing.T) { notByHand(t, n.For(t)) })
	t.Run("Sysext", func(t *testing.T) { sysext(t, n.For(t)) })
	t.Run("Uninstall", func(t *testing.T) { uninstall(t, n.For(t)) })
	t.Run("ClusterGone", func(t *testing.T) { clusterGone(t, n.For(t), c) })
}

const adminKeyring = "/etc/ceph/ceph.client.admin.keyring"

// install has the node install by the unit of the Butane file, from the archive
// of the README.
func install(n *node.Node, c *cluster.Cluster, t *testing.T) {
	const bin, home = "../../bin", "/opt/rbd-installer"
	for _, part := range []string{"installer", "shim", "payload/payload.json"} {
		if _, err := os.Stat(filepath.Join(bin, part)); err != nil {
			t.Fatalf("no bin/%s: run `make build payload`", part)
		}
	}
	n.Put("/etc/ceph/ceph.conf", []byte("[global]\nmon_host = "+c.MonV2()+","+c.MonV1()+"\n"), 0o644)
	key, err := os.ReadFile(c.Keyring("client.admin"))
	if err != nil {
		t.Fatal(err)
	}
	n.Put(adminKeyring, key, 0o600)
	unit, err := exec.Command("go", "-C", "../butane", "run", ".", "flatcar.bu").Output()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "opt-rbd.tar")
	if out, err := exec.Command("tar", "-C", bin, "-cf", archive, "installer", "shim", "payload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.PutFile(home+"/opt-rbd.tar", archive)
	n.Put("/etc/systemd/system/opt-rbd-install.service", unit, 0o644)
	n.Must("systemctl", "enable", "opt-rbd-install.service")
	// At boot, as it is meant: kubelet waits for it.
	n.Reboot()
	n.WaitFor(2*time.Minute, "the installation", func() bool {
		return n.Run("systemctl", "is-active", "opt-rbd-install.service", "kubelet.service").Code == 0
	})
	t.Log(n.Must("journalctl", "-u", "opt-rbd-install", "-o", "cat"))
	if r := n.Run(home+"/installer", "status"); r.Code != 0 {
		t.Errorf("status: %+v", r)
	}
}

// sysext: the same rbd, merged into /usr by systemd.
func sysext(t *testing.T, n *node.Node) {
	if _, err := os.Stat("../../bin/opt-rbd.raw"); err != nil {
		t.Fatalf("%v: run `make sysext`", err)
	}
	n.PutFile("/var/lib/extensions/opt-rbd.raw", "../../bin/opt-rbd.raw")
	n.Must("modprobe", "loop") // this node's udev does not
	n.Must("systemd-sysext", "merge")
	n.Must("systemctl", "daemon-reload")
	// Its own parts, not those that the installer has put in /opt.
	n.Shell("mv /opt/rbd /opt/rbd.away")
	defer n.Shell("mv /opt/rbd.away /opt/rbd")
	if got := n.Shell("cd /; PATH=/usr/bin:/bin; command -v rbd; rbd ls"); got != "/usr/bin/rbd\nboot\ndisk\nlater" {
		t.Errorf("rbd ls prints %q", got)
	}
	n.Shell("dev=$(/usr/bin/rbd map later); test -b $dev; /usr/bin/rbd showmapped | grep later; /usr/bin/rbd unmap later")
	// Without the privilege to mount, by the payload's own loader.
	n.Shell("cd /; setpriv --reuid nobody --regid nogroup --clear-groups /usr/bin/rbd --version")
	if r := n.Run("env", "RBDMAPFILE=/nowhere", "/usr/bin/rbdmap", "map"); r.Code != 0 || r.Stderr != "rbdmap: no table at /nowhere\n" {
		t.Errorf("%+v", r)
	}
	n.Shell(`for u in rbdmap opt-rbd-shutdown; do systemd-analyze verify --man=no /usr/lib/systemd/system/$u.service; done
		test -e /usr/lib/udev/rules.d/50-rbd.rules`)
	n.Must("systemd-sysext", "unmerge")
	if r := n.Run("test", "-e", "/usr/bin/rbd"); r.Code == 0 {
		t.Error("/usr/bin/rbd is there after unmerge")
	}
}

// mappedAtBoot: what the table has is mapped before remote file systems are
// mounted, by systemd or by rbdmap itself.
func mappedAtBoot(t *testing.T, n *node.Node) {
	n.Shell("mountpoint /var/lib/boot; mountpoint /var/lib/later; grep queue_depth=64 /sys/bus/rbd/devices/*/config_info | grep alloc_size=65536")
	after := func(unit, property string) string { return n.Must("systemctl", "show", "-P", property, unit) }
	if got := after("var-lib-boot.mount", "After"); !strings.Contains(got, "remote-fs-pre.target") {
		t.Errorf("the mount is after %s", got)
	}
	if got := after("rbdmap.service", "Before"); !strings.Contains(got, "remote-fs-pre.target") {
		t.Errorf("rbdmap is before %s", got)
	}
	// One image of the table is not there: the unit says so, and has mapped the others.
	if got := n.Must("journalctl", "-b", "-u", "rbdmap", "-o", "cat"); !strings.Contains(got, "rbdmap: cannot map rbd/nosuch: ") {
		t.Errorf("of an image that is not there the unit says: %s", got)
	}
	if got := n.Shell("cat /root/hooks"); !strings.HasSuffix(got, "map /dev/rbd/rbd/later") {
		t.Errorf("the hook was called with %q", got)
	}
}

// rbdmap by hand.
func rbdmap(t *testing.T, n *node.Node) {
	mapped := func() string {
		return n.Shell("/opt/bin/rbd showmapped | awk '$3 != \"disk\" && NR > 1 {print $3}'")
	}
	if r := n.Run("/opt/bin/rbdmap", "unmap"); r.Code != 0 || r.Stdout+r.Stderr != "" || mapped() != "" {
		t.Errorf("rbdmap unmap: %+v, and there are %q", r, mapped())
	}
	r := n.Run("/opt/bin/rbdmap", "map")
	if want := "boot\nlater"; r.Code != 1 || r.Stdout != "" || mapped() != want {
		t.Errorf("rbdmap map: %+v, and there are %q", r, mapped())
	}
	// What is in use is told, and counted.
	n.Shell("mountpoint /var/lib/later; cd /var/lib/later; setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >/root/pid")
	r = n.Run("/opt/bin/rbdmap", "unmap")
	if r.Code != 1 || !strings.HasPrefix(r.Stderr, "rbdmap: cannot unmount /dev/rbd") || mapped() != "later" {
		t.Errorf("rbdmap unmap while it is used: %+v, and there are %q", r, mapped())
	}
	n.Shell("kill $(cat /root/pid)")
	n.WaitFor(10*time.Second, "rbdmap unmap", func() bool { return n.Run("/opt/bin/rbdmap", "unmap").Code == 0 })
	if got := n.Shell("tail -n 1 /root/hooks"); got != "unmap /dev/rbd/rbd/later" {
		t.Errorf("the hook was called with %q", got)
	}
	if r := n.Run("/opt/bin/rbdmap"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "Usage: rbdmap ") {
		t.Errorf("%+v", r)
	}
	if r := n.Run("env", "RBDMAPFILE=/nowhere", "/opt/bin/rbdmap", "unmap-all"); r.Code != 0 || r.Stderr != "rbdmap: no table at /nowhere\n" {
		t.Errorf("%+v", r)
	}
}

// notByHand: nobody stops the unit by mistake.
func notByHand(t *testing.T, n *node.Node) {
	if r := n.Run("systemctl", "stop", "opt-rbd-shutdown.service"); r.Code == 0 || n.Must("systemctl", "is-active", "opt-rbd-shutdown.service") != "active" {
		t.Errorf("%+v", r)
	}
	n.Shell("/opt/bin/rbd showmapped | grep disk")
}

// uninstall takes the unit away and leaves what is mapped alone.
func uninstall(t *testing.T, n *node.Node) {
	before := n.Shell("cat /sys/bus/rbd/devices/*/name; cat /proc/mounts | grep /dev/rbd")
	t.Log(n.Must("/opt/rbd-installer/installer", "uninstall"))
	if after := n.Shell("cat /sys/bus/rbd/devices/*/name; cat /proc/mounts | grep /dev/rbd"); after != before {
		t.Errorf("mapped and mounted were\n%s\nand are\n%s", before, after)
	}
	r := n.Run("systemctl", "is-active", "opt-rbd-shutdown.service")
	left := n.Shell("find /etc/systemd /etc/udev /opt -path /opt/rbd-installer -prune -o -name '*rbd*' ! -name opt-rbd-install.service ! -name opt-rbd-agent.service -print")
	if r.Stdout != "inactive\n" || left != "" {
		t.Errorf("the unit is %s, and there are %q", r.Stdout, left)
	}
}

// clusterGone: without the cluster the unit's command ends in bounded time, with
// a pod's writes that never will.
func clusterGone(t *testing.T, n *node.Node, c *cluster.Cluster) {
	n.PutFile("/root/rbdmap", "../../bin/shim")
	n.Shell("grep disk /sys/bus/rbd/devices/*/name")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r := n.Run("/root/rbdmap", "shutdown")
	took := time.Since(began)
	t.Logf("without the cluster: exit code %d after %.1f s\n%s", r.Code, took.Seconds(), r.Stderr)
	if !strings.Contains(r.Stderr, "by force now, what has not reached the cluster is lost\n") || took > 50*time.Second {
		t.Errorf("it took %.1f s", took.Seconds())
	}
}

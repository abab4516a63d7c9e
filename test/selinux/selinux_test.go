// Package selinux tests the installer on a real node whose kernel enforces an
// SELinux policy, laid out as Fedora CoreOS is. That every file gets its label,
// whatever interrupts, is tested in internal/node, which needs no such kernel.
package selinux

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

const (
	bin = "../../bin"
	// tools is where deploy/butane/fedora-coreos.bu unpacks the installer.
	tools   = "/usr/local/rbd-installer/bin"
	keyring = "/etc/ceph/ceph.client.admin.keyring"
)

type testNode struct {
	*node.Node
	t    *testing.T
	bare string // its files before the first installation, see files
}

func (n testNode) in(t *testing.T) testNode { return testNode{n.For(t), t, n.bare} }

func TestSELinux(t *testing.T) {
	if out, err := exec.Command("make", "-s", "-C", "../..", "bin/shim", "bin/installer").CombinedOutput(); err != nil {
		t.Fatalf("make bin/shim bin/installer: %v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(bin, "payload/payload.json")); err != nil {
		t.Fatalf("%v: run `make payload`", err)
	}
	c := cluster.Start(t, cluster.Options{})
	if r := c.Rbd("create", "disk", "--size", "64M"); r.Code != 0 {
		t.Fatalf("rbd create: %+v", r)
	}
	key, err := os.ReadFile(c.Keyring("client.admin"))
	if err != nil {
		t.Fatal(err)
	}
	n := testNode{Node: node.Start(t, node.Options{NetNS: c.NetNS(), SELinux: true}), t: t}
	n.Put("/etc/ceph/ceph.conf", []byte("[global]\nmon_host = "+c.MonV2()+","+c.MonV1()+"\n"), 0o644)
	n.Put(keyring, key, 0o600)
	for _, file := range []string{"installer", "shim"} {
		n.PutFile(tools+"/"+file, filepath.Join(bin, file))
	}
	n.PutDir(tools+"/payload", filepath.Join(bin, "payload"))
	n.Must("restorecon", "-R", "/usr/local/rbd-installer") // Ignition labels what it writes
	// A message of the kernel for each denial, however many there are.
	n.Shell("echo 0 >/proc/sys/kernel/printk_ratelimit")
	if got := n.Must("getenforce"); got != "Enforcing" {
		t.Fatalf("SELinux is %s", got)
	}
	if got := n.Shell("readlink /opt /usr/local"); got != "var/opt\n../var/usrlocal" {
		t.Fatalf("not laid out as Fedora CoreOS: %s", got)
	}
	n.bare = n.files()

	for _, theme := range []struct {
		name string
		run  func(testNode)
	}{
		{"a wrong label keeps a service from starting", control},
		{"usr local", usrLocal},
		{"opt by a pod", optByPod},
	} {
		if !t.Run(theme.name, func(t *testing.T) { theme.run(n.in(t)) }) {
			t.Logf("denied: %s", n.denials())
			return
		}
	}
}

// files is every file that the installer may touch, with its label. Times are
// left to the tests of test/installer.
func (n testNode) files() string {
	n.t.Helper()
	return n.Shell(`find /etc /var/opt /var/usrlocal -printf '%p %y %#m %U %G %l %Z\n' | sort`)
}

func (n testNode) same(before, what string) {
	n.t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(n.files(), "\n")); diff != "" {
		n.t.Errorf("%s:\n%s", what, diff)
	}
}

// installer has it run as the unit of deploy/butane has it, and returns all
// that it said. As a service, too, since Debian's policy lets the bus take no
// pipe, by which the installer reads what its proof prints, from a root shell.
func (n testNode) installer(code int, args ...string) string {
	n.t.Helper()
	return n.service(code, append([]string{tools + "/installer"}, args...)...)
}

// service has systemd run a program directly, as it does kubelet and the like,
// and returns what that wrote. Options of systemd-run may come first.
func (n testNode) service(code int, argv ...string) string {
	n.t.Helper()
	began := time.Now()
	services++
	unit := fmt.Sprintf("test%d.service", services)
	r := n.Run(append([]string{"systemd-run", "--quiet", "--wait", "--collect", "--unit", unit}, argv...)...)
	said := n.Shell(`journalctl --sync; journalctl --quiet --output=cat _SYSTEMD_UNIT="$1" _TRANSPORT=stdout`, unit)
	n.t.Logf("%s: exit code %d after %.1f s\n%s%s", strings.Join(argv, " "), r.Code, time.Since(began).Seconds(), r.Stderr, said)
	if r.Code != code {
		n.t.Fatalf("exit code %d, not %d", r.Code, code)
	}
	return said
}

var services int // each has a name of its own

func (n testNode) contains(text string, wants ...string) {
	n.t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			n.t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// denials returns what was denied since the last call, but for what nobody
// minds: Debian's policy does not let its services ask whether /usr/local has
// settings for them where that is a link.
func (n testNode) denials() string {
	n.t.Helper()
	return n.Shell(`dmesg --read-clear | grep "avc: *denied" | grep -v -e 'name="local"' -e 'path="/usr/local"' || true`)
}

// cannotStart is what happens to a service whose program has a wrong label.
func (n testNode) cannotStart(program, label string) {
	n.t.Helper()
	n.denials()
	n.service(203, program) // EXIT_EXEC of systemd.exec(5)
	n.contains(n.denials(), "{ execute }", `name="`+filepath.Base(program)+`"`, ":init_t:", ":"+label+":", "permissive=0")
}

// control shows that this kernel enforces what Fedora CoreOS does: the same
// program runs or does not by its label alone.
func control(n testNode) {
	n.Must("cp", "/usr/bin/true", "/opt/control")
	n.cannotStart("/opt/control", "var_t")
	n.Must("chcon", "-t", "bin_t", "/opt/control")
	n.service(0, "/opt/control")
	n.Must("rm", "/opt/control")
	n.same(n.bare, "after the control")
}

// relabel is what a relabel of the system would set otherwise in a prefix.
func (n testNode) relabel(dir string) string {
	n.t.Helper()
	return n.Shell(`restorecon -R -n -v "$1" 2>&1`, dir)
}

// typeOf is the type in a file's label.
func (n testNode) typeOf(name string) string {
	n.t.Helper()
	return strings.Split(n.Must("stat", "--format=%C", name), ":")[2]
}

// nothingDenied: since the last call nothing was, to nobody.
func (n testNode) nothingDenied(what string) {
	n.t.Helper()
	if denied := n.denials(); denied != "" {
		n.t.Errorf("denied in %s:\n%s", what, denied)
	}
}

func usrLocal(n testNode) {
	n.denials()
	n.contains(n.installer(2, "plan"), "write /usr/local/bin/rbd")
	n.same(n.bare, "after plan")
	n.contains(n.installer(0, "install"), "rbd --version as a service: ceph version")
	n.contains(n.installer(0, "status"), "ok       SELinux labels\n")
	n.contains(n.service(0, "/usr/local/bin/rbd", "--version"), "ceph version")
	n.nothingDenied("an installation")
	for name, want := range map[string]string{
		"/usr/local/bin/rbd":                                         "bin_t",
		"/usr/local/bin/ceph-rbdnamer":                               "bin_t",
		"/usr/local/rbd/installed.json":                              "usr_t",
		"/usr/local/rbd/current/usr/bin/rbd":                         "bin_t",
		"/usr/local/rbd/current/usr/sbin/modprobe":                   "bin_t",
		"/usr/local/rbd/current/usr/lib/opt-rbd":                     "lib_t",
		"/etc/systemd/system/rbdmap.service":                         "systemd_unit_t",
		"/etc/systemd/system/multi-user.target.wants/rbdmap.service": "systemd_unit_t",
		"/etc/udev/rules.d/50-rbd.rules":                             "udev_rules_t",
		"/etc/modules-load.d/rbd.conf":                               "etc_t",
	} {
		if got := n.typeOf(name); got != want {
			n.t.Errorf("%s has %s, not %s", name, got, want)
		}
	}

	// A relabel of the system sets next to nothing otherwise, and of that the
	// installer says nothing: see the plan below.
	for _, line := range strings.Split(n.relabel("/var/usrlocal"), "\n") {
		if !strings.Contains(line, "/ld-linux-x86-64.so.2 from ") {
			n.t.Errorf("by a relabel: %s", line)
		}
	}
	n.Must("restorecon", "-R", "/var/usrlocal", "/etc")
	if got := n.typeOf("/etc/systemd/system/opt-rbd-shutdown.service"); got != "power_unit_t" {
		n.t.Errorf("the policy has no label of its own for this unit: %s", got)
	}

	// udev, which is confined, names the device by the launcher.
	n.contains(n.service(0, "/usr/local/bin/rbd", "map", "disk"), "/dev/rbd0")
	n.Must("udevadm", "settle")
	n.service(0, "/usr/local/bin/rbd", "unmap", "/dev/rbd/rbd/disk")
	n.nothingDenied("map and unmap")

	n.Must("chcon", "-t", "var_t", "/usr/local/bin/rbd")
	n.cannotStart("/usr/local/bin/rbd", "var_t")
	n.contains(n.installer(2, "plan"), "1. set the SELinux label of /usr/local/bin/rbd (/usr/local/bin/rbd has var_t, not bin_t)\n")
	n.contains(n.installer(0, "install"), "SELinux label set, of /usr/local/bin/rbd (")
	n.service(0, "/usr/local/bin/rbd", "--version")

	n.Must("systemd-run", "--quiet", "--unit=keep", tools+"/installer", "run")
	n.WaitFor(time.Minute, "installer run", func() bool { return n.Run(tools+"/installer", "ready").Code == 0 })
	const inside = "/usr/local/rbd/current/usr/bin/rbd"
	n.Must("chcon", "-t", "var_t", inside)
	n.WaitFor(time.Minute, "the label is mended", func() bool { return n.typeOf(inside) == "bin_t" })
	n.Must("systemctl", "stop", "keep")

	n.installer(0, "uninstall")
	n.same(n.bare, "after uninstall")
}

// optByPod: a pod installs into a folder of which the policy knows only that it
// is data of /var. To set labels there it needs no capability, and no SELinux
// in its /sys.
func optByPod(n testNode) {
	pod := func(code int, args ...string) {
		n.t.Helper()
		const host = "/run/pod"
		options := []string{
			"--property=TemporaryFileSystem=" + host + " " + host + "/run", "--property=InaccessiblePaths=/sys",
			"--property=CapabilityBoundingSet=", "--property=SystemCallFilter=@system-service",
		}
		for _, dir := range []string{"/usr", "/etc/systemd", "/etc/modules-load.d", "/etc/udev", "/opt"} {
			options = append(options, "--property=BindPaths="+dir+":"+host+dir)
		}
		argv := append([]string{tools + "/installer"}, args...)
		n.service(code, append(options, append(argv, "--root="+host, "--live", "--no-restart")...)...)
	}
	version := func() {
		n.t.Helper()
		n.contains(n.service(0, "/opt/bin/rbd", "--version"), "ceph version")
	}
	n.denials()
	pod(0, "install", "--prefix", "/opt")
	version()
	n.nothingDenied("an installation by a pod")

	// A relabel of the system takes the labels away, and the installer sets them
	// again.
	n.Must("restorecon", "-R", "/var/opt")
	n.cannotStart("/opt/bin/rbd", "var_t")
	pod(0, "install")
	version()

	// With the rule of docs/hosts.md the relabel leaves them. semanage writes it
	// to this file.
	const rules = "/etc/selinux/default/contexts/files/file_contexts.subs"
	before := n.Get(rules)
	n.Put(rules, append(before[:len(before):len(before)], "/var/opt /opt\n"...), 0o644)
	if text := n.relabel("/var/opt"); strings.Contains(text, "/var/opt/") {
		n.t.Errorf("by a relabel: %s", text)
	}
	n.Must("restorecon", "-R", "/var/opt")
	pod(0, "plan")
	version()
	n.Put(rules, before, 0o644)

	pod(0, "uninstall")
	n.Must("restorecon", "-R", "/var/opt", rules)
	n.Must("rmdir", "/run/pod")
	n.same(n.bare, "after uninstall")
}

// Package installer tests bin/installer on a real node: systemd, D-Bus, a
// read-only /usr, the kernel's module. A small service stands for kubelet; the
// real one is in test/node. What happens to files alone is tested in
// internal/node, which needs no node.
package installer

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opt-rbd/opt-rbd/internal/payload"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

// tools is where an admin unpacked the installer.
const tools = "/root/opt-rbd"

// A testNode is a node with the installer on it.
type testNode struct {
	*node.Node
	t *testing.T
}

// in is the node for a subtest: its failures are the subtest's.
func (n testNode) in(t *testing.T) testNode { return testNode{n.For(t), t} }

// installer runs it and returns all that it said.
func (n testNode) installer(code int, args ...string) string {
	n.t.Helper()
	began := time.Now()
	r := n.Run(append([]string{tools + "/installer"}, args...)...)
	n.t.Logf("installer %s: exit code %d after %.1f s\n%s%s", strings.Join(args, " "), r.Code, time.Since(began).Seconds(), r.Stdout, r.Stderr)
	if r.Code != code {
		n.t.Fatalf("exit code %d, not %d", r.Code, code)
	}
	if code == 1 && args[0] != "status" && strings.Count(r.Stderr, "\n") != 1 {
		n.t.Errorf("an error is one line, not %q", r.Stderr)
	}
	return r.Stdout + r.Stderr
}

// files is every file of the places that can be written, with its content.
// Times of folders are left out: they change when a name in them comes and
// goes. /etc/machine-id and the like are files as all others.
func (n testNode) files() string {
	n.t.Helper()
	return n.Shell(`
		find /etc /opt /var/opt /usr/local ! -type d -printf '%p %y %#m %U %G %l %T@\n' -o -printf '%p %y %#m %U %G\n' | sort
		find /etc /opt /var/opt -type f -exec sha256sum {} + | sort -k 2`)
}

func (n testNode) same(before, what string) {
	n.t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(n.files(), "\n")); diff != "" {
		n.t.Errorf("%s:\n%s", what, diff)
	}
}

func (n testNode) contains(text string, wants ...string) {
	n.t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			n.t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// servicePath is the PATH that a service gets which starts now.
func (n testNode) servicePath() string {
	n.t.Helper()
	return n.Must("systemd-run", "--quiet", "--pipe", "--wait", "printenv", "PATH")
}

// kubelet makes the service that stands for kubelet, in /run, which is none
// of the installer's places. Each of its starts adds a line to a file.
func (n testNode) kubelet(service ...string) {
	n.t.Helper()
	n.Put("/run/systemd/system/kubelet.service", []byte(fmt.Sprintf(`[Service]
ExecStart=/bin/sh -c 'test ! -e /run/kubelet.broken || { sleep 0.2; exit 3; }; echo started >>/run/kubelet.starts; exec sleep infinity'
%s
`, strings.Join(service, "\n"))), 0o644)
	n.Shell("rm -f /run/kubelet.starts; systemctl daemon-reload; systemctl restart kubelet.service; until test -e /run/kubelet.starts; do sleep 0.1; done")
}

func (n testNode) noKubelet() {
	n.t.Helper()
	n.Shell("systemctl stop kubelet.service; systemctl reset-failed kubelet.service || true; rm -rf /run/systemd/system/kubelet.service* /run/kubelet.*; systemctl daemon-reload")
}

func (n testNode) pid() string {
	n.t.Helper()
	return n.Must("systemctl", "show", "--value", "--property=MainPID", "kubelet.service")
}

func (n testNode) starts() int {
	n.t.Helper()
	return strings.Count(string(n.Get("/run/kubelet.starts")), "started")
}

func (n testNode) unloadModule() {
	n.t.Helper()
	n.Shell("! test -e /sys/bus/rbd || modprobe -r rbd")
}

// tinyPayload is a payload with a static program as rbd. What a payload holds
// is not the installer's affair, and the real one takes seconds to copy in an
// emulated machine.
func tinyPayload(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "usr/bin/rbd"), "./testdata/rbd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	manifest, err := payload.Scan(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	manifest.Machine = elf.EM_X86_64.String()
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, payload.ManifestName), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInstaller(t *testing.T) {
	if out, err := exec.Command("make", "-s", "-C", "../..", "bin/shim", "bin/installer").CombinedOutput(); err != nil {
		t.Fatalf("make bin/shim bin/installer: %v: %s", err, out)
	}
	content := tinyPayload(t)
	n := testNode{node.Start(t, node.Options{}), t}
	n.PutFile(tools+"/installer", "../../bin/installer")
	n.PutFile(tools+"/shim", "../../bin/shim")
	n.PutDir(tools+"/payload", content)

	before := n.files()
	pathBefore := n.servicePath()
	if r := n.Run("sh", "-c", "command -v rbd /opt/bin/rbd; test ! -e /sys/bus/rbd"); r.Code != 0 || r.Stdout != "" {
		t.Fatalf("a node with rbd: %v", r)
	}

	ok := t.Run("without kubelet", func(t *testing.T) {
		n := n.in(t)
		n.contains(n.installer(1, "status"), "nothing is installed in /opt")
		n.contains(n.installer(2, "plan"), `+DefaultEnvironment="PATH=`+pathBefore+`:/opt/bin"`, "+++ /etc/modules-load.d/rbd.conf", "restart systemd-modules-load.service", "reload systemd")
		n.same(before, "after plan")

		said := n.installer(0, "install", "--kubelet-unit", "k3s")
		n.contains(said, "no k3s.service on this node", "module rbd loaded", "/opt/bin/rbd --version: rbd of the test", "installed (")
		n.Must("test", "-e", "/sys/bus/rbd/add_single_major")
		if got := n.servicePath(); got != pathBefore+":/opt/bin" {
			t.Errorf("a service gets PATH=%s", got)
		}
		n.contains(n.Must("systemd-run", "--quiet", "--pipe", "--wait", "sh", "-c", "rbd --version"), "rbd of the test")

		installed := n.files()
		n.installer(0, "plan")
		n.installer(0, "status")
		n.contains(n.installer(0, "install"), "nothing to do")
		n.same(installed, "after a second install")

		// kubelet comes later.
		n.installer(0, "install", "--kubelet-unit", "kubelet")

		n.Shell("rm /etc/modules-load.d/rbd.conf")
		n.contains(n.installer(1, "status"), "missing  /etc/modules-load.d/rbd.conf")
		n.contains(n.installer(0, "install"), "/etc/modules-load.d/rbd.conf written")

		n.contains(n.installer(0, "uninstall"), "systemd reloaded", "uninstalled (")
		n.same(before, "after uninstall")
		if got := n.servicePath(); got != pathBefore {
			t.Errorf("after uninstall a service gets PATH=%s", got)
		}
	})
	ok = ok && t.Run("with kubelet", func(t *testing.T) {
		n := n.in(t)
		n.unloadModule()
		n.kubelet()
		first := n.pid()
		n.contains(n.installer(2, "plan"), "restart kubelet.service")
		said := n.installer(0, "install")
		second := n.pid()
		n.contains(said, "kubelet.service restarted, pid "+second+", was "+first, "pid "+second+", finds /opt/bin/rbd")
		if n.starts() != 2 || first == second {
			t.Errorf("%d starts, pid %s, then %s", n.starts(), first, second)
		}
		n.contains(n.Shell(`tr '\0' '\n' <"/proc/$1/environ"`, second), "PATH="+pathBefore+":/opt/bin")

		n.installer(0, "status")
		n.contains(n.installer(0, "install"), "nothing to do")
		// The module alone is missing: it is loaded, kubelet is left alone.
		n.unloadModule()
		n.contains(n.installer(1, "status"), "missing  kernel module rbd: not loaded")
		n.contains(n.installer(0, "install"), "module rbd loaded")
		if n.pid() != second || n.starts() != 2 {
			t.Errorf("kubelet was restarted: pid %s, %d starts", n.pid(), n.starts())
		}

		n.installer(0, "uninstall")
		if n.pid() != second {
			t.Error("uninstall restarted kubelet")
		}
		n.same(before, "after uninstall")
		n.noKubelet()
	})
	ok = ok && t.Run("kubelet with a PATH of its own", func(t *testing.T) {
		n := n.in(t)
		for name, c := range map[string]struct{ unit, fixed, want string }{
			"Environment":     {"Environment=PATH=/usr/sbin:/usr/bin", "Environment=PATH=/usr/sbin:/usr/bin:/opt/bin", "kubelet.service sets its own PATH=/usr/sbin:/usr/bin by Environment=, which beats that of systemd: add :/opt/bin there"},
			"EnvironmentFile": {"EnvironmentFile=/run/kubelet.env", "EnvironmentFile=/run/kubelet.env", "kubelet.service sets its own PATH=/usr/bin:/usr/sbin by EnvironmentFile=/run/kubelet.env, which beats"},
		} {
			t.Run(name, func(t *testing.T) {
				n := n.in(t)
				n.Put("/run/kubelet.env", []byte("X=1\nPATH=/usr/bin:/usr/sbin\n"), 0o644)
				n.kubelet(c.unit)
				pid := n.pid()
				n.contains(n.installer(1, "install"), c.want)
				if n.pid() != pid {
					t.Error("kubelet was restarted, which cannot help")
				}
				n.contains(n.installer(1, "status"), "changed  kubelet: kubelet.service sets its own PATH")

				// The admin does as told.
				n.Put("/run/kubelet.env", []byte("PATH=/usr/bin:/usr/sbin:/opt/bin\n"), 0o644)
				n.kubelet(c.fixed)
				pid = n.pid()
				n.contains(n.installer(0, "install"), "finds /opt/bin/rbd")
				if n.pid() != pid {
					t.Error("kubelet was restarted for nothing")
				}
			})
		}
		n.installer(0, "uninstall")
		n.same(before, "after uninstall")
		n.noKubelet()
	})
	ok = ok && t.Run("kubelet does not come back", func(t *testing.T) {
		n := n.in(t)
		for name, c := range map[string]struct{ unit, want string }{
			"once":          {"Restart=no", "kubelet.service does not stay up after its restart: failed"},
			"again anew":    {"Restart=always\nRestartSec=2s", "kubelet.service does not stay up after its restart: "},
			"never started": {"ExecStartPre=/bin/sh -c 'test ! -e /run/kubelet.broken'", `restart kubelet.service: the job ended as "failed": see journalctl -u kubelet.service`},
		} {
			t.Run(name, func(t *testing.T) {
				n := n.in(t)
				n.kubelet(c.unit)
				n.Put("/run/kubelet.broken", nil, 0o644)
				n.contains(n.installer(1, "install", "--timeout", "6s"), c.want)
				n.Must("rm", "/run/kubelet.broken")
				if name == "once" { // and then somebody repairs it
					n.contains(n.installer(1, "status"), "changed  the installation is not finished")
					n.Must("systemctl", "restart", "kubelet.service")
					n.contains(n.installer(0, "install"), "finds /opt/bin/rbd")
				}
				n.installer(0, "uninstall")
				n.noKubelet()
			})
		}
		n.same(before, "after uninstall")
	})
	ok = ok && t.Run("kubelet whose program sets PATH", func(t *testing.T) {
		n := n.in(t)
		n.kubelet("ExecStart=", "ExecStart=/bin/sh -c 'echo started >>/run/kubelet.starts; export PATH=/usr/bin; exec sleep infinity'")
		for range 2 {
			n.contains(n.installer(1, "install"), "kubelet.service was restarted and still has no /opt/bin in its PATH")
			if n.starts() != 2 {
				t.Errorf("%d starts, not 2: it is restarted once", n.starts())
			}
		}
		n.installer(0, "uninstall")
		n.same(before, "after uninstall")
		n.noKubelet()
	})
	ok = ok && t.Run("ended by SIGTERM", func(t *testing.T) {
		n := n.in(t)
		n.kubelet("ExecStartPre=/bin/sh -c 'test ! -e /run/kubelet.slow || { touch /run/kubelet.starting; sleep 300; }'")
		n.Put("/run/kubelet.slow", nil, 0o644)
		r := n.Run("sh", "-c", `"$0" install & until test -e /run/kubelet.starting; do sleep 0.1; done; kill -TERM $!; wait $!`, tools+"/installer")
		if want := "installer: interrupted: run install again to finish, or uninstall to take it back\n"; r.Code != 1 || r.Stderr != want {
			t.Errorf("%+v", r)
		}
		n.Must("test", "-e", "/etc/systemd/system.conf.d/50-opt-rbd.conf")
		n.noKubelet()
		n.installer(0, "uninstall")
		n.same(before, "after uninstall")
	})
	ok = ok && t.Run("PATH beaten for all services", func(t *testing.T) {
		n := n.in(t)
		n.Must("systemctl", "set-environment", "PATH=/usr/sbin:/usr/bin")
		n.contains(n.installer(1, "install"), "systemctl unset-environment PATH")
		n.Must("systemctl", "unset-environment", "PATH")
		n.Put("/run/systemd/system.conf.d/90-site.conf", []byte("[Manager]\nDefaultEnvironment=PATH=/usr/bin:/usr/sbin\n"), 0o644)
		n.Must("systemctl", "daemon-reload")
		n.contains(n.installer(1, "install"), "/run/systemd/system.conf.d/90-site.conf sets PATH after 50-opt-rbd.conf and beats it: add :/opt/bin there")
		// The same under a name that comes before ours is extended.
		n.Shell("cd /run/systemd/system.conf.d; mv 90-site.conf 10-site.conf; systemctl daemon-reload")
		n.installer(0, "install")
		if got := n.servicePath(); got != "/usr/bin:/usr/sbin:/opt/bin" {
			t.Errorf("a service gets PATH=%s", got)
		}
		n.installer(0, "uninstall")
		n.Shell("rm -r /run/systemd/system.conf.d; systemctl daemon-reload")
		n.same(before, "after uninstall")
	})
	ok = ok && t.Run("module that must not be loaded", func(t *testing.T) {
		n := n.in(t)
		n.unloadModule()
		n.Put("/run/modprobe.d/no.conf", []byte("blacklist rbd\n"), 0o644)
		n.contains(n.installer(1, "install"), "the kernel has no rbd module loaded")
		n.Must("rm", "/run/modprobe.d/no.conf")
		n.installer(0, "install")
		n.installer(0, "uninstall")
		n.same(before, "after uninstall")
	})
	ok = ok && t.Run("files only", func(t *testing.T) {
		n := n.in(t)
		n.unloadModule()
		n.installer(0, "install", "--no-restart")
		n.installer(0, "plan", "--no-restart")
		if n.servicePath() != pathBefore || n.Run("test", "-e", "/sys/bus/rbd").Code == 0 {
			t.Error("--no-restart reloaded or loaded something")
		}
		n.contains(n.installer(1, "status"), "missing  kernel module rbd")
		n.installer(0, "uninstall")
		n.same(before, "after uninstall")
	})
	ok = ok && t.Run("other user", func(t *testing.T) {
		n := n.in(t)
		n.Shell("cp -r /root/opt-rbd /var/tmp/opt-rbd")
		r := n.Run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/var/tmp/opt-rbd/installer", "install")
		if want := "installer: only root can install: run it with sudo\n"; r.Code != 1 || r.Stderr != want {
			t.Errorf("%v", r)
		}
		n.same(before, "after a refused install")
	})
	_ = ok && t.Run("without a bus", func(t *testing.T) {
		n := n.in(t)
		n.Shell("mv /run/dbus/system_bus_socket /run/dbus/hidden")
		n.contains(n.installer(0, "install"), "installed (")
		n.Shell("mv /run/systemd/private /run/systemd/hidden; mv /run/systemd/system /run/systemd/not")
		n.contains(n.installer(1, "install"), "systemd does not run here: --no-restart")
		n.Shell("mv /run/systemd/not /run/systemd/system")
		n.contains(n.installer(1, "install"), "cannot reach systemd over D-Bus")
		n.Shell("mv /run/systemd/hidden /run/systemd/private; mv /run/dbus/hidden /run/dbus/system_bus_socket")
		n.installer(0, "uninstall")
		n.same(before, "after uninstall")
	})
}

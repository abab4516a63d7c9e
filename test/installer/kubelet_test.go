package installer

import (
	"testing"
)

func withKubelet(n testNode) {
	t := n.t
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
	n.contains(n.Shell(`tr '\0' '\n' <"/proc/$1/environ"`, second), "PATH="+n.path+":/opt/bin")

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
	n.same(n.bare, "after uninstall")
	n.noKubelet()
}

// A unit that does not get the PATH of all services gets a drop-in of its own.
func kubeletWithPath(n testNode) {
	for name, c := range map[string]struct{ unit, want string }{
		"Environment":               {`Environment="PATH=/usr/sbin:/usr/bin:/run/a b:/run/%%h"`, "/usr/sbin:/usr/bin:/run/a b:/run/%h"},
		"EnvironmentFile":           {"EnvironmentFile=/run/kubelet.env", "/usr/bin:/usr/sbin"},
		"systemctl set-environment": {"", "/usr/bin:/run/site"},
	} {
		n.t.Run(name, func(t *testing.T) {
			n := n.in(t)
			n.Put("/run/kubelet.env", []byte("X=1\nPATH=/usr/bin:/usr/sbin\n"), 0o644)
			if c.unit == "" {
				n.Must("systemctl", "set-environment", "PATH="+c.want)
			}
			n.kubelet(c.unit)
			pid := n.pid()
			n.installer(2, "plan")
			const dropIn = "/etc/systemd/system/kubelet.service.d/zz-opt-rbd.conf"
			n.contains(n.installer(0, "install"), dropIn+" written", "kubelet.service restarted", "finds /opt/bin/rbd")
			if n.pid() == pid {
				t.Error("kubelet was not restarted")
			}
			n.contains(n.Shell(`tr '\0' '\n' <"/proc/$1/environ"`, n.pid())+"\n", "PATH="+c.want+":/opt/bin\n")
			n.contains(n.installer(0, "status"), dropIn)
			n.contains(n.installer(0, "install"), "nothing to do")

			// Somebody removes it: it comes back.
			n.Must("rm", dropIn)
			n.contains(n.installer(1, "status"), "missing  "+dropIn)
			n.installer(0, "install")
			n.Must("test", "-e", dropIn)
			n.installer(0, "uninstall")
			if c.unit == "" {
				n.Must("systemctl", "unset-environment", "PATH")
			}
			n.same(n.bare, "after uninstall")
		})
	}
	n.noKubelet()
}

func kubeletStaysDown(n testNode) {
	t := n.t
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
	// A kubelet that comes back only without our folder in its PATH runs on as it did.
	n.t.Run("because of the PATH", func(t *testing.T) {
		n := n.in(t)
		n.kubelet(`ExecStartPre=/bin/sh -c 'case $PATH in *opt*) exit 1;; esac'`)
		said := n.installer(1, "install", "--timeout", "20s")
		n.contains(said, `the job ended as "failed"`, "without the new PATH, which is taken back, it runs again, pid "+n.pid())
		n.Must("test", "!", "-e", "/etc/systemd/system.conf.d/50-opt-rbd.conf")
		if got := n.servicePath(); got != n.path {
			t.Errorf("a service gets PATH=%s", got)
		}
		n.installer(0, "uninstall")
		n.noKubelet()
	})
	n.same(n.bare, "after uninstall")
}

func kubeletSetsPath(n testNode) {
	t := n.t
	n.kubelet("ExecStart=", "ExecStart=/bin/sh -c 'echo started >>/run/kubelet.starts; export PATH=/usr/bin; exec sleep infinity'")
	for range 2 {
		n.contains(n.installer(1, "install"), "kubelet.service was restarted and still has no /opt/bin in its PATH")
		if n.starts() != 2 {
			t.Errorf("%d starts, not 2: it is restarted once", n.starts())
		}
	}
	n.installer(0, "uninstall")
	n.same(n.bare, "after uninstall")
	n.noKubelet()
}

func endedBySignal(n testNode) {
	t := n.t
	n.kubelet("ExecStartPre=/bin/sh -c 'test ! -e /run/kubelet.slow || { touch /run/kubelet.starting; sleep 300; }'")
	n.Put("/run/kubelet.slow", nil, 0o644)
	r := n.Run("sh", "-c", `"$0" install & until test -e /run/kubelet.starting; do sleep 0.1; done; kill -TERM $!; wait $!`, tools+"/installer")
	if want := "installer: interrupted: run install again to finish, or uninstall to take it back\n"; r.Code != 1 || r.Stderr != want {
		t.Errorf("%+v", r)
	}
	n.Must("test", "-e", "/etc/systemd/system.conf.d/50-opt-rbd.conf")
	n.noKubelet()
	n.installer(0, "uninstall")
	n.same(n.bare, "after uninstall")
}

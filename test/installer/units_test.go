package installer

import (
	"testing"
)

// otherUnits: kubelet is found by the names of the known distributions, and a
// unit that is the API server, too, is restarted only when asked for.
func otherUnits(n testNode) {
	unit := func(name string) {
		n.t.Helper()
		n.Put("/run/systemd/system/"+name, []byte("[Service]\nExecStart=/bin/sleep infinity\n"), 0o644)
		n.Must("systemctl", "daemon-reload")
		n.Must("systemctl", "start", name)
	}
	gone := func(name string) {
		n.t.Helper()
		n.Must("systemctl", "stop", name)
		n.Must("rm", "/run/systemd/system/"+name)
		n.Must("systemctl", "daemon-reload")
	}
	pid := func(name string) string {
		n.t.Helper()
		return n.Must("systemctl", "show", "--value", "--property=MainPID", name)
	}
	n.t.Run("k3s-agent", func(t *testing.T) {
		n := n.in(t)
		unit("k3s-agent.service")
		n.contains(n.installer(0, "install"), "k3s-agent.service restarted", "finds /opt/bin/rbd")
		n.installer(0, "uninstall")
	})
	n.t.Run("two", func(t *testing.T) {
		n := n.in(t)
		unit("k3s.service")
		n.Must("systemctl", "restart", "k3s-agent.service") // with the PATH of before
		n.contains(n.installer(1, "install"), "k3s-agent.service and k3s.service are on this node: say with --kubelet-unit which")
		n.contains(n.installer(0, "install", "--kubelet-unit", "k3s-agent"), "k3s-agent.service restarted")
		n.installer(0, "uninstall")
		gone("k3s-agent.service")
	})
	n.t.Run("server", func(t *testing.T) {
		n := n.in(t)
		before := pid("k3s.service")
		n.contains(n.installer(1, "install"), "k3s.service is the API server, too: restart it when that is right (systemctl restart k3s.service), or let the installer do it with --restart-server")
		if pid("k3s.service") != before {
			t.Error("it was restarted")
		}
		n.contains(n.installer(0, "install", "--restart-server"), "k3s.service restarted")
		n.installer(0, "uninstall")

		// Or the admin does it.
		n.Must("systemctl", "restart", "k3s.service")
		n.installer(1, "install")
		n.Must("systemctl", "restart", "k3s.service")
		n.contains(n.installer(0, "install"), "k3s.service, pid "+pid("k3s.service")+", finds /opt/bin/rbd")
		n.installer(0, "uninstall")
		gone("k3s.service")
	})
	n.same(n.bare, "after uninstall")
}

// noexec: a launcher that cannot be run is not put there.
func noexec(n testNode) {
	n.Must("mount", "-t", "tmpfs", "-o", "noexec", "none", "/opt")
	n.contains(n.installer(1, "install"), "programs cannot be run in /opt: its file system is mounted with noexec", "--prefix")
	n.Must("umount", "/opt")
	n.same(n.bare, "after a refused install")
}

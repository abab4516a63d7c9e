package installer

import (
	"testing"
)

// inPod runs the installer as a pod of the DaemonSet has it: no process of the
// host in sight, no capability, the folders that its manifest mounts.
func (n testNode) inPod(code int, args ...string) string {
	n.t.Helper()
	script := `
		host=/run/opt-rbd-test-pod
		mkdir -p $host
		mount -t tmpfs none $host
		for dir in usr etc/systemd etc/modules-load.d etc/udev run/dbus opt; do
			mkdir -p $host/$dir
			mount --bind /$dir $host/$dir
		done
		exec setpriv --bounding-set=-all --inh-caps=-all "$0" "$@" --root $host --live`
	return n.installs(code, args[0], append([]string{
		"unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", script, tools + "/installer"}, args...))
}

func insidePod(n testNode) {
	n.unloadModule()
	n.kubelet("EnvironmentFile=-/run/kubelet.env")
	n.Put("/run/kubelet.env", []byte("X=1\n"), 0o600)
	first := n.pid()
	n.contains(n.inPod(2, "plan"), "restart kubelet.service")
	n.same(n.bare, "after plan")
	said := n.inPod(0, "install")
	second := n.pid()
	n.contains(said,
		"/opt/bin/rbd --version: rbd of the test",
		"kubelet.service restarted, pid "+second+", was "+first,
		"pid "+second+", finds /opt/bin/rbd",
		"rbd --version as a service: rbd of the test")
	n.contains(n.Shell(`tr '\0' '\n' <"/proc/$1/environ"`, second), "PATH="+n.path+":/opt/bin")

	unmoved := func(why string) {
		n.t.Helper()
		before := n.pid()
		n.inPod(0, "plan")
		n.inPod(0, "status")
		n.contains(n.inPod(0, "install"), "nothing to do")
		if n.pid() != before {
			n.t.Errorf("kubelet was restarted: %s", why)
		}
	}
	unmoved("a second install")
	n.Must("systemctl", "daemon-reload")
	unmoved("systemd was reloaded by somebody else")
	n.Must("systemctl", "restart", "kubelet.service")
	unmoved("it was restarted by somebody else")
	n.Must("systemctl", "daemon-reload")
	unmoved("it was restarted, then systemd reloaded, by somebody else")

	n.inPod(0, "uninstall")
	n.same(n.bare, "after uninstall")

	// Files alone, read by systemd after kubelet was started: only its age tells
	// that it does not have the PATH which systemd now gives.
	n.t.Run("older kubelet", func(t *testing.T) {
		n := n.in(t)
		n.Must("systemctl", "restart", "kubelet.service")
		n.inPod(0, "install", "--no-restart")
		n.Must("systemctl", "daemon-reload")
		n.contains(n.inPod(1, "status"), "was started before systemd read the new PATH")
		before := n.pid()
		n.contains(n.inPod(0, "install"), "kubelet.service restarted")
		if n.pid() == before {
			t.Error("kubelet was not restarted")
		}
		n.contains(n.Shell(`tr '\0' '\n' <"/proc/$1/environ"`, n.pid()), "PATH="+n.path+":/opt/bin")
		n.inPod(0, "uninstall")
		n.same(n.bare, "after uninstall")
	})

	n.t.Run("no bus in sight", func(t *testing.T) {
		n := n.in(t)
		n.Shell("mv /run/dbus/system_bus_socket /run/dbus/hidden")
		n.contains(n.inPod(1, "install"), "cannot reach systemd over D-Bus", "--no-restart")
		n.Shell("mv /run/dbus/hidden /run/dbus/system_bus_socket")
		n.same(n.bare, "after a refused install")
	})
	n.noKubelet()
	n.Must("rmdir", "/run/opt-rbd-test-pod")
}

package installer

func pathBeaten(n testNode) {
	t := n.t
	n.Must("systemctl", "set-environment", "PATH=/usr/sbin:/usr/bin")
	// Where no kubelet could have a drop-in of its own.
	n.contains(n.installer(1, "install", "--kubelet-unit", "none"), "systemctl unset-environment PATH")
	n.Must("systemctl", "unset-environment", "PATH")
	n.Put("/run/systemd/system.conf.d/90-site.conf", []byte("[Manager]\nDefaultEnvironment=PATH=/usr/bin:/usr/sbin\n"), 0o644)
	n.Must("systemctl", "daemon-reload")
	n.contains(n.installer(1, "install", "--kubelet-unit", "none"), "/run/systemd/system.conf.d/90-site.conf sets PATH after 50-opt-rbd.conf and beats it: add :/opt/bin there")
	// The same under a name that comes before ours is extended.
	n.Shell("cd /run/systemd/system.conf.d; mv 90-site.conf 10-site.conf; systemctl daemon-reload")
	n.installer(0, "install")
	if got := n.servicePath(); got != "/usr/bin:/usr/sbin:/opt/bin" {
		t.Errorf("a service gets PATH=%s", got)
	}
	n.installer(0, "uninstall")
	n.Shell("rm -r /run/systemd/system.conf.d; systemctl daemon-reload")
	n.same(n.bare, "after uninstall")
}

func moduleRefused(n testNode) {
	n.unloadModule()
	n.Put("/run/modprobe.d/no.conf", []byte("blacklist rbd\n"), 0o644)
	n.contains(n.installer(1, "install"), "the kernel has no rbd module loaded")
	n.Must("rm", "/run/modprobe.d/no.conf")
	n.installer(0, "install")
	n.installer(0, "uninstall")
	n.same(n.bare, "after uninstall")
}

func withoutBus(n testNode) {
	n.Shell("mv /run/dbus/system_bus_socket /run/dbus/hidden")
	n.contains(n.installer(0, "install"), "installed (")
	n.Shell("mv /run/systemd/private /run/systemd/hidden; mv /run/systemd/system /run/systemd/not")
	n.contains(n.installer(1, "install"), "systemd does not run here: --no-restart")
	n.Shell("mv /run/systemd/not /run/systemd/system")
	n.contains(n.installer(1, "install"), "cannot reach systemd over D-Bus")
	n.Shell("mv /run/systemd/hidden /run/systemd/private; mv /run/dbus/hidden /run/dbus/system_bus_socket")
	n.installer(0, "uninstall")
	n.same(n.bare, "after uninstall")
}

package installer

func withoutKubelet(n testNode) {
	t := n.t
	n.contains(n.installer(1, "status"), "nothing is installed in /opt")
	n.contains(n.installer(2, "plan"), `+DefaultEnvironment="PATH=`+n.path+`:/opt/bin"`, "+++ /etc/modules-load.d/rbd.conf", "restart systemd-modules-load.service", "reload systemd")
	n.same(n.bare, "after plan")

	said := n.installer(0, "install", "--kubelet-unit", "k3s")
	n.contains(said, "no k3s.service on this node", "module rbd loaded", "/opt/bin/rbd --version: rbd of the test", "installed (")
	n.Must("test", "-e", "/sys/bus/rbd/add_single_major")
	if got := n.servicePath(); got != n.path+":/opt/bin" {
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
	n.same(n.bare, "after uninstall")
	if got := n.servicePath(); got != n.path {
		t.Errorf("after uninstall a service gets PATH=%s", got)
	}
}

func filesOnly(n testNode) {
	t := n.t
	n.unloadModule()
	n.installer(0, "install", "--no-restart")
	n.installer(0, "plan", "--no-restart")
	if n.servicePath() != n.path || n.Run("test", "-e", "/sys/bus/rbd").Code == 0 {
		t.Error("--no-restart reloaded or loaded something")
	}
	n.contains(n.installer(1, "status"), "missing  kernel module rbd")
	n.installer(0, "uninstall")
	n.same(n.bare, "after uninstall")
}

func otherUser(n testNode) {
	t := n.t
	n.Shell("cp -r /root/opt-rbd /var/tmp/opt-rbd")
	r := n.Run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/var/tmp/opt-rbd/installer", "install")
	if want := "installer: only root can install: run it with sudo\n"; r.Code != 1 || r.Stderr != want {
		t.Errorf("%v", r)
	}
	n.same(n.bare, "after a refused install")
}

package node

import (
	"path"

	"github.com/opt-rbd/opt-rbd/systemd"
)

// parts are the node's settings beside the command itself.
func (n *Node) parts() []step {
	return []step{
		// Under this name the launcher tells udev what a device is.
		symlink(path.Join(n.bin(), "ceph-rbdnamer"), path.Base(n.command())),
		textFile("/etc/udev/rules.d/50-rbd.rules", systemd.UdevRules(n.bin())),
		textFile("/etc/modules-load.d/rbd.conf", systemd.ModulesLoad),
	}
}

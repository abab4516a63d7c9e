package node

import "github.com/opt-rbd/opt-rbd/systemd"

// parts are the node's settings beside the command itself.
func (n *Node) parts() []step {
	return []step{
		textFile("/etc/modules-load.d/rbd.conf", systemd.ModulesLoad),
	}
}

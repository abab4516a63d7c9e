package node

import (
	"io/fs"
	"path"

	"github.com/opt-rbd/opt-rbd/share"
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

// shellParts are what helps people at a shell, where it is asked for.
func (n *Node) shellParts() (steps []step, err error) {
	if !n.Shell {
		return nil, nil
	}
	err = fs.WalkDir(share.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(share.Files, name)
		steps = append(steps, textFile(path.Join(n.Prefix, "share", name), string(text)))
		return err
	})
	return steps, err
}

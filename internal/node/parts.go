package node

import (
	"context"
	"io/fs"
	"path"
	"slices"

	"github.com/opt-rbd/opt-rbd/share"
	"github.com/opt-rbd/opt-rbd/systemd"
)

// unitFile is one of the installer's units.
func (n *Node) unitFile(name string) step {
	kubelet := KubeletUnits
	if !slices.Contains(kubelet, n.Unit) {
		kubelet = append([]string{n.Unit}, kubelet...)
	}
	return textFile(path.Join(unitFolder, name), systemd.Unit(name, n.bin(), kubelet))
}

// parts are the node's settings beside the command itself.
func (n *Node) parts() []step {
	// As systemctl enable does.
	enabled := func(name string) step {
		return symlink(path.Join(unitFolder, "multi-user.target.wants", name), path.Join(unitFolder, name))
	}
	return []step{
		// Under this name the launcher tells udev what a device is.
		symlink(path.Join(n.bin(), "ceph-rbdnamer"), path.Base(n.command())),
		textFile(udevFile, systemd.UdevRules(n.bin())),
		textFile("/etc/modules-load.d/rbd.conf", systemd.ModulesLoad),
		symlink(path.Join(n.bin(), "rbdmap"), path.Base(n.command())),
		n.unitFile(systemd.Rbdmap),
		enabled(systemd.Rbdmap),
		enabled(systemd.Shutdown),
	}
}

const (
	unitFolder = "/etc/systemd/system"
	udevFile   = "/etc/udev/rules.d/50-rbd.rules"
)

// shutdownStep is the unit that gives back what is mapped at shutdown: it has
// to have been started for systemd to stop it then.
type shutdownStep struct{}

func (shutdownStep) name() string { return systemd.Shutdown }

func (s shutdownStep) check(ctx context.Context, n *Node) (state, error) {
	u, err := n.systemd.unit(ctx, s.name())
	switch todo := "start " + s.name(); {
	case err != nil:
		return state{}, err
	case !u.found:
		return state{word: "missing", why: "systemd does not know it", todo: todo}, nil
	case u.stale:
		return state{word: "changed", why: "systemd knows an older one", todo: "reload systemd (daemon-reload)"}, nil
	case u.active != "active":
		return state{word: "changed", why: u.active, todo: todo}, nil
	}
	return good("started"), nil
}

func (s shutdownStep) apply(ctx context.Context, n *Node) (string, error) {
	u, err := n.systemd.unit(ctx, s.name())
	if err != nil {
		return "", err
	}
	if !u.found || u.stale {
		// Whatever runs by now has been seen to have the PATH: this reload makes
		// no process an older one.
		if n.record != nil && n.record.Reload == nil {
			n.record.Reload = &moment{Boot: bootID()}
			if err := n.record.save(n.tree); err != nil {
				return "", err
			}
		}
		if err := n.systemd.reload(ctx); err != nil {
			return "", err
		}
	}
	return s.name() + " started, for the next shutdown", n.systemd.start(ctx, s.name())
}

// undo comes when the file is gone and systemd knows it: nothing is unmapped.
func (s shutdownStep) undo(ctx context.Context, n *Node) (string, error) {
	u, err := n.systemd.unit(ctx, s.name())
	if err != nil || u.active != "active" {
		return "", err
	}
	return s.name() + " ended", n.systemd.stop(ctx, s.name())
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

package node

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/systemd"
)

// What a node is like is told by looking, not by its name: a new distribution
// of a known kind needs no new line here.

// Prefixes that the installer chooses between. /opt is writable where /usr is
// not, and /usr/local is where /opt cannot be used.
const (
	optPrefix   = "/opt"
	localPrefix = "/usr/local"
)

// choosePrefix returns where the installation is, or where it belongs. Where
// /opt is a link into /var, as on systems by ostree (Fedora CoreOS, RHEL
// CoreOS), a relabel of the system makes data of /var of what is there, which
// SELinux lets no service run; /usr/local is a link into /var, too, but the
// policy knows it for what it is, and its bin is in the PATH of all services.
func choosePrefix(t *tree) (string, error) {
	if prefix, err := installedIn(t); err != nil || prefix != "" {
		return prefix, err
	}
	opt, err := t.look(optPrefix)
	if err != nil {
		return "", err
	}
	local, err := t.look(localPrefix)
	if err != nil {
		return "", err
	}
	if inVar(opt, "/") && inVar(local, "/usr") {
		return localPrefix, nil
	}
	return optPrefix, nil
}

// Files of an installation that stand at the same place whatever its prefix is
// and name programs in its bin. The first is written first and goes last.
var (
	shutdownFile  = path.Join(unitFolder, systemd.Shutdown)
	namingFiles   = []string{shutdownFile, path.Join(unitFolder, systemd.Rbdmap), udevFile}
	namedPrograms = regexp.MustCompile(`"(/[^"\n]+)/bin/(?:rbdmap"|ceph-rbdnamer )`)
)

// installedIn returns the prefix of the installation, "" where there is none.
// What a file names is believed where an installation is to be seen there.
func installedIn(t *tree) (string, error) {
	var prefixes []string
	for _, name := range namingFiles {
		text, err := t.read(name)
		if err != nil {
			continue // it names nothing
		}
		if found := namedPrograms.FindStringSubmatch(string(text)); found != nil {
			prefixes = append(prefixes, path.Clean(found[1]))
		}
	}
	for _, prefix := range append(prefixes, optPrefix, localPrefix) {
		record, err := t.look(recordPath(prefix))
		if err != nil {
			return "", err
		}
		lost, err := lostRecord(t, prefix)
		if err != nil {
			return "", err
		}
		if lost || record.Kind != absent {
			return prefix, nil
		}
	}
	return "", nil
}

// inVar says whether an object is a link, in a folder, into /var.
func inVar(o object, dir string) bool {
	target := o.Target
	if !path.IsAbs(target) {
		target = path.Join(dir, target)
	}
	return o.Kind == link && strings.HasPrefix(path.Clean(target), "/var/")
}

// osName is what the node calls itself, "" where it does not say.
func osName(t *tree) string {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} { // os-release(5)
		text, err := t.read(name)
		if err != nil {
			continue
		}
		for _, line := range logicalLines(string(text)) {
			if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Join(splitWords(value), " ")
			}
		}
	}
	return ""
}

// own returns the rbd that services find on this node without the installer,
// "" where there is none or where something is installed already.
func (n *Node) own() (string, error) {
	if n.record != nil {
		return "", nil
	}
	base, _, err := managerPaths(n.tree)
	if err != nil {
		return "", err
	}
	folders := slices.DeleteFunc(strings.Split(cmp.Or(base.path, defaultPath), ":"), func(dir string) bool {
		return path.Clean(dir) == n.bin()
	})
	own, err := findIn(n.tree, strings.Join(folders, ":"), "rbd")
	if err != nil {
		return "", nil //nolint:nilerr // it is not there
	}
	return own, nil
}

// leave says that a node needs nothing where it has an rbd of its own.
func (n *Node) leave() (bool, error) {
	if n.Force {
		return false, nil
	}
	own, err := n.own()
	if err != nil || own == "" {
		return false, err
	}
	n.Say("%s has its own %s, which services find: nothing to do; --force installs beside it", cmp.Or(osName(n.tree), "this node"), own)
	return true, nil
}

// executable says why programs in the prefix cannot be run.
func (n *Node) executable() error {
	if !n.live() {
		return nil
	}
	name, err := filepath.EvalSymlinks(filepath.Join(n.Root, n.Prefix))
	if err != nil {
		return nil //nolint:nilerr // not there yet, or a link that holds only on the node itself
	}
	var s unix.Statfs_t
	if err := unix.Statfs(name, &s); err != nil {
		return named(n.Prefix, err)
	}
	if s.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("programs cannot be run in %s: its file system is mounted with noexec: mount it without, or choose another folder with --prefix", n.Prefix)
	}
	return nil
}

// serverUnits run the API server in the process that is kubelet, too.
var serverUnits = []string{"k3s.service", "rke2-server.service", "k0scontroller.service", "snap.microk8s.daemon-kubelite.service"}

// KubeletUnits are the units by which the known distributions of Kubernetes run
// kubelet.
var KubeletUnits = append([]string{
	"kubelet.service", "k3s-agent.service", "rke2-agent.service", "k0sworker.service",
	"snap.kubelet.daemon.service", "snap.kubelet-eks.daemon.service", "snap.microk8s.daemon-kubelet.service",
}, serverUnits...)

// findUnit returns the unit that runs kubelet on this node.
func (m *manager) findUnit(ctx context.Context) (string, error) {
	statuses, err := within(ctx, callTimeout, func(ctx context.Context) ([]dbus.UnitStatus, error) {
		return m.conn.ListUnitsByNamesContext(ctx, KubeletUnits)
	})
	if err != nil {
		return "", fmt.Errorf("ask systemd for the unit of kubelet: %w", err)
	}
	var known, active []string
	for _, s := range statuses {
		if s.LoadState != "loaded" {
			continue
		}
		known = append(known, s.Name)
		if s.ActiveState == "active" || s.ActiveState == "activating" {
			active = append(active, s.Name)
		}
	}
	for _, names := range [][]string{active, known} {
		switch len(names) {
		case 0:
		case 1:
			return names[0], nil
		default:
			return "", fmt.Errorf("%s are on this node: say with --kubelet-unit which of them runs kubelet", strings.Join(names, " and "))
		}
	}
	return KubeletUnits[0], nil
}

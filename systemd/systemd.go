// Package systemd holds the configuration files that a node gets, each as a
// file of its own so that it can be read, linted and copied by hand. What is
// written is decided in internal/node; this package knows only their text.
package systemd

import (
	"embed"
	"strings"
)

// ModulesLoad is the text of /etc/modules-load.d/rbd.conf.
//
//go:embed modules-load.d/rbd.conf
var ModulesLoad string

//go:embed system.conf.d/50-opt-rbd.conf
var manager string

// Manager returns the text of /etc/systemd/system.conf.d/50-opt-rbd.conf for
// a PATH that is already escaped for use between double quotes there.
func Manager(path string) string {
	return strings.ReplaceAll(manager, "@PATH@", path)
}

//go:embed kubelet.service.d/zz-opt-rbd.conf
var unitPath string

//go:embed kubelet.service.d/zz-opt-rbd-file.conf
var unitFile string

// UnitPath returns the text of a unit's drop-in for a PATH that is already
// escaped for use between double quotes there.
func UnitPath(path string) string { return strings.ReplaceAll(unitPath, "@PATH@", path) }

// UnitFile returns the text of a unit's drop-in that names a file with its
// PATH, by an escaped path.
func UnitFile(name string) string { return strings.ReplaceAll(unitFile, "@FILE@", name) }

//go:embed udev/50-rbd.rules
var udevRules string

// UdevRules returns the text of /etc/udev/rules.d/50-rbd.rules for the folder
// that holds ceph-rbdnamer.
func UdevRules(bin string) string { return strings.ReplaceAll(udevRules, "@BIN@", bin) }

// Names of the units, which are linked into multi-user.target.wants.
const (
	Rbdmap   = "rbdmap.service"
	Shutdown = "opt-rbd-shutdown.service"
)

//go:embed system
var units embed.FS

// Unit returns the text of a unit in /etc/systemd/system for the folder that
// holds rbdmap and the units that run kubelet.
func Unit(name, bin string, kubelet []string) string {
	text, err := units.ReadFile("system/" + name)
	if err != nil {
		panic(err) // the names are those above
	}
	return strings.NewReplacer("@BIN@", bin, "@KUBELET@", strings.Join(kubelet, " ")).Replace(string(text))
}

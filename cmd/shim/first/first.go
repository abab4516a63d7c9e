// Package first runs the payload's program before the packages are initialised that only the launcher's own answers
// need: regexp and net/netip among them, a tenth of the time that the launcher takes.
//
// Go initialises packages in the order of their import paths as far as their imports allow. This one sorts before
// those, and imports next to nothing. Were it to come later, that would cost time and nothing else.
package first

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/opt-rbd/opt-rbd/internal/launch"
)

// Names under which the launcher is a program of its own: that which answers udev, and that which maps at boot.
const (
	Namer  = "ceph-rbdnamer"
	Mapper = "rbdmap"
)

// Own says whether the launcher was called by one of them.
func Own() bool {
	name := filepath.Base(os.Args[0])
	return name == Namer || name == Mapper
}

// words are in every command line that the launcher answers itself. A line that has one need not be of that kind.
var words = []string{"map", "unmap", "showmapped", "device"}

// The payload is entered from init: until main starts, the runtime keeps the main goroutine on the main thread, as
// launch.Main needs it. runtime.LockOSThread says the same but starts one more thread.
func init() {
	word := func(arg string) bool { return slices.Contains(words, arg) }
	// CEPH_ARGS can hold a command's words as well.
	if !Own() && !slices.ContainsFunc(os.Args, word) && os.Getenv("CEPH_ARGS") == "" {
		launch.Main()
	}
}

package runtime

import (
	"slices"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/cli"
	"github.com/opt-rbd/opt-rbd/internal/launch"
)

// TestDeclared: what the launcher knows of the commands' options and files is what the commands declare.
func TestDeclared(t *testing.T) {
	var switches, options []string
	for _, c := range cli.Declarations() {
		words := strings.Join(c.Path, " ")
		known := slices.IndexFunc(launch.PathCommands, func(p launch.PathCommand) bool { return p.Words == words })
		named := 0
		for _, o := range c.Operands {
			if strings.Contains(o.Name, "path") || strings.Contains(o.Name, "file") {
				named++
			}
		}
		if (named > 0) != (known >= 0) {
			t.Errorf("%s: %d operands are files, the launcher knows it: %t", words, named, known >= 0)
		}
		if known >= 0 && len(c.Aliases) > 0 {
			t.Errorf("%s: the launcher does not know its aliases %q", words, c.Aliases)
		}
		for _, o := range c.Options {
			switch {
			case o.Arg == "":
				switches = append(switches, "--"+o.Name)
				if o.Short != "" {
					switches = append(switches, "-"+o.Short)
				}
			case strings.Contains(o.Name, "path") || strings.Contains(o.Name, "file"):
				options = append(options, "--"+o.Name)
			}
		}
	}
	compare := func(what string, got, want []string) {
		got = slices.Sorted(slices.Values(got))
		slices.Sort(want)
		if want = slices.Compact(want); !slices.Equal(got, want) {
			t.Errorf("%s: the launcher has %q, the commands %q", what, got, want)
		}
	}
	compare("switches", launch.Switches, switches)
	compare("options", launch.PathOptions, options)
}

package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// printCompletion answers "bash-completion", which the shell function asks
// that Ceph's packages install: the options of all commands and, behind them,
// those of the command that words name, or the names of all commands.
func printCompletion(w io.Writer, words []string) {
	items := []string{
		"--conf path", "-c path", "--cluster arg", "--id arg", "--user arg", "--name arg", "-n arg", "--mon_host host", "-m host",
		"--secret path", "--keyfile path", "-K path", "--keyring path", "-k path",
	}
	if c := args.Find(Declarations(), words); c != nil {
		for _, o := range c.Options {
			arg := " arg"
			switch {
			case o.Arg == "":
				arg = ""
			case strings.Contains(o.Help, "path"), strings.Contains(o.Help, "file"):
				arg = " path" // the shell offers files
			case strings.Contains(o.Help, "host"):
				arg = " host"
			}
			items = append(items, "--"+o.Name+arg)
			if o.Short != "" {
				items = append(items, "-"+o.Short+arg)
			}
		}
	} else {
		var names []string
		for _, c := range Declarations() {
			for _, path := range append([][]string{c.Path}, c.Aliases...) {
				names = append(names, strings.Join(path, " "))
			}
		}
		slices.Sort(names)
		items = append(append(items, "help"), names...)
	}
	fmt.Fprintln(w, "|"+strings.Join(items, "|")+"|")
}

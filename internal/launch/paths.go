package launch

import (
	"slices"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// What a container has to be given is told by the command line. A line is read here as args.Read does before it knows
// the command, from less: which options are switches. What the commands themselves declare cannot be linked into the
// launcher, for librbd's sake; a test compares.
var (
	// Switches are the options of all commands that take no value.
	Switches = []string{
		"--all", "-a", "--allow-shrink", "--descendants", "--exact", "--exclusive", "--flatten", "--force",
		"--ignore-quiesce-error", "--image-shared", "--import-only", "--long", "-l", "--merge-snapshots", "--new-format",
		"--no-error", "--no-progress", "--pretty-format", "--quiesce",
		"--read-only", "--recursive", "-R", "--show-cookie", "--skip-quiesce", "--thick-provision", "--verbose", "--whole-object",
	}
	// PathOptions are the options that name a file to be read; --path is one of the other kind with some commands.
	PathOptions = []string{"--path", "--source-spec-path", "--remote-key-file", "--token-path"}
	// PathCommands are the commands with an operand that names a file.
	PathCommands = []PathCommand{
		{"import", []int{0}, none}, {"import-diff", []int{0}, none}, {"journal import", []int{0}, none},
		{"export", nil, last}, {"export-diff", nil, last}, {"journal export", nil, last},
		{"merge-diff", []int{0, 1}, 2},
		{"encryption format", []int{last}, none},
		{"mirror pool peer bootstrap import", []int{last}, none},
	}

	cephFiles = []string{"-k", "--keyring", "-K", "--keyfile", "--secret"}
	kernel    = []string{"device map", "map", "device unmap", "unmap", "device list", "device ls", "showmapped"}
	nbd       = []string{"nbd", "device attach", "device detach"}
)

// PathCommand says which operands of a command name files, by index.
type PathCommand struct {
	Words string
	Read  []int
	Write int // the file is made in its folder
}

// A spec may be left out in favour of options: what follows is then counted from the end.
const (
	last = -1
	none = -2
)

// needs are what a command line asks of a container.
type needs struct {
	read, write []string // files, as the line names them
	conf        []string // configuration files
	stdin       bool
	kernel      bool // it maps or unmaps
	nbd         bool // it starts, or looks for, processes that outlive it
}

// readNeeds reads a line without the program's name.
func readNeeds(argv []string) (n needs) {
	var words []string
	var path string
	read := func(file string) {
		if file == "-" {
			n.stdin = true
		} else if file != "" {
			n.read = append(n.read, file)
		}
	}
	for i := 0; i < len(argv); i++ {
		arg := argv[i]
		if arg == "--" {
			words = append(words, argv[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		name, value, found := strings.Cut(arg, "=")
		if _, _, ceph := args.CephOption(argv[i:], args.CephValue...); !found && ceph == 0 && slices.Contains(Switches, name) {
			continue
		}
		if !found && i+1 < len(argv) {
			i++
			value = argv[i]
		}
		switch {
		case name == "--path":
			path = value
		case slices.Contains(PathOptions, name):
			read(value)
		case name == "-c" || name == "--conf":
			n.conf = append(n.conf, fileList(value)...)
		case slices.Contains(cephFiles, name):
			// "-" is a file of that name to Ceph.
			n.read = append(n.read, value)
		case name == "-t" || name == "--device-type":
			n.nbd = n.nbd || value == "nbd"
		case strings.HasPrefix(arg, "-t") && arg[1] != '-':
			n.nbd = n.nbd || arg[2:] == "nbd"
		}
	}
	is := func(command string) bool {
		w := strings.Fields(command)
		return len(words) >= len(w) && slices.Equal(words[:len(w)], w)
	}
	n.kernel = slices.ContainsFunc(kernel, is)
	n.nbd = n.nbd && n.kernel || slices.ContainsFunc(nbd, is)
	for _, c := range PathCommands {
		if !is(c.Words) {
			continue
		}
		operands := words[len(strings.Fields(c.Words)):]
		at := func(i int) string {
			if i == last {
				i = len(operands) - 1
			}
			if i < 0 || i >= len(operands) {
				return ""
			}
			return operands[i]
		}
		if path != "" && c.Write == none {
			read(path)
			break
		}
		for _, i := range c.Read {
			read(at(i))
		}
		to := path
		if to == "" {
			to = at(c.Write)
		}
		if to != "" && to != "-" && c.Write != none {
			n.write = append(n.write, to)
		}
	}
	return n
}

// fileList takes a list of files apart as Ceph does.
func fileList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(",; ", r) })
}

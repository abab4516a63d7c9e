// Package args reads a command line as Ceph's rbd does, from declarations of
// the commands: options before, between and after the command's words, values
// in any of their spellings, the same words for the same mistakes.
//
// It knows nothing of what commands do and links nothing but the standard
// library, since the static launcher reads lines with it, too. It does not
// know Ceph's own options either (see Split): the whole of them are librados'.
package args

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Command declares one command.
type Command struct {
	Path     []string   // its words: "snap", "create"
	Aliases  [][]string // other words for it; help names the first
	Operands []Operand
	Options  []Option // in the order in which help lists them
	Short    string   // one sentence for the list of commands
	Long     string   // printed below the options, may be empty
	Hidden   bool     // deprecated: not in the list of commands
	Since    int      // the Ceph release that brought it, 0 for all
}

// Operand declares a word after the command.
type Operand struct {
	Name     string // as help shows it, without the angle brackets
	Help     string // lines joined by \n
	Repeat   bool   // one or more; only the last operand
	Optional bool   // shown in brackets
}

// Option declares an option.
type Option struct {
	Name     string // long name, without dashes
	Short    string // one letter, may be empty
	Arg      string // "" for a switch, else what help calls the value
	Repeat   bool   // may be given more than once
	Required bool   // help shows it without brackets; not enforced by Read
	Hidden   bool   // deprecated: accepted, but not explained in help
	Since    int    // the Ceph release that brought it, 0 for all
	Help     string // lines joined by \n; of a deprecated one what to do instead

	// Check says whether a value is one that the option can take. nil takes
	// everything.
	Check func(value string) error
}

// Timeout is an option that every command takes on top of its own; one of its
// own of that name counts more. rbd refuses it, so that no line that rbd takes
// means something else here.
var Timeout = Option{
	Name: "timeout", Arg: "seconds",
	Help: "end when the cluster does not answer for so long, 0 for never [default: 300]",
	Check: func(value string) error {
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return ErrArgument
		}
		return nil
	},
}

// Check functions answer with one of these: the first names only the option,
// the second also the value.
var (
	ErrArgument = errors.New("the argument is invalid")
	ErrValue    = errors.New("the value is invalid")
)

// Line is a command line, read.
type Line struct {
	Command  *Command
	Name     []string // the command's words as written: its path or an alias
	Options  []Set    // in the order of the line
	Operands []string
	Help     bool // help on Command is asked for, or where that is nil on all
}

// Set is an option as given on a line. A switch has the value "true".
type Set struct {
	Option *Option
	Value  string
}

// Value gives the last value of an option and whether it was given at all.
func (l *Line) Value(name string) (string, bool) {
	for _, s := range slices.Backward(l.Options) {
		if s.Option.Name == name {
			return s.Value, true
		}
	}
	return "", false
}

// Deprecated gives the deprecated options of the line, each once, by name.
func (l *Line) Deprecated() []*Option {
	var list []*Option
	for _, s := range l.Options {
		if s.Option.Hidden {
			list = append(list, s.Option)
		}
	}
	slices.SortFunc(list, func(a, b *Option) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(list)
}

// Operand gives the operand at an index, or "" where there are fewer.
func (l *Line) Operand(i int) string {
	if i < len(l.Operands) {
		return l.Operands[i]
	}
	return ""
}

// Arranged is the line in the order that parsers take which stop at the first
// operand: the command's words joined by a space (one element), each option as
// --name=value, "--", and the operands.
func (l *Line) Arranged() []string {
	arranged := []string{strings.Join(l.Command.Path, " ")}
	for _, s := range l.Options {
		arranged = append(arranged, "--"+s.Option.Name+"="+s.Value)
	}
	arranged = append(arranged, "--")
	return append(arranged, l.Operands...)
}

// Find gives the command that a line names, nil where it names none. The line
// need not be whole.
func Find(commands []*Command, argv []string) *Command {
	words, _ := commandWords(commands, argv)
	c, _ := find(commands, words)
	return c
}

// find looks a command up by the first of words; the longest match wins.
func find(commands []*Command, words []string) (*Command, []string) {
	var found *Command
	var name []string
	try := func(c *Command, path []string) {
		if len(path) > len(name) && len(path) <= len(words) && slices.Equal(path, words[:len(path)]) {
			found, name = c, path
		}
	}
	for _, c := range commands {
		try(c, c.Path)
		for _, alias := range c.Aliases {
			try(c, alias)
		}
	}
	return found, name
}

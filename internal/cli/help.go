package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// The measures of help texts.
const (
	lineWidth     = 80
	maxOffset     = 37 // explanations begin no later
	minNameWidth  = 20
	commandColumn = maxOffset + 1 // where explanations of commands begin
)

// clusterOptions are listed by the general help. They are librados' own and
// read by package ceph.
var clusterOptions = []args.Option{
	{Name: "conf", Short: "c", Arg: "arg", Help: "path to cluster configuration"},
	{Name: "cluster", Arg: "arg", Help: "cluster name"},
	{Name: "id", Arg: "arg", Help: "client id (without 'client.' prefix)"},
	{Name: "name", Short: "n", Arg: "arg", Help: "client name"},
	{Name: "mon_host", Short: "m", Arg: "arg", Help: "monitor host"},
	{Name: "keyfile", Short: "K", Arg: "arg", Help: "path to secret key"},
	{Name: "keyring", Short: "k", Arg: "arg", Help: "path to keyring"},
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "usage: rbd <command> ...\n\n",
		"Command-line interface for managing Ceph RBD images.\n\n",
		"Positional arguments:\n  <command>\n")
	sorted := slices.SortedFunc(slices.Values(Declarations()), func(a, b *args.Command) int {
		return slices.Compare(a.Path, b.Path)
	})
	for _, c := range sorted {
		if c.Hidden {
			continue
		}
		explain(w, "    "+titleOf(c), commandColumn, c.Short)
	}
	fmt.Fprint(w, "\nOptional arguments:\n")
	for _, o := range clusterOptions {
		explain(w, "  "+optionTitle(o), commandColumn, o.Help)
	}
	fmt.Fprint(w, "\nSee 'rbd help <command>' for help on a specific command.\n")
}

// titleOf is a command with its first alias: "remove (rm)". Of an alias that
// differs in the last of three or more words only that word is shown.
func titleOf(c *args.Command) string {
	title := strings.Join(c.Path, " ")
	if len(c.Aliases) == 0 {
		return title
	}
	alias := c.Aliases[0]
	text := strings.Join(alias, " ")
	if last := len(alias) - 1; last >= 2 && len(alias) == len(c.Path) && slices.Equal(alias[:last], c.Path[:last]) {
		text = "... " + alias[last]
	}
	return title + " (" + text + ")"
}

func optionTitle(o args.Option) string {
	title := "--" + o.Name
	if o.Short != "" {
		title = "-" + o.Short + " [ " + title + " ]"
	}
	return title + " " + o.Arg
}

// printCommandHelp prints the help on a command under the name by which it
// was asked for.
func printCommandHelp(w io.Writer, c *args.Command, name []string) {
	printUsage(w, c, name)
	if c.Short != "" {
		fmt.Fprint(w, "\n", c.Short, "\n")
	}
	fmt.Fprintln(w)
	width := minNameWidth
	for _, o := range c.Operands {
		width = max(width, len("--"+o.Name+" "))
	}
	for _, o := range c.Options {
		width = max(width, len(optionTitle(o)))
	}
	column := min(width+2, maxOffset) + 1
	if len(c.Operands) > 0 {
		fmt.Fprintln(w, "Positional arguments")
		for _, o := range c.Operands {
			explain(w, "  <"+o.Name+">", column, o.Help)
		}
		fmt.Fprintln(w)
	}
	if len(c.Options) > 0 {
		fmt.Fprintln(w, "Optional arguments")
		for _, o := range c.Options {
			if !o.Hidden {
				explain(w, "  "+optionTitle(o), column, o.Help)
			}
		}
		fmt.Fprintln(w)
	}
	if c.Long != "" {
		fmt.Fprintln(w, c.Long)
	}
}

// printUsage prints the lines that begin with "usage:".
func printUsage(w io.Writer, c *args.Command, name []string) {
	var options, operands []string
	widest := 0
	for _, o := range c.Options {
		text := "--" + o.Name
		if o.Arg != "" {
			text += " <" + o.Name + ">"
		}
		if !o.Required {
			text = "[" + text + "]"
		}
		options = append(options, text)
		widest = max(widest, len(text))
	}
	for _, o := range c.Operands {
		text := "<" + o.Name + ">"
		if o.Repeat {
			text += " [<" + o.Name + "> ...]"
		}
		if o.Optional {
			text = "[" + text + "]"
		}
		operands = append(operands, text)
		widest = max(widest, len(text))
	}
	start := "usage: rbd " + strings.Join(name, " ")
	fmt.Fprint(w, start)
	indent := min(len(start), maxOffset) + 1
	if indent+widest+2 > lineWidth {
		indent = lineWidth - widest - 2
	}
	f := filler{w: w, indent: indent, column: len(start), breakAt: '['}
	for _, text := range options {
		f.add(text + " ")
	}
	if len(options) > 0 || len(operands) == 0 {
		f.add("\n")
	}
	if len(operands) > 0 {
		f.breakAt = ' '
		for _, text := range operands {
			f.add(text + " ")
		}
		f.add("\n")
	}
}

// explain prints a name and, from a column on, what there is to say on it. A
// name that reaches into that column has the explanation below it.
func explain(w io.Writer, name string, column int, text string) {
	fmt.Fprint(w, name)
	f := filler{w: w, indent: column, column: len(name), breakAt: ' '}
	f.add(text + "\n")
}

// filler fills lines from a column on and breaks them before the last breakAt
// (after it, where that is a space) that fits.
type filler struct {
	w       io.Writer
	indent  int
	column  int // how far the first line has got already
	breakAt byte
	line    []byte
}

func (f *filler) add(text string) {
	for _, char := range []byte(text) {
		if char == '\n' {
			f.flush(f.line)
			f.line = nil
			continue
		}
		if f.indent+len(f.line) >= lineWidth {
			f.wrap()
		}
		f.line = append(f.line, char)
	}
}

func (f *filler) wrap() {
	at := strings.LastIndexByte(string(f.line), f.breakAt)
	if at < 0 {
		at = strings.LastIndexByte(string(f.line), ' ')
	}
	if at < 0 {
		f.flush(f.line)
		f.line = nil
		return
	}
	f.flush(f.line[:at])
	if f.breakAt == ' ' {
		at++
	}
	f.line = slices.Clone(f.line[at:])
}

func (f *filler) flush(line []byte) {
	if f.column >= f.indent {
		fmt.Fprintln(f.w)
		f.column = 0
	}
	fmt.Fprintf(f.w, "%*s%s\n", f.indent-f.column, "", line)
	f.column = 0
}

// Package cli is the rbd command line: the commands, their help, and how they
// end. Each group of commands has a file of its own with its declarations and
// what they do; anything that could serve without a command line is in other
// packages.
package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	urfave "github.com/urfave/cli/v2"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// command is one command: its declaration and what it does.
type command struct {
	args.Command
	run func(*call) error
}

// commands are those that there are with librbd of this process.
var commands = ofRelease(librbd.Release, allCommands)

// allCommands are those of every release, each group from its own file.
var allCommands = concat(
	listCommands,
	[]*command{createCommand, infoCommand, removeCommand, renameCommand, resizeCommand, statusCommand},
	snapCommands,
	snapChangeCommands,
	copyCommands,
	[]*command{cloneCommand, flattenCommand, sparsifyCommand},
	metaCommands,
	namespaceCommands,
	trashCommands,
	[]*command{childrenCommand, diskUsageCommand, diffCommand},
	objectMapCommands,
	featureCommands,
	lockCommands,
	[]*command{exportCommand, exportDiffCommand, importCommand, importDiffCommand, mergeDiffCommand},
	groupCommands,
	migrationCommands,
	encryptionCommands,
	cacheCommands,
	journalCommands,
	mirrorPoolCommands,
	mirrorPeerCommands,
	mirrorImageCommands,
	scheduleCommands,
	poolCommands,
	[]*command{benchCommand, benchWriteCommand, watchCommand},
	perfCommands,
	configCommands,
	deviceCommands,
)

func concat(groups ...[]*command) (all []*command) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// call is one run of a command. The options are in its embedded context:
// c.String("pool"), c.IsSet("size"), c.Bool("no-progress").
type call struct {
	*urfave.Context
	line    *args.Line
	cluster *ceph.Cluster
	stdout  *bufio.Writer // flushed when the command is over and before errors
	stderr  io.Writer
	next    int // the first operand that no spec has taken
	making  *making
}

// Main runs argv (without the program's name) and gives the exit code.
func Main(argv []string) int {
	ceph.Signals()
	// Writing to a pipe that nobody reads is no reason to die half-way.
	signal.Ignore(syscall.SIGPIPE)
	out := &patient{w: os.Stdout}
	stdout := bufio.NewWriterSize(out, 64<<10) // what a pipe has room for
	code := run(argv, stdout, os.Stderr)
	stdout.Flush()
	if out.err != nil && code == 0 {
		fmt.Fprintf(os.Stderr, "rbd: %v\n", out.err)
		return int(errno.Code(out.err))
	}
	return code
}

// patient takes everything, so that no command ends half-way because its
// output cannot be written. What went wrong first is kept, unless a reader has
// just had enough.
type patient struct {
	w   io.Writer
	err error
}

func (p *patient) Write(data []byte) (int, error) {
	_, err := p.w.Write(data)
	if p.err == nil && !errors.Is(err, syscall.EPIPE) {
		p.err = err
	}
	return len(data), nil
}

func run(argv []string, stdout *bufio.Writer, stderr io.Writer) int {
	cluster, rest, err := ceph.New(argv, stdout)
	if errors.Is(err, ceph.ErrVersion) {
		fmt.Fprintln(stdout, ceph.VersionString())
		return 0
	}
	if errors.Is(err, ceph.ErrShown) {
		return 0
	}
	if err != nil {
		return fail(err, nil, stderr)
	}
	if len(rest) > 0 && rest[0] == "bash-completion" {
		printCompletion(stdout, rest[1:])
		return 0
	}
	if len(rest) > 0 && rest[0] == completeWord {
		return complete(stdout, cluster, rest[1:])
	}
	line, err := args.Read(Declarations(), rest)
	var unknown *args.UnknownCommandError
	switch {
	case errors.As(err, &unknown):
		fmt.Fprintf(stderr, "error: %v\n\n", err)
		printHelp(stdout)
		return 1
	case err != nil:
		fmt.Fprintf(stderr, "rbd: %v\n", err)
		return 1
	case line.Help && line.Command == nil:
		printHelp(stdout)
		return 0
	case line.Help:
		printCommandHelp(stdout, line.Command, line.Name)
		return 0
	}
	c := &call{line: line, cluster: cluster, stdout: stdout, stderr: stderr}
	err = execute(line, c)
	stdout.Flush()
	code := 0
	if err != nil {
		code = fail(err, c, stderr)
	}
	if err != nil || cluster.Verbose() {
		// librados' own last words are written by a thread of its own.
		cluster.Shutdown()
	} else {
		cluster.Leave()
	}
	for _, o := range line.Deprecated() {
		fmt.Fprintf(stderr, "rbd: %s is deprecated, %s\n", strings.TrimSuffix(optionTitle(*o), " "+o.Arg), o.Help)
	}
	if cluster.UserGiven {
		fmt.Fprintln(stderr, "rbd: --user is deprecated, use --id")
	}
	return code
}

// execute hands the line to the one command that it is for.
func execute(line *args.Line, c *call) error {
	var found *command
	for _, cmd := range commands {
		if &cmd.Command == line.Command {
			found = cmd
		}
	}
	var flags []urfave.Flag
	options := found.Options
	if i := slices.IndexFunc(line.Options, func(s args.Set) bool { return s.Option == &args.Timeout }); i >= 0 {
		c.cluster.SetTimeout(line.Options[i].Value)
		options = append(slices.Clone(options), args.Timeout)
	}
	for _, o := range options {
		switch {
		case o.Arg == "":
			flags = append(flags, &urfave.BoolFlag{Name: o.Name})
		case o.Repeat:
			flags = append(flags, &urfave.StringSliceFlag{Name: o.Name})
		default:
			flags = append(flags, &urfave.StringFlag{Name: o.Name})
		}
	}
	app := &urfave.App{
		Name:                      "rbd",
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*urfave.Context, error) {},
		Commands: []*urfave.Command{{
			Name:            strings.Join(found.Path, " "),
			Flags:           flags,
			HideHelp:        true,
			HideHelpCommand: true, // an operand may be "help"
			Action: func(ctx *urfave.Context) error {
				c.Context = ctx
				return found.run(c)
			},
		}},
	}
	return app.Run(append([]string{"rbd"}, line.Arranged()...))
}

// fail prints an error and gives its exit code. Errors that were joined are
// lines of their own. Hints come last, so that nothing that reads the lines
// of the genuine tool has to know them.
func fail(err error, c *call, stderr io.Writer) int {
	printError(err, stderr)
	if c != nil {
		for _, h := range hints(c, err) {
			fmt.Fprintln(stderr, "hint: "+printable(h))
		}
	}
	return int(errno.Code(err))
}

// printable keeps what is said of a name on one line, whatever the name has.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

func printError(err error, stderr io.Writer) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			printError(e, stderr)
		}
		return
	}
	line := "rbd: " + err.Error()
	var own *errno.Error
	if errors.As(err, &own) && own.Error() == err.Error() {
		if own.Line == "" {
			return
		}
		if own.Bare {
			line = own.Line
		}
	}
	fmt.Fprintln(stderr, line)
}

// bareError is an error whose line has no "rbd: " before it.
func bareError(err error, what string) error {
	if err == nil {
		return nil
	}
	code := errno.Code(err)
	return &errno.Error{Code: code, Bare: true, Line: what + ": " + errno.Text(code), Err: err}
}

// Declarations are the declarations of the commands that there are with librbd
// of this process.
func Declarations() []*args.Command { return declarations(commands) }

// AllDeclarations are those of every Ceph release, whatever librbd is here.
func AllDeclarations() []*args.Command { return declarations(allCommands) }

func declarations(of []*command) (list []*args.Command) {
	for _, c := range of {
		list = append(list, &c.Command)
	}
	return list
}

// operand takes the next operand, "" where there is none.
func (c *call) operand() string {
	text := c.Args().Get(c.next)
	if text != "" {
		c.next++
	}
	return text
}

// spec joins the options pool, namespace, image and snap with the next operand.
func (c *call) spec(form spec.Form) (spec.Spec, error) {
	form.Loose = c.names(form.Names) != form.Names
	options := spec.Spec{Pool: c.String("pool"), Namespace: c.String("namespace"), Image: c.String("image"), Snap: c.String("snap")}
	s, used, err := form.Read(options, c.Args().Get(c.next))
	if used {
		c.next++
	}
	return s, err
}

// dest joins the options dest-pool, dest-namespace and dest with the next
// operand. before is what holds where none of them says anything else.
func (c *call) dest(form spec.Form, before spec.Spec) (spec.Spec, error) {
	form.Dest = true
	return c.specBefore(before, form, "dest-pool", "dest-namespace", "dest", "")
}

// withoutSnap refuses a snapshot in a spec, whichever spec it is. The error of
// a Form says where it is in the second of two.
func withoutSnap(s spec.Spec, err error) (spec.Spec, error) {
	if err == nil && s.Snap != "" {
		err = errno.Errorf(syscall.EINVAL, "snapshot name specified for a command that doesn't use it")
	}
	return s, err
}

// specBy is spec with options of other names, "" for one that there is not.
func (c *call) specBy(form spec.Form, pool, namespace, name, snap string) (spec.Spec, error) {
	return c.specBefore(spec.Spec{}, form, pool, namespace, name, snap)
}

func (c *call) specBefore(options spec.Spec, form spec.Form, pool, namespace, name, snap string) (spec.Spec, error) {
	form.Loose = c.names(form.Names) != form.Names
	for option, part := range map[string]*string{
		pool: &options.Pool, namespace: &options.Namespace, name: &options.Image, snap: &options.Snap,
	} {
		if c.IsSet(option) {
			*part = c.String(option)
		}
	}
	s, used, err := form.Read(options, c.Args().Get(c.next))
	if used {
		c.next++
	}
	return s, err
}

// pool joins the options pool and namespace with the next operand.
func (c *call) pool(names spec.Names) (spec.Spec, error) {
	options := spec.Spec{Pool: c.String("pool"), Namespace: c.String("namespace")}
	s, used, err := spec.Pool(options, c.IsSet("pool"), c.Args().Get(c.next), c.names(names))
	if used {
		c.next++
	}
	return s, err
}

// openPool reads the spec of a pool and opens it.
func (c *call) openPool(names spec.Names) (spec.Spec, *rados.IOContext, error) {
	s, err := c.pool(names)
	if err != nil {
		return s, nil, err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	return s, pool, err
}

// onlyPool reads the name of a pool, without a namespace.
func (c *call) onlyPool() (string, error) {
	name := c.String("pool")
	if !c.IsSet("pool") {
		name = c.operand()
	}
	if c.names(spec.New) != spec.Any && strings.ContainsAny(name, "/@") {
		return "", errno.Errorf(syscall.EINVAL, "invalid pool '%s'", name)
	}
	return name, nil
}

// names are the rules for names, which rbd_validate_names switches off.
func (c *call) names(n spec.Names) spec.Names {
	if c.cluster.Config("rbd_validate_names") == "false" {
		return spec.Any
	}
	return n
}

// formatter is what --format and --pretty-format ask for, nil for plain.
func (c *call) formatter() (output.Formatter, error) {
	f, err := output.New(c.String("format"), c.Bool("pretty-format"))
	if err != nil {
		return nil, errno.Errorf(syscall.EINVAL, "%v", err)
	}
	return f, nil
}

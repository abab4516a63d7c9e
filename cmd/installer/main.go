// The installer puts rbd on a node that cannot install packages, says
// beforehand what it would change, and takes it back again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/opt-rbd/opt-rbd/internal/node"
)

// errState ends a command whose answer is an exit code: it has said all.
type errState int

func (e errState) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second one ends the process, whatever it waits for.
	context.AfterFunc(ctx, stop)
	err := app().RunContext(ctx, os.Args)
	if state := errState(0); errors.As(err, &state) {
		os.Exit(int(state))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "installer:", err)
		os.Exit(1)
	}
}

// version is the commit that the installer was built from, as Go noted it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

func app() *cli.App {
	var beside string
	if self, err := os.Executable(); err == nil {
		beside = filepath.Dir(self)
	}
	where := []cli.Flag{
		&cli.StringFlag{Name: "root", Value: "/", Usage: "folder with the node's files; other than / only files are written, but see --live"},
		&cli.BoolFlag{Name: "live", Usage: "--root is the running node, in a container: reach its systemd by the sockets there"},
		&cli.StringFlag{Name: "prefix", Usage: "launcher in PREFIX/bin, payload in PREFIX/rbd", DefaultText: "the one of the installation, else /opt, or /usr/local where both are links into /var"},
		&cli.BoolFlag{Name: "no-restart", Usage: "files only: load, reload and restart nothing"},
		&cli.DurationFlag{Name: "timeout", Value: 90 * time.Second, Usage: "longest wait for one job of systemd"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing but errors"},
	}
	what := append([]cli.Flag{
		&cli.StringFlag{Name: "payload", Value: filepath.Join(beside, "payload"), Usage: "folder with rbd and its libraries", DefaultText: "payload beside the installer"},
		&cli.StringFlag{Name: "shim", Value: filepath.Join(beside, "shim"), Usage: "the launcher", DefaultText: "shim beside the installer"},
		&cli.StringFlag{Name: "kubelet-unit", Usage: "unit that runs kubelet", DefaultText: "the one of the installation, else the one that the node has"},
		&cli.BoolFlag{Name: "restart-server", Usage: "restart also a unit that runs the API server beside kubelet (k3s, rke2-server)"},
		&cli.BoolFlag{Name: "shell", Usage: "also the man page and completion for bash, zsh and fish, in PREFIX/share"},
		&cli.BoolFlag{Name: "force", Usage: "install beside an rbd that the node has of its own"},
	}, where...)

	dryRun := &cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show what would change, as plan does, and change nothing"}

	app := &cli.App{
		Name:  "installer",
		Usage: "put rbd on a node that cannot install packages",
		Description: `Puts the launcher, its payload and a few small settings on a node, and proves
that kubelet finds rbd. Nothing is written that is there already, and nothing is
restarted that need not be.

  installer plan                    what would change, as a diff
  installer install                 make it so
  installer rollback                go back to the release before
  installer status                  what is in place, line by line
  installer run                     install, stay, repair: what the DaemonSet does
  installer uninstall               take back exactly that
  installer plan --root /mnt/node   the same for files below another folder`,
		HideHelpCommand: true,
		Version:         version(),
		ExitErrHandler:  func(*cli.Context, error) {}, // main says it, once
		Commands: []*cli.Command{
			{
				Name:      "plan",
				Usage:     "show what install would change; exit code 2 when there is something",
				ArgsUsage: " ",
				Flags:     what,
				Action: func(c *cli.Context) error {
					return on(c, func(n *node.Node) error { return plan(c, n) })
				},
			},
			{
				Name:      "install",
				Usage:     "make the changes, restart kubelet if it must be, prove the result",
				ArgsUsage: " ",
				Flags:     append([]cli.Flag{dryRun}, what...),
				Action: func(c *cli.Context) error {
					return on(c, func(n *node.Node) error { return install(c, n) })
				},
			},
			{
				Name:      "rollback",
				Usage:     "install the release before the current one, which the node has kept",
				ArgsUsage: " ",
				Flags:     append([]cli.Flag{dryRun}, where...),
				Action: func(c *cli.Context) error {
					return on(c, func(n *node.Node) error {
						if err := n.UsePrevious(); err != nil {
							return err
						}
						return install(c, n)
					})
				},
			},
			{
				Name:      "status",
				Usage:     "say what is in place; exit code 1 when something is not",
				ArgsUsage: " ",
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "format", Value: "text", Usage: "text for a person, json for a program"},
				}, where...),
				Action: func(c *cli.Context) error {
					return on(c, func(n *node.Node) error { return status(c, n) })
				},
			},
			runCommand(what),
			readyCommand,
			{
				Name:      "uninstall",
				Usage:     "take back what install did and restore what stood there before",
				ArgsUsage: " ",
				Flags:     where,
				Action: func(c *cli.Context) error {
					return on(c, func(n *node.Node) error { return n.Uninstall(c.Context) })
				},
			},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("no command %q: see installer --help", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	// One line that names the help, not the help itself.
	usage := func(c *cli.Context, err error, _ bool) error {
		return fmt.Errorf("%w: see %s --help", err, c.Command.HelpName)
	}
	app.OnUsageError = usage
	for _, command := range app.Commands {
		command.OnUsageError = usage
		command.HideHelpCommand = true
	}
	return app
}

func plan(c *cli.Context, n *node.Node) error {
	pending, err := n.Plan(c.Context, c.App.Writer)
	if err == nil && pending {
		err = errState(2)
	}
	return err
}

func install(c *cli.Context, n *node.Node) error {
	if c.Bool("dry-run") {
		return plan(c, n)
	}
	return n.Install(c.Context)
}

func status(c *cli.Context, n *node.Node) error {
	format := c.String("format")
	if format != "text" && format != "json" {
		return fmt.Errorf("no format %q: use text or json", format)
	}
	st, err := n.Status(c.Context)
	if err != nil {
		return err
	}
	if format == "json" {
		out := json.NewEncoder(c.App.Writer)
		out.SetIndent("", "  ")
		err = out.Encode(st)
	} else {
		err = st.Text(c.App.Writer)
	}
	if err == nil && !st.OK {
		err = errState(1)
	}
	return err
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q: see installer %s --help", c.Args().First(), c.Command.Name)
	}
	return nil
}

// options are what the flags say of the node.
func options(c *cli.Context) (node.Options, error) {
	return node.Options{
		Root:      c.String("root"),
		Live:      c.Bool("live"),
		Prefix:    c.String("prefix"),
		Payload:   c.String("payload"),
		Shim:      c.String("shim"),
		Unit:      c.String("kubelet-unit"),
		NoRestart: c.Bool("no-restart"),
		Timeout:   c.Duration("timeout"),

		Force:         c.Bool("force"),
		Shell:         c.Bool("shell"),
		RestartServer: c.Bool("restart-server"),
	}, noArguments(c)
}

// on opens the node that the flags name.
func on(c *cli.Context, do func(*node.Node) error) (err error) {
	o, err := options(c)
	if err != nil {
		return err
	}
	if !c.Bool("quiet") {
		o.Say = func(format string, args ...any) { fmt.Fprintf(c.App.Writer, format+"\n", args...) }
	}
	n, err := node.Open(c.Context, o)
	if err != nil {
		return err
	}
	defer n.Close()
	return do(n)
}

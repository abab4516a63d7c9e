// Lab gives a developer the real cluster and the real node of the tests to play with:
// go run ./test/lab up|status|sh|down|images.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/term"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
	"github.com/opt-rbd/opt-rbd/test/lab/image"
	"github.com/opt-rbd/opt-rbd/test/lab/node"
)

const usage = `usage: go run ./test/lab up [--bluestore] [--hosts] [--mgr] [--kubelet | --no-node] | status | sh [COMMAND...] | down | images
  up      start a cluster and a node that stay until down
          --bluestore  objects in a file instead of in memory
          --hosts      six OSDs on three hosts instead of one OSD
          --mgr        with a ceph-mgr
          --kubelet    with containerd and kubelet in the node; building kubelet takes minutes the first time
          --no-node    the cluster alone
  status  how it is, and how to use it
  sh      run a command in the node with this standard input, or a shell
  down    end it
  images  build what nodes boot from, kubelet included, unless the cache has it
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l := lab{name: "up", stdout: os.Stdout}
	err := l.run(ctx, os.Args[1:])
	if code := exitCode(0); errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// lab is the cluster that is found again by its name.
type lab struct {
	name   string
	stdout io.Writer
}

func (l lab) run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("up, status, sh, down or images?\n%s", usage)
	}
	switch args[0] {
	case "up":
		return l.up(ctx, args[1:])
	case "status":
		return l.status(ctx)
	case "sh":
		return l.sh(ctx, args[1:])
	case "down":
		return l.down()
	case "images":
		return images(ctx)
	case "help", "-h", "--help":
		fmt.Fprint(l.stdout, usage)
		return nil
	}
	return fmt.Errorf("no such command: %s\n%s", args[0], usage)
}

func (l lab) up(ctx context.Context, args []string) error {
	o, n, withNode := cluster.Options{Name: l.name}, node.Options{}, true
	for _, arg := range args {
		switch arg {
		case "--bluestore":
			o.Store = cluster.Bluestore
		case "--hosts":
			o.Hosts, o.OSDs = 3, 6
		case "--mgr":
			o.Mgr = true
		case "--kubelet":
			n.Kubelet = true
		case "--no-node":
			withNode = false
		default:
			return fmt.Errorf("no such option: %s\n%s", arg, usage)
		}
	}
	c, err := cluster.New(ctx, o)
	if err == nil && withNode {
		if err = node.StartDetached(ctx, c, n); err != nil {
			return errors.Join(err, c.Close())
		}
	}
	if errors.Is(err, cluster.ErrRunning) {
		fmt.Fprintln(l.stdout, "The lab is already up.")
		c, err = cluster.Open(l.name)
	}
	if err != nil {
		return err
	}
	l.describe(c)
	return nil
}

func (l lab) status(ctx context.Context) error {
	c, err := cluster.Open(l.name)
	if err != nil {
		return err
	}
	l.describe(c)
	cmd := c.Command(ctx, "ceph", "status")
	cmd.Stdout, cmd.Stderr = l.stdout, os.Stderr
	return cmd.Run()
}

// images builds beforehand what a test would otherwise build in the middle of
// its time, without a word until it ends.
func images(ctx context.Context) error {
	if _, err := image.Build(ctx, os.Stderr); err != nil {
		return err
	}
	_, err := image.KubeletDisk(ctx, os.Stderr)
	return err
}

func (l lab) down() error {
	c, err := cluster.Open(l.name)
	if errors.Is(err, cluster.ErrNotRunning) {
		fmt.Fprintln(l.stdout, "The lab is not up.")
		return nil
	}
	if err != nil {
		return err
	}
	return c.Close()
}

// exitCode is the one of a command in the node, which becomes this command's.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// sh runs a command in the node, or a shell on a terminal of its own.
func (l lab) sh(ctx context.Context, argv []string) error {
	c, err := cluster.Open(l.name)
	if err != nil {
		return err
	}
	client, err := node.Attach(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	cmd := agent.Command{Argv: argv, Stdin: os.Stdin, Stdout: l.stdout, Stderr: os.Stderr}
	if len(argv) == 0 {
		// script gives it the terminal.
		cmd.Argv = []string{"script", "--quiet", "--return", "--command", "exec bash --login", os.DevNull}
		cmd.Env = []string{"TERM=" + os.Getenv("TERM"), "SHELL=/bin/sh"}
		if term.IsTerminal(0) {
			saved, err := term.MakeRaw(0)
			if err != nil {
				return err
			}
			defer term.Restore(0, saved) //nolint:errcheck // there is nothing else to try
		}
	}
	code, err := client.Run(ctx, cmd)
	if err == nil && code != 0 {
		err = exitCode(code)
	}
	return err
}

func (l lab) describe(c *cluster.Cluster) {
	fmt.Fprintf(l.stdout, `A Ceph cluster with a pool named rbd is up. Its monitor is at %s, in a network of its own:

  export CEPH_CONF=%s
  nsenter --net=%s rbd create disk --size 1G
  nsenter --net=%[3]s rbd ls --long
  nsenter --net=%[3]s bash      # a shell in there
`, c.Addr(), c.Conf(), c.NetNS())
	if node.Detached(c) {
		fmt.Fprintf(l.stdout, `
A node with a read-only /usr and no rbd is up beside it and reaches the monitor. Its console is in %s:

  go run ./test/lab sh                        # a shell in the node
  go run ./test/lab sh modprobe rbd           # one command in the node
  go run ./test/lab sh sh -c 'cat >/etc/ceph.keyring' <%s
`, node.ConsoleLog(c), c.Keyring("client.admin"))
	}
	fmt.Fprint(l.stdout, `
  go run ./test/lab status
  go run ./test/lab down
`)
}

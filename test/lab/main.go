// Lab gives a developer the real cluster of the tests to play with: go run ./test/lab up|status|down.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

const usage = `usage: go run ./test/lab up [--bluestore] [--hosts] [--mgr] | status | down
  up      start a cluster that stays until down
          --bluestore  objects in a file instead of in memory
          --hosts      six OSDs on three hosts instead of one OSD
          --mgr        with a ceph-mgr
  status  how it is, and how to use it
  down    end it
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l := lab{name: "up", stdout: os.Stdout}
	if err := l.run(ctx, os.Args[1:]); err != nil {
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
		return errors.New("up, status or down?\n" + usage)
	}
	switch args[0] {
	case "up":
		return l.up(ctx, args[1:])
	case "status":
		return l.status(ctx)
	case "down":
		return l.down()
	case "help", "-h", "--help":
		fmt.Fprint(l.stdout, usage)
		return nil
	}
	return fmt.Errorf("no such command: %s\n%s", args[0], usage)
}

func (l lab) up(ctx context.Context, args []string) error {
	o := cluster.Options{Name: l.name}
	for _, arg := range args {
		switch arg {
		case "--bluestore":
			o.Store = cluster.Bluestore
		case "--hosts":
			o.Hosts, o.OSDs = 3, 6
		case "--mgr":
			o.Mgr = true
		default:
			return fmt.Errorf("no such option: %s\n%s", arg, usage)
		}
	}
	c, err := cluster.New(ctx, o)
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

func (l lab) describe(c *cluster.Cluster) {
	fmt.Fprintf(l.stdout, `A Ceph cluster with a pool named rbd is up. Its monitor is at %s, in a network of its own:

  export CEPH_CONF=%s
  nsenter --net=%s rbd create disk --size 1G
  nsenter --net=%[3]s rbd ls --long
  nsenter --net=%[3]s bash      # a shell in there

  go run ./test/lab status
  go run ./test/lab down
`, c.Addr(), c.Conf(), c.NetNS())
}

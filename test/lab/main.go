// Lab gives a developer the real cluster of the tests to play with: go run ./test/lab up|status|down.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// name under which the developer's cluster is found again; there is one.
const name = "up"

const usage = `usage: go run ./test/lab up [--mgr] [--bluestore] [--hosts] | status | down
  up      start a cluster that stays until down
          --mgr        with a ceph-mgr
          --bluestore  objects in a file instead of in memory
          --hosts      six OSDs on three hosts instead of one OSD
  status  how it is, and how to use it
  down    end it
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	switch args[0] {
	case "up":
		return up(ctx, args[1:])
	case "status":
		c, err := cluster.Open(name)
		if err != nil {
			return err
		}
		describe(c)
		status := c.Command(ctx, "ceph", "-s")
		status.Stdout, status.Stderr = os.Stdout, os.Stderr
		return status.Run()
	case "down":
		c, err := cluster.Open(name)
		if errors.Is(err, cluster.ErrNotRunning) {
			fmt.Println("the lab is not up")
			return nil
		}
		if err != nil {
			return err
		}
		return c.Close()
	default:
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("no such command: %s", args[0])
	}
}

func up(ctx context.Context, args []string) error {
	o := cluster.Options{Name: name}
	for _, arg := range args {
		switch arg {
		case "--mgr":
			o.Mgr = true
		case "--bluestore":
			o.Store = cluster.Bluestore
		case "--hosts":
			o.Hosts, o.OSDs = 3, 6
		default:
			return fmt.Errorf("no such option: %s", arg)
		}
	}
	c, err := cluster.New(ctx, o)
	if errors.Is(err, cluster.ErrRunning) {
		fmt.Println("the lab is already up")
		if c, err = cluster.Open(name); err == nil {
			describe(c)
		}
		return err
	}
	if err != nil {
		return err
	}
	describe(c)
	return nil
}

func describe(c *cluster.Cluster) {
	rbd, err := exec.LookPath("rbd")
	if err != nil {
		rbd = "rbd"
	}
	enter := "nsenter --net=" + c.NetNS()
	fmt.Printf(`A Ceph cluster is up: monitor %s, pool rbd.

  export CEPH_CONF=%s
  %s %s ls            one command in its network
  %s bash             or a shell there

  go run ./test/lab down
`, c.Addr(), c.Conf(), enter, rbd, enter)
}

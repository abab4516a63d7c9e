package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// StartDetached starts a node that stays when this process ends, and ends with
// the named cluster that it belongs to. Its files are in the cluster's folder.
// It returns when the node runs commands.
func StartDetached(ctx context.Context, c *cluster.Cluster, o Options) error {
	d, err := build(ctx, o)
	if err != nil {
		return err
	}
	state, err := os.OpenFile(filepath.Join(c.Dir(), "node.ext4"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer state.Close()
	if err := format(ctx, state); err != nil {
		return err
	}
	console, err := os.Create(ConsoleLog(c))
	if err != nil {
		return err
	}
	defer console.Close()
	l, err := net.Listen("unix", socket(c))
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	defer l.Close()
	listener, err := l.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	defer listener.Close()

	// Not ctx: the node is to stay when that ends.
	args := append(d.args(state.Name(), o), "-chardev", "socket,id=agent,fd=3,server=on,wait=off")
	cmd := c.Daemon(context.WithoutCancel(ctx), qemu, args...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{listener}
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	client, err := Attach(ctx, c)
	if err != nil {
		err = errors.Join(fmt.Errorf("%w; its console is in %s", err, console.Name()), cmd.Process.Kill())
		cmd.Wait() //nolint:errcheck // it was killed
		return err
	}
	// The cluster's namespace ends only when nobody in it is left to be waited for.
	go cmd.Wait() //nolint:errcheck // the node ends with the cluster
	return client.Close()
}

// Attach connects to the agent of a node that StartDetached has started. There
// is one connection at a time; the next waits for its end.
func Attach(ctx context.Context, c *cluster.Cluster) (*agent.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for {
		client, err := attach(ctx, c)
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return client, err
		}
	}
}

// attach tries it once. A guest whose port is closed and opened again at once may see neither, and lose what was said
// in between: it answers the next connection.
func attach(ctx context.Context, c *cluster.Cluster) (*agent.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket(c))
	if err != nil {
		return nil, fmt.Errorf("the lab has no running node: %w", err)
	}
	return agent.Dial(ctx, conn)
}

// Detached tells whether a cluster has a node that StartDetached has started.
func Detached(c *cluster.Cluster) bool {
	_, err := os.Lstat(socket(c))
	return err == nil
}

// ConsoleLog is the file with what the kernel of a detached node has said.
func ConsoleLog(c *cluster.Cluster) string { return filepath.Join(c.Dir(), "log", "node") }

func socket(c *cluster.Cluster) string { return filepath.Join(c.Dir(), "node.socket") }

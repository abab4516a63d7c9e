package cli

import (
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var poolCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"pool", "init"},
			Operands: []args.Operand{poolNameOperand},
			Options: []args.Option{poolOption, {
				Name: "force",
				Help: "force initialize pool for RBD use if registered by\nanother application",
			}},
			Short: "Initialize pool for use by RBD.",
		},
		run: poolInit,
	},
	{
		Command: args.Command{
			Path:     []string{"pool", "stats"},
			Operands: []args.Operand{poolSpec},
			Options:  []args.Option{poolOption, namespaceOption, formatOption, prettyOption},
			Short:    "Display pool statistics.",
			Long:     "Note: legacy v1 images are not included in stats",
		},
		run: poolStats,
	},
}

func poolInit(c *call) error {
	name := c.String("pool")
	if !c.IsSet("pool") {
		name = c.operand()
	}
	pool, err := c.cluster.Pool(name, "")
	if err != nil {
		return err
	}
	// What fails here is said, and still the genuine tool ends with 0.
	err = rbd.PoolInit(pool, c.Bool("force"))
	switch code := errno.Code(err); {
	case err == nil:
	case code == syscall.EOPNOTSUPP:
		fmt.Fprintln(c.stderr, "rbd: luminous or later release required.")
	case code == syscall.EPERM:
		fmt.Fprintln(c.stderr, "rbd: pool already registered to a different application.")
	default:
		fmt.Fprintln(c.stderr, "rbd:", errno.Wrap(err, "error registered application"))
	}
	return nil
}

func poolStats(c *call) error {
	_, pool, err := c.openPool(spec.Any)
	if err != nil {
		return err
	}
	f, err := c.formatter()
	if err != nil {
		return err
	}
	stats, err := rbd.GetAllPoolStats(pool)
	if err != nil {
		return errno.Wrap(err, "failed to query pool stats")
	}
	// What counts as provisioned of an image is the largest that it or a snapshot of it is.
	parts := []struct {
		name                           string
		images, provisioned, snapshots uint64
	}{
		{
			"images", stats[rbd.PoolStatOptionImages], stats[rbd.PoolStatOptionImageMaxProvisionedBytes],
			stats[rbd.PoolStatOptionImageSnapshots],
		},
		{
			"trash", stats[rbd.PoolStatOptionTrashImages], stats[rbd.PoolStatOptionTrashMaxProvisionedBytes],
			stats[rbd.PoolStatOptionTrashSnapshots],
		},
	}
	if f != nil {
		f.OpenObject("stats")
		for _, part := range parts {
			f.OpenObject(part.name)
			f.Uint("count", part.images)
			f.Uint("provisioned_bytes", part.provisioned)
			f.Uint("snap_count", part.snapshots)
			f.Close()
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	images, trash := parts[0], parts[1]
	fmt.Fprintf(c.stdout, "Total Images: %d", images.images)
	if trash.images > 0 {
		fmt.Fprintf(c.stdout, " (%d in trash)", trash.images)
	}
	fmt.Fprintf(c.stdout, "\nTotal Snapshots: %d", images.snapshots)
	if trash.images > 0 {
		fmt.Fprintf(c.stdout, " (%d in trash)", trash.snapshots)
	}
	fmt.Fprintf(c.stdout, "\nProvisioned Size: %s", output.Size(images.provisioned))
	if trash.images > 0 {
		fmt.Fprintf(c.stdout, " (%s in trash)", output.Size(trash.provisioned))
	}
	_, err = fmt.Fprintln(c.stdout)
	return err
}

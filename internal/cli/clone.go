package cli

import (
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var cloneCommand = &command{
	Command: args.Command{
		Path:     []string{"clone"},
		Operands: []args.Operand{sourceSnapSpec, destSpec},
		Options: slices.Concat(sourceImageOptions, []args.Option{sourceSnapOption},
			since(20, args.Option{Name: "snap-id", Arg: "arg", Help: "source snapshot id", Check: isA(unsigned)}),
			destOptions, createOptions),
		Short: "Clone a snapshot into a CoW child image.",
		Long:  featureLegend,
	},
	run: func(c *call) error {
		snap := spec.NeedSnap
		if c.IsSet("snap-id") {
			snap = spec.MaySnap
		}
		pool := func(s spec.Spec) (*rados.IOContext, error) { return c.cluster.Pool(s.Pool, s.Namespace) }
		return duplicate(c, snap, pool, func(from, to *rados.IOContext, s, d spec.Spec, o *rbd.ImageOptions) error {
			var err error
			switch {
			case !c.IsSet("snap-id"):
				err = rbd.CloneImage(from, s.Image, s.Snap, to, d.Image, o)
			case s.Snap != "":
				return errno.Errorf(syscall.EINVAL, "trying to access snapshot using both name and id.")
			default:
				err = librbd.CloneSnapID(from, s.Image, c.number("snap-id", unsigned), to, d.Image, o)
			}
			if errno.Code(err) == syscall.EXDEV {
				return errno.Errorf(syscall.EXDEV, "clone v2 required for cross-namespace clones.")
			}
			return errno.Wrap(err, "clone error")
		})
	},
}

package cli

import (
	"fmt"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
)

// A persistent cache is on the host that writes; opening the image there to
// write is what finds it. --image-id is there, but Ceph 16 does not look at it.
var cacheCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"persistent-cache", "flush"},
			Operands: []args.Operand{imageSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, imageIDOption},
			Short:    "Flush persistent cache.",
		},
		run: func(c *call) error {
			return c.withImage(func(image *rbd.Image) error {
				features, err := image.GetFeatures()
				if err == nil && features&librbd.FeatureDirtyCache == 0 {
					fmt.Fprintln(c.stdout, "rbd: persistent cache is clean or disabled")
					return nil
				}
				if err == nil {
					err = image.Flush()
				}
				return errno.Wrap(err, "flushing persistent cache failed")
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"persistent-cache", "invalidate"},
			Operands: []args.Operand{imageSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, imageIDOption},
			Short:    "Invalidate (discard) existing / dirty persistent cache.",
		},
		run: func(c *call) error {
			return c.withImage(func(image *rbd.Image) error {
				return errno.Wrap(librbd.InvalidateCache(image), "invalidating persistent cache failed")
			})
		},
	},
}

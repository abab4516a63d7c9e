package cli

import (
	"errors"
	"fmt"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// A persistent cache is on the host that writes; opening the image there to
// write is what finds it.
var cacheCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"persistent-cache", "flush"},
			Operands: []args.Operand{imageSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, imageIDOption},
			Short:    "Flush persistent cache.",
		},
		run: func(c *call) error {
			return withCache(c, func(image *rbd.Image) error {
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
			return withCache(c, func(image *rbd.Image) error {
				return errno.Wrap(librbd.InvalidateCache(image), "invalidating persistent cache failed")
			})
		},
	},
}

func withCache(c *call, do func(*rbd.Image) error) (err error) {
	// --image-id is there, but Ceph 16 does not look at it.
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	return do(image)
}

package cli

import (
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
)

var sparsifyCommand = &command{
	Command: args.Command{
		Path:     []string{"sparsify"},
		Operands: []args.Operand{imageSpec},
		Options:  []args.Option{poolOption, namespaceOption, imageOption, noProgress, sparseSizeOption},
		Short:    "Reclaim space for zeroed image extents.",
	},
	run: func(c *call) error {
		return changeImage(c, "Image sparsify", "sparsify error", func(image *rbd.Image, p librbd.Progress) error {
			return librbd.Sparsify(image, c.sparseSize(), p)
		})
	},
}

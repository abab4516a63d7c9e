package cli

import (
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
)

var flattenCommand = &command{
	Command: args.Command{
		Path:     []string{"flatten"},
		Operands: []args.Operand{imageSpec},
		Options:  append([]args.Option{poolOption, namespaceOption, imageOption, noProgress}, encryptionOptions...),
		Short:    "Fill clone with parent data (make it independent).",
	},
	run: func(c *call) error {
		passphrases, err := c.passphrases()
		if err != nil {
			return err
		}
		librbd.KeepBuffers()
		return c.withImage(func(image *rbd.Image) error {
			if err := unlock(image, passphrases); err != nil {
				return err
			}
			return change(c, image, "Image flatten", "flatten error", librbd.Flatten)
		})
	},
}

package cli

import (
	"errors"
	"slices"
	"syscall"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var resizeCommand = &command{
	Command: args.Command{
		Path:     []string{"resize"},
		Operands: []args.Operand{imageSpec},
		Options: slices.Concat([]args.Option{
			poolOption, namespaceOption, imageOption, sizeOption,
			{Name: "allow-shrink", Help: "permit shrinking"},
			noProgress,
		}, encryptionOptions),
		Short: "Resize (expand or shrink) image.",
	},
	run: func(c *call) (err error) {
		s, err := c.spec(spec.Form{})
		if err != nil {
			return err
		}
		size, err := c.size()
		if err != nil {
			return err
		}
		passphrases, err := c.passphrases()
		if err != nil {
			return err
		}
		image, err := c.open(s, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, image.Close()) }()
		if err := unlock(image, passphrases); err != nil {
			return err
		}
		old, err := image.GetSize()
		switch {
		case err != nil:
		case old == size:
			return errno.Errorf(syscall.EINVAL, "new size is equal to original size ")
		case old > size && !c.Bool("allow-shrink"):
			err = syscall.EINVAL
		default:
			err = c.withProgress("Resizing image", 0, func(p librbd.Progress) error {
				return image.Resize2(size, c.Bool("allow-shrink"), func(done, total uint64, _ any) int {
					p(done, total)
					return 0
				}, nil)
			})
		}
		if errno.Code(err) == syscall.EINVAL && err != nil && !c.Bool("allow-shrink") {
			return errno.Errorf(syscall.EINVAL, "shrinking an image is only allowed with the --allow-shrink flag")
		}
		return errno.Wrap(err, "resize error")
	},
}

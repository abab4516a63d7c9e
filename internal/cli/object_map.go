package cli

import (
	"errors"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var objectMapCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"object-map", "rebuild"},
			Operands: []args.Operand{imageOrSnapSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, snapOption, noProgress},
			Short:    "Rebuild an invalid object map.",
		},
		run: func(c *call) (err error) {
			s, err := c.spec(spec.Form{Snap: spec.MaySnap})
			if err != nil {
				return err
			}
			image, err := c.open(s, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, image.Close()) }()
			err = c.withProgress("Object Map Rebuild", func(p librbd.Progress) error { return librbd.RebuildObjectMap(image, p) })
			return errno.Wrap(err, "rebuilding object map failed")
		},
	},
}

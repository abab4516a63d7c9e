package cli

import (
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var objectMapCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"object-map", "check"},
			Operands: []args.Operand{imageOrSnapSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, snapOption, noProgress},
			Short:    "Verify the object map is correct.",
		},
		run: func(c *call) error {
			return withObjectMap(c, "Object Map Check", "checking object map failed", librbd.CheckObjectMap)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"object-map", "rebuild"},
			Operands: []args.Operand{imageOrSnapSpec},
			Options:  []args.Option{poolOption, namespaceOption, imageOption, snapOption, noProgress},
			Short:    "Rebuild an invalid object map.",
		},
		run: func(c *call) error {
			return withObjectMap(c, "Object Map Rebuild", "rebuilding object map failed", librbd.RebuildObjectMap)
		},
	},
}

func withObjectMap(c *call, operation, failed string, do func(*rbd.Image, librbd.Progress) error) error {
	s, err := c.spec(spec.Form{Snap: spec.MaySnap})
	if err != nil {
		return err
	}
	return c.change(s, func(image *rbd.Image) error {
		err := c.withProgress(operation, sizeOf(image), func(p librbd.Progress) error { return do(image, p) })
		return errno.Wrap(err, failed)
	})
}

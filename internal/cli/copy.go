package cli

import (
	"slices"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var (
	sourceImageOptions = []args.Option{sourcePoolOption, sourceNamespaceOption, sourceImageOption}
	destOptions        = []args.Option{destPoolOption, destNamespaceOption, destOption}
	copyOptions        = slices.Concat(sourceImageOptions, []args.Option{sourceSnapOption}, destOptions, createOptions)

	sourceImageSpec = args.Operand{
		Name: "source-image-spec",
		Help: "source image specification\n(example: [<pool-name>/[<namespace>/]]<image-name>)",
	}
	sourceSnapSpec = args.Operand{
		Name: "source-snap-spec",
		Help: "source snapshot specification\n(example: [<pool-name>/[<namespace>/]]<image-name>@<snap-name>)",
	}
	flattenOption = args.Option{Name: "flatten", Help: "fill clone with parent data (make it independent)"}
)

var copyCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"copy"},
			Aliases:  [][]string{{"cp"}},
			Operands: []args.Operand{sourceSpec, destSpec},
			Options:  slices.Concat(copyOptions, []args.Option{sparseSizeOption, noProgress}),
			Short:    "Copy src image to dest.",
			Long:     featureLegend,
		},
		run: func(c *call) error {
			return duplicate(c, spec.MaySnap, c.openSource, func(image *rbd.Image, to *rados.IOContext, _, d spec.Spec, o *rbd.ImageOptions) error {
				librbd.KeepBuffers()
				return change(c, image, "Image copy", "copy failed", func(image *rbd.Image, p librbd.Progress) error {
					return librbd.Copy(image, to, d.Image, o, c.sparseSize(), p)
				})
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"deep", "copy"},
			Aliases:  [][]string{{"deep", "cp"}},
			Operands: []args.Operand{sourceSpec, destSpec},
			Options:  slices.Concat(copyOptions, []args.Option{flattenOption, noProgress}),
			Short:    "Deep copy src image to dest.",
			Long:     featureLegend,
		},
		run: func(c *call) error {
			return duplicate(c, spec.MaySnap, c.openSource, func(image *rbd.Image, to *rados.IOContext, _, d spec.Spec, o *rbd.ImageOptions) error {
				if c.Bool("flatten") {
					if err := o.SetUint64(librbd.ImageOptionFlatten, 1); err != nil {
						return err
					}
				}
				librbd.KeepBuffers()
				return change(c, image, "Image deep copy", "deep copy failed", func(image *rbd.Image, p librbd.Progress) error {
					return librbd.DeepCopy(image, to, d.Image, o, p)
				})
			})
		},
	},
}

// duplicate makes a new image of an old one. source opens that one, or the pool
// where it is.
func duplicate[T any](c *call, snap spec.Snap, source func(spec.Spec) (T, error),
	do func(from T, to *rados.IOContext, s, d spec.Spec, o *rbd.ImageOptions) error,
) error {
	s, err := c.spec(spec.Form{Snap: snap})
	if err != nil {
		return err
	}
	d, err := c.dest(spec.Form{Names: spec.New}, spec.Spec{})
	if err != nil {
		return err
	}
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	if err := c.imageOptions(options, false); err != nil {
		return err
	}
	from, err := source(s)
	if err != nil {
		return err
	}
	to, err := c.cluster.Pool(d.Pool, d.Namespace)
	if err != nil {
		return err
	}
	c.making = &making{to, d}
	defer c.onInterrupt(c.making.String())()
	return do(from, to, s, d, options)
}

// changeImage does something to an image that takes a while.
func changeImage(c *call, operation, failed string, do func(*rbd.Image, librbd.Progress) error) error {
	return c.withImage(func(image *rbd.Image) error { return change(c, image, operation, failed, do) })
}

// change is changeImage for one that is open.
func change(c *call, image *rbd.Image, operation, failed string, do func(*rbd.Image, librbd.Progress) error) error {
	err := c.withProgress(operation, sizeOf(image), func(p librbd.Progress) error { return do(image, p) })
	return errno.Wrap(err, failed)
}

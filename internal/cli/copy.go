package cli

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

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
	},
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
	{
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
	},
	{
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
	},
	{
		Command: args.Command{
			Path:     []string{"rename"},
			Aliases:  [][]string{{"mv"}},
			Operands: []args.Operand{sourceImageSpec, destSpec},
			Options:  slices.Concat(sourceImageOptions, destOptions),
			Short:    "Rename image within pool.",
		},
		run: rename,
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

func rename(c *call) error {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	d, err := c.dest(spec.Form{Names: spec.New}, spec.Spec{Pool: s.Pool, Namespace: s.Namespace})
	if err != nil {
		return err
	}
	if err := samePlace("mv/rename", "", s, d); err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	return errno.Wrap(rbd.GetImage(pool, s.Image).Rename(d.Image), "rename error")
}

// samePlace refuses a rename into another pool or namespace. comma is what the
// operation's second line has between the two.
func samePlace(operation, comma string, s, d spec.Spec) error {
	across := func(what, from, to string) error {
		return errors.Join(
			errno.Errorf(syscall.EINVAL, "%s across %ss not supported", operation, what),
			&errno.Error{Code: syscall.EINVAL, Bare: true, Line: fmt.Sprintf("source %s: %s%s dest %s: %s", what, from, comma, what, to)},
		)
	}
	switch {
	case s.Pool != d.Pool:
		return across("pool", s.Pool, d.Pool)
	case s.Namespace != d.Namespace:
		return across("namespace", s.Namespace, d.Namespace)
	}
	return nil
}

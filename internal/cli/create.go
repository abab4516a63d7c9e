package cli

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// The options of commands that make images.
var (
	journalOptions = []args.Option{
		{Name: "journal-splay-width", Arg: "arg", Help: "number of active journal objects", Check: isA(unsigned)},
		{Name: "journal-object-size", Arg: "arg", Help: "size of journal objects [4K <= size <= 64M]", Check: sizeBetween(4<<10, 64<<20)},
		{Name: "journal-pool", Arg: "arg", Help: "pool for journal objects"},
	}
	formatOptions = []args.Option{
		{Name: "image-format", Arg: "arg", Help: "image format [default: 2]", Check: between(1, 2)},
		{Name: "new-format", Hidden: true, Help: "use --image-format 2"},
	}
	createOptions = append([]args.Option{
		{Name: "order", Arg: "arg", Hidden: true, Help: "use --object-size", Check: between(12, 25)},
		{Name: "object-size", Arg: "arg", Help: "object size in B/K/M [4K <= object size <= 32M]", Check: isA(bytes)},
		{
			Name: "image-feature", Arg: "arg", Repeat: true,
			Help:  "image features\n[layering(+), exclusive-lock(+*), object-map(+*), deep-flatten(+-), journaling(*)]",
			Check: isA(features),
		},
		{Name: "image-shared", Help: "shared image"},
		{Name: "stripe-unit", Arg: "arg", Help: "stripe unit in B/K/M", Check: isA(bytes)},
		{Name: "stripe-count", Arg: "arg", Help: "stripe count", Check: isA(unsigned)},
		{Name: "data-pool", Arg: "arg", Help: "data pool"},
		{Name: "mirror-image-mode", Arg: "arg", Help: "mirror image mode [journal or snapshot]", Check: oneOf("journal", "snapshot")},
	}, journalOptions...)
	sizeOption = args.Option{
		Name: "size", Short: "s", Arg: "arg", Required: true,
		Help: "image size (in M/G/T) [default: M]", Check: isA(imageSize),
	}
)

// featureLegend explains the marks in the help of image-feature.
const featureLegend = `Image Features:
  (*) supports enabling/disabling on existing images
  (-) supports disabling-only on existing images
  (+) enabled by default for new images if features not specified
`

var createCommand = &command{
	Command: args.Command{
		Path:     []string{"create"},
		Operands: []args.Operand{imageSpec},
		Options: slices.Concat(
			[]args.Option{poolOption, namespaceOption, imageOption},
			formatOptions, createOptions,
			[]args.Option{{Name: "thick-provision", Help: "fully allocate storage and zero image"}, sizeOption, noProgress},
		),
		Short: "Create an empty image.",
		Long:  featureLegend,
	},
	run: func(c *call) error {
		s, err := c.spec(spec.Form{Names: spec.New})
		if err != nil {
			return err
		}
		options := rbd.NewRbdImageOptions()
		defer options.Destroy()
		if err := c.imageOptions(options, true); err != nil {
			return err
		}
		size, err := c.size()
		if err != nil {
			return err
		}
		pool, err := c.cluster.Pool(s.Pool, s.Namespace)
		if err != nil {
			return err
		}
		if err := rbd.CreateImage(pool, s.Image, size, options); err != nil {
			return errno.Wrap(err, "create error")
		}
		if c.Bool("thick-provision") {
			if err := thicken(c, pool, s.Image); err != nil {
				return errno.Wrap(err, "image created but error encountered during thick provisioning")
			}
		}
		return nil
	},
}

// size is the value of --size in bytes.
func (c *call) size() (uint64, error) {
	if !c.IsSet("size") {
		return 0, errno.Errorf(syscall.EINVAL, "must specify --size <M/G/T>")
	}
	return imageSize(c.String("size"))
}

// number is the value of an option that its Check has seen, 0 without one.
func (c *call) number(name string, read func(string) (uint64, error)) uint64 {
	if !c.IsSet(name) {
		return 0
	}
	n, err := read(c.String(name))
	if err != nil {
		panic("option " + name + " was not checked: " + err.Error())
	}
	return n
}

// imageOptions reads what is asked of a new image. withFormat says that the
// command has the options for the image format, too.
func (c *call) imageOptions(options *rbd.ImageOptions, withFormat bool) error {
	var errs []error
	set := func(option rbd.ImageOption, n uint64) { errs = append(errs, options.SetUint64(option, n)) }

	order := c.number("order", unsigned)
	if c.IsSet("object-size") && !c.IsSet("order") {
		order = orderOf(c.number("object-size", bytes))
	}
	asked := c.IsSet("image-feature")
	var bitset uint64
	for _, names := range c.StringSlice("image-feature") {
		some, err := features(names)
		if err != nil {
			return err
		}
		bitset |= some
	}
	if c.Bool("image-shared") {
		if asked {
			bitset &^= librbd.FeaturesSingleClient
		} else {
			set(rbd.RbdImageOptionFeaturesClear, librbd.FeaturesSingleClient)
		}
	}
	stripeUnit, stripeCount := c.number("stripe-unit", bytes), c.number("stripe-count", unsigned)
	dataPool := c.String("data-pool")

	if withFormat {
		format, given := c.number("image-format", unsigned), c.IsSet("image-format")
		if c.Bool("new-format") {
			format, given = 2, true
		}
		if format == 1 {
			fmt.Fprintln(c.stderr, "rbd: image format 1 is deprecated")
		}
		for _, needs2 := range []struct {
			asked bool
			what  string
		}{
			{asked && bitset != 0, "features"},
			{(stripeUnit != 0 || stripeCount != 0) && stripeUnit != 1<<order && stripeCount != 1, "non-default striping"},
			{dataPool != "", "data pool"},
		} {
			if needs2.asked && format == 1 {
				return errno.Errorf(syscall.EINVAL, "%s not allowed with format 1; use --image-format 2", needs2.what)
			}
			if needs2.asked {
				format, given = 2, true
			}
		}
		if given {
			errs = append(errs, c.cluster.SetConfig("rbd_default_format", strconv.FormatUint(format, 10)))
			set(rbd.RbdImageOptionFormat, format)
		}
	}
	if order != 0 {
		set(rbd.RbdImageOptionOrder, order)
	}
	if asked {
		set(rbd.RbdImageOptionFeatures, bitset)
	}
	if stripeCount != 0 && uint32(stripeCount) == 0 { // librbd takes 32 bits of it, and divides by them
		return errno.Errorf(syscall.EINVAL, "stripe count %d is out of range", stripeCount)
	}
	if c.IsSet("stripe-unit") || c.IsSet("stripe-count") {
		set(rbd.RbdImageOptionStripeUnit, stripeUnit)
		set(rbd.RbdImageOptionStripeCount, stripeCount)
	}
	if dataPool != "" {
		errs = append(errs, options.SetString(rbd.RbdImageOptionDataPool, dataPool))
	}
	errs = append(errs, c.journalOptions(options))
	switch c.String("mirror-image-mode") {
	case "journal":
		set(librbd.ImageOptionMirrorMode, uint64(rbd.ImageMirrorModeJournal))
		if librbd.Release >= 20 { // it did not go without saying before
			set(rbd.RbdImageOptionFeaturesSet, rbd.FeatureExclusiveLock|rbd.FeatureJournaling)
		}
	case "snapshot":
		set(librbd.ImageOptionMirrorMode, uint64(rbd.ImageMirrorModeSnapshot))
	}
	return errors.Join(errs...)
}

// orderOf rounds a size to the nearest power of two, on the scale of powers.
// No size at all has no order that librbd would take.
func orderOf(size uint64) uint64 {
	if size == 0 {
		return math.MaxInt64
	}
	return uint64(math.Round(math.Log2(float64(size))))
}

// journalOptions reads how a journal is to be laid out. options may be nil:
// then only the configuration gets it, which an image that exists takes it from.
func (c *call) journalOptions(options *rbd.ImageOptions) error {
	var errs []error
	set := func(config string, option rbd.ImageOption, value string, n uint64) {
		errs = append(errs, c.cluster.SetConfig(config, value))
		if options != nil && n > 0 {
			errs = append(errs, options.SetUint64(option, n))
		}
	}
	if c.IsSet("journal-splay-width") {
		n := c.number("journal-splay-width", unsigned)
		set("rbd_journal_splay_width", rbd.RbdImageOptionJournalSplayWidth, strconv.FormatUint(n, 10), n)
	}
	if c.IsSet("journal-object-size") {
		// The smallest power of two that holds it.
		order := uint64(max(12, bits.Len64(c.number("journal-object-size", bytes)-1)))
		set("rbd_journal_order", rbd.RbdImageOptionJournalOrder, strconv.FormatUint(order, 10), order)
	}
	if pool := c.String("journal-pool"); pool != "" {
		set("rbd_journal_pool", 0, pool, 0)
		if options != nil {
			errs = append(errs, options.SetString(rbd.RbdImageOptionJournalPool, pool))
		}
	}
	return errors.Join(errs...)
}

// thicken writes zeros over the whole image, so that all of its space is taken.
func thicken(c *call, pool *rados.IOContext, name string) (err error) {
	image, err := rbd.OpenImage(pool, name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	stat, err := image.Stat()
	if err != nil {
		return err
	}
	stripes, err := image.GetStripeCount()
	if err != nil {
		return err
	}
	// Pieces that fill whole objects, several on their way at a time.
	piece := stat.Obj_size * stripes
	var group errgroup.Group
	group.SetLimit(c.concurrency())
	return c.withProgress("Thick provisioning", stat.Size, func(p librbd.Progress) error {
		for offset := uint64(0); offset < stat.Size; offset += piece {
			n := min(piece, stat.Size-offset)
			group.Go(func() error { return librbd.WriteZeroes(image, offset, n) })
			p(offset+n, stat.Size)
		}
		return cmp.Or(group.Wait(), image.Flush())
	})
}

// concurrency is how many requests a command that makes many has on their way.
func (c *call) concurrency() int {
	n, err := strconv.Atoi(c.cluster.Config("rbd_concurrent_management_ops"))
	if err != nil {
		return 1
	}
	return max(n, 1)
}

// progress is the line of a long operation, silent with --no-progress. size is
// how many bytes the operation is about, 0 where that is not known.
func (c *call) progress(operation string, size uint64) *output.Progress {
	if c.Bool("no-progress") {
		return output.NewProgress(nil, operation, size)
	}
	return output.NewProgress(c.stderr, operation, size)
}

// sizeOf is the size of an open image, 0 where it cannot be told.
func sizeOf(image *rbd.Image) uint64 {
	size, err := image.GetSize()
	if err != nil {
		return 0
	}
	return size
}

// withProgress runs a long operation under a progress line.
func (c *call) withProgress(operation string, size uint64, run func(librbd.Progress) error) error {
	own := *c // what reads the line once more must not disturb the command
	return c.underProgress(operation, size, func() []string { return aboutImage(&own, holderHints) }, run)
}

// withSteps is withProgress for an operation whose steps say what went wrong
// with them in lines of their own, before that of the progress ends. The
// error that it gives is for the line on the whole. image is the one that may
// be locked by somebody else, nil where there is none.
func (c *call) withSteps(operation string, size uint64, image *rbd.Image, run func(librbd.Progress) error) error {
	waiting := func() []string {
		if image == nil {
			return nil
		}
		return holderHints(c, spec.Spec{}, image)
	}
	return c.underProgress(operation, size, waiting, func(p librbd.Progress) error {
		err := run(p)
		if err != nil {
			printSteps(err, c.stderr)
		}
		return err
	})
}

// underProgress runs an operation under its progress line. waiting tells what
// it may be waiting for when it makes no step.
func (c *call) underProgress(operation string, size uint64, waiting func() []string, run func(librbd.Progress) error) error {
	defer c.onInterruptOf()()
	p := c.progress(operation, size)
	moved, stop := onStandstill(waiting, func(hint string) { p.Note(c.stderr, "hint: "+hint) })
	defer stop()
	err := run(func(done, total uint64) {
		moved()
		p.Update(done, total)
	})
	if err != nil {
		p.Fail()
		return err
	}
	p.Finish()
	return nil
}

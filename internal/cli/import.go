package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var (
	importPath       = args.Operand{Name: "path-name", Help: "import file (or '-' for stdin)"}
	importPathOption = args.Option{Name: "path", Arg: "arg", Help: importPath.Help}
)

var importCommand = &command{
	Command: args.Command{
		Path:     []string{"import"},
		Operands: []args.Operand{importPath, destSpec},
		Options: slices.Concat(
			[]args.Option{importPathOption, destPoolOption, destNamespaceOption, destOption},
			formatOptions, createOptions,
			[]args.Option{
				sparseSizeOption, noProgress, exportFormatOption,
				{Name: "pool", Short: "p", Arg: "arg", Hidden: true, Help: "use --dest-pool"},
				{Name: "image", Arg: "arg", Hidden: true, Help: "use --dest"},
			}),
		Short: "Import image from file.",
		Long:  featureLegend,
	},
	run: importImage,
}

// defaultSparseSize is how many zero bytes in a row are left out.
const defaultSparseSize = 4096

func (c *call) sparseSize() uint64 {
	if !c.IsSet("sparse-size") {
		return defaultSparseSize
	}
	return c.number("sparse-size", bytes)
}

// streamError gives the failures of a stream the numbers that rbd ends with.
func streamError(err error) error {
	if err == nil {
		return nil
	}
	var code syscall.Errno
	var (
		banner *stream.BannerError
		check  *stream.CheckError
		merge  *stream.MergeError
		decode *stream.DecodeError
	)
	switch {
	case errors.Is(err, stream.ErrShort):
		code = syscall.EDOM
	case errors.Is(err, stream.ErrOrder), errors.Is(err, stream.ErrRecord):
		code = syscall.EOPNOTSUPP
	case errors.Is(err, stream.ErrBanner), errors.Is(err, stream.ErrName), errors.Is(err, stream.ErrGap),
		errors.As(err, &banner), errors.As(err, &check):
		code = syscall.EINVAL
	case errors.As(err, &merge), errors.As(err, &decode):
		code = errno.Code(err)
	default:
		return err
	}
	line := &errno.Error{Code: code, Line: err.Error(), Bare: errors.Is(err, stream.ErrGap), Err: err}
	if errors.As(err, &banner) {
		return errors.Join(&errno.Error{Code: code, Bare: true, Line: banner.Error()}, line)
	}
	return line
}

func importImage(c *call) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	// Before there was --dest, --image or the name of the file named it.
	name := filepath.Base(path)
	if path[len(path)-1] == '/' {
		name = ""
	}
	if c.IsSet("image") {
		name = c.String("image")
	}
	old, err := spec.Parse(name, c.names(spec.New))
	if err != nil {
		return err
	}
	before := spec.Spec{Pool: c.String("pool"), Snap: old.Snap}
	switch {
	case old.Namespace != "":
		return errno.Errorf(syscall.EINVAL, "namespace name specified for a command that doesn't use it")
	case old.Pool != "":
		before.Pool = old.Pool
	}
	s, err := c.dest(spec.Form{Names: spec.New, Optional: true}, before)
	if err != nil {
		return err
	}
	if s.Image == "" {
		s.Image = old.Image
	}
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	if err := c.imageOptions(options, true); err != nil {
		return err
	}
	if err := c.streaming(); err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	i := importing{call: c, pool: pool, spec: s, options: options, version: 1}
	if c.IsSet("export-format") {
		i.version = int(c.number("export-format", bytes))
	}
	return errno.Wrap(i.run(path), "import failed")
}

// importing makes an image from a stream.
type importing struct {
	*call
	pool    *rados.IOContext
	spec    spec.Spec
	options *rbd.ImageOptions
	version int
	file    *os.File
	size    uint64 // of the file, 0 for a pipe
}

func failedTo(err error, line string) error {
	return errors.Join(err, &errno.Error{Code: errno.Code(err), Line: line, Err: err})
}

func (i *importing) run(path string) error {
	if path == "-" {
		i.file = os.Stdin
	} else {
		f, err := i.openFile(path)
		if err != nil {
			return err
		}
		defer f.Close()
		i.file = f
	}
	return i.withSteps("Importing image", i.size, nil, func(p librbd.Progress) error {
		if path != "-" {
			if err := i.stat(path); err != nil {
				return err
			}
		}
		return i.make(p)
	})
}

func (i *importing) stdin() bool { return i.file == os.Stdin }

func (i *importing) stat(path string) error {
	info, err := i.file.Stat()
	switch {
	case err != nil:
		return &errno.Error{Code: errno.Code(err), Line: "stat error " + path, Err: err}
	case info.IsDir():
		return errno.Errorf(syscall.EISDIR, "cannot import a directory")
	}
	i.size = uint64(info.Size())
	if i.size == 0 {
		if info.Mode().Type() != os.ModeDevice {
			return errno.Errorf(syscall.ENOTTY, "unable to get size of file/block device")
		}
		end, err := i.file.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = i.file.Seek(0, io.SeekStart)
		}
		if err != nil {
			return &errno.Error{Code: errno.Code(err), Line: "unable to get size of file/block device", Err: err}
		}
		i.size = uint64(end)
	}
	_ = unix.Fadvise(int(i.file.Fd()), 0, 0, unix.FADV_SEQUENTIAL) // it is only advice
	return nil
}

// make creates the image and fills it. What cannot be filled is removed again.
func (i *importing) make(progress librbd.Progress) error {
	var meta map[string]string
	// The order of the header is not the one that content is read by, as the
	// genuine tool reads the option before it reads the header.
	order, err := i.order()
	if err != nil {
		return err
	}
	if i.version == 2 {
		if meta, err = i.header(); err != nil {
			return failedTo(streamError(err), "import header failed.")
		}
	}
	size := i.size
	if i.stdin() {
		size = 1 << order
	}
	if err := rbd.CreateImage(i.pool, i.spec.Image, size, i.options); err != nil {
		return failedTo(err, "image creation failed")
	}
	defer i.onInterrupt((&making{i.pool, i.spec}).String())()
	err = i.fill(meta, size, 1<<order, progress)
	if err != nil {
		if removing := rbd.RemoveImage(i.pool, i.spec.Image); removing != nil {
			err = errors.Join(err, &errno.Error{Code: errno.Code(err), Bare: true,
				Line: "hint: the image that is not complete could not be removed: " + errno.Text(errno.Code(removing))})
		}
	}
	return err
}

func (i *importing) order() (uint64, error) {
	if set, err := i.options.IsSet(rbd.RbdImageOptionOrder); err != nil || set {
		order, err := i.options.GetUint64(rbd.RbdImageOptionOrder)
		return min(order, 25), err
	}
	order, err := strconv.ParseUint(i.cluster.Config("rbd_default_order"), 10, 6)
	return min(order, 25), err
}

// header reads the header of an image. What the command line says of a
// property counts more.
func (i *importing) header() (map[string]string, error) {
	h, err := stream.ReadHeader(i.file, func(text string) { fmt.Fprintln(i.stderr, "rbd: "+text) })
	if err != nil {
		return nil, err
	}
	ours := map[rbd.ImageOption]uint64{rbd.RbdImageOptionFormat: 2}
	for property, option := range map[stream.Property]rbd.ImageOption{
		stream.Order: rbd.RbdImageOptionOrder, stream.Features: rbd.RbdImageOptionFeatures,
		stream.StripeUnit: rbd.RbdImageOptionStripeUnit, stream.StripeCount: rbd.RbdImageOptionStripeCount,
	} {
		if n, ok := h.Properties[property]; ok {
			ours[option] = n
		}
	}
	for option, n := range ours {
		set, err := i.options.IsSet(option)
		if err == nil && !set {
			err = i.options.SetUint64(option, n)
		}
		if err != nil {
			return nil, err
		}
	}
	return h.Meta, nil
}

func (i *importing) fill(meta map[string]string, size, block uint64, progress librbd.Progress) (err error) {
	image, err := rbd.OpenImage(i.pool, i.spec.Image, rbd.NoSnapshot)
	if err != nil {
		return failedTo(err, "failed to open image")
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	for key, value := range meta {
		if err := image.SetMetadata(key, value); err != nil {
			return failedTo(err, "failed to import image-meta")
		}
	}
	if i.version == 1 {
		err = i.plain(image, size, block, progress)
	} else {
		err = i.diffs(image, progress)
	}
	if err != nil {
		return failedTo(err, "failed to import image")
	}
	return nil
}

// plain fills an image with the bytes of a file, or of a pipe whose end is
// not known: then the image grows with it.
func (i *importing) plain(image *rbd.Image, size, block uint64, progress librbd.Progress) error {
	w, err := i.newWriter(image, max(block, maxPiece))
	if err != nil {
		return err
	}
	defer w.close()
	at, err := i.pour(w, image, &size, block, progress)
	err = w.wait(err)
	if failed := (*librbd.RequestError)(nil); errors.As(err, &failed) {
		return errno.Wrap(err, fmt.Sprintf("error writing to destination image at offset %d", failed.Offset))
	}
	if err != nil {
		return err
	}
	// Only now it is known whether what the cache has taken got through.
	if err := image.Flush(); err != nil {
		return err
	}
	if i.stdin() && at != size {
		if err := image.Resize(at); err != nil {
			return failedTo(err, "final image resize failed")
		}
	}
	return nil
}

// pour writes what is in the file, in blocks, and says how much that was. An
// image that is filled from a pipe may get another size.
func (i *importing) pour(w *writer, image *rbd.Image, size *uint64, block uint64, progress librbd.Progress) (at uint64, err error) {
	for i.stdin() || at < *size {
		n := block
		if !i.stdin() {
			n = min(block, *size-at)
			progress(at, *size)
		} else {
			progress(at, 0)
		}
		buf, err := w.buffer(n)
		if err != nil {
			return at, err
		}
		got, err := io.ReadFull(i.file, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if end {
			err = nil
		}
		if err == nil && i.stdin() && at+uint64(got) > *size {
			*size = max(2**size, at+uint64(got))
			if err = image.Resize(*size); err != nil {
				err = failedTo(err, "can't resize image during import")
			}
		}
		if err != nil {
			return at, err
		}
		w.write(got, at, i.sparseSize(), false)
		at += uint64(got)
		if end {
			break
		}
	}
	return at, nil
}

// diffs fills an image with a diff for each of its snapshots and one for the
// time since.
func (i *importing) diffs(image *rbd.Image, progress librbd.Progress) error {
	count, err := stream.ReadCount(i.file)
	if err != nil {
		return streamError(err)
	}
	w, err := i.newWriter(image, i.pieceSize())
	if err != nil {
		return err
	}
	defer w.close()
	for n := range count {
		d, err := stream.NewDiffReader(i.file, 2)
		if err == nil {
			err = applyDiff(i.call, image, w, d, func(uint64, uint64) {})
		}
		if err = streamError(err); err != nil {
			text := "import-diff failed: " + errno.Text(errno.Code(err))
			if !i.Bool("no-progress") {
				// The genuine tool has a progress of its own for each diff, which never gets further.
				err = errors.Join(err, &errno.Error{Code: errno.Code(err), Bare: true, Line: "\rImporting image: 0% complete...failed."})
			}
			return failedTo(err, text)
		}
		progress(n+1, count)
	}
	return nil
}

// openFile opens a file to read from. A failure is told at once.
func (c *call) openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintln(c.stderr, "rbd: error opening "+path)
	}
	return f, err
}

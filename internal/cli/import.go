package cli

import (
	"cmp"
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

var importCommands = []*command{
	{
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
	},
	{
		Command: args.Command{
			Path:     []string{"import-diff"},
			Operands: []args.Operand{importPath, imageSpec},
			Options: []args.Option{
				importPathOption, poolOption, namespaceOption, imageOption, sparseSizeOption, noProgress,
			},
			Short: "Import an incremental diff.",
		},
		run: importDiff,
	},
	{
		Command: args.Command{
			Path: []string{"merge-diff"},
			Operands: []args.Operand{
				{Name: "diff1-path", Help: "path to first diff (or '-' for stdin)"},
				{Name: "diff2-path", Help: "path to second diff"},
				{Name: "path-name", Help: "path to merged diff (or '-' for stdout)"},
			},
			Options: []args.Option{
				{Name: "path", Arg: "arg", Help: "path to merged diff (or '-' for stdout)"},
				noProgress,
			},
			Short: "Merge two diff exports together.",
		},
		run: mergeDiff,
	},
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

// writer writes to an image, several buffers at a time, while the next one is
// filled. Memory is bounded by how many that are. Short pieces share a buffer:
// each is written when it is there, so that there are many under way.
type writer struct {
	requests *librbd.Requests
	buffers  [][]byte // of each slot of the requests
	size     uint64   // bytes of a buffer

	slot int    // whose buffer is being filled, or none
	free []byte // what is left of it
}

const noSlot = -1

// smallest is how many bytes of a buffer a request takes up at least, however
// few are written: it bounds how many requests a buffer is for.
const smallest = 16 << 10

// newWriter makes one that has to be closed.
func (c *call) newWriter(image *rbd.Image, size uint64) (*writer, error) {
	n := c.concurrency()
	requests, err := librbd.NewRequests(image, uint64(n))
	return &writer{requests: requests, buffers: make([][]byte, n), size: size, slot: noSlot}, err
}

// buffer waits for room for n bytes, the size of a buffer at most, to fill and
// to hand to write.
func (w *writer) buffer(n uint64) ([]byte, error) {
	if w.slot == noSlot || uint64(len(w.free)) < n {
		if err := w.next(); err != nil {
			return nil, err
		}
	}
	return w.free[:n], nil
}

// next goes on to another buffer.
func (w *writer) next() (err error) {
	w.give()
	if w.slot, err = w.requests.Take(); err != nil {
		return err
	}
	if w.buffers[w.slot] == nil {
		w.buffers[w.slot], err = librbd.Buffer(w.size)
	}
	w.free = w.buffers[w.slot]
	return err
}

func (w *writer) give() {
	if w.slot != noSlot {
		w.requests.Give(w.slot)
		w.slot = noSlot
	}
}

// write begins to write n bytes that buffer's were filled with. Runs of zeros
// on a grid of grain bytes are left out, or written as such where they have to
// take the place of something.
func (w *writer) write(n int, offset, grain uint64, zeros bool) {
	stream.Runs(w.free[:n], grain, func(begin, end int, zero bool) {
		at := offset + uint64(begin)
		switch {
		case !zero:
			w.requests.Write(w.slot, w.free[begin:end], at)
		case zeros:
			w.requests.Zeroes(w.slot, at, uint64(end-begin))
		}
	})
	w.took(n)
}

func (w *writer) took(n int) { w.free = w.free[min(max(n, smallest), len(w.free)):] }

// zero begins to make a range zeros.
func (w *writer) zero(offset, length uint64) error {
	if _, err := w.buffer(1); err != nil {
		return err
	}
	w.requests.Zeroes(w.slot, offset, length)
	w.took(1)
	return nil
}

// wait waits until all is written. An error of a write comes before one that
// ends the writing.
func (w *writer) wait(err error) error {
	w.give()
	return cmp.Or(w.requests.Wait(), err)
}

// close is for a writer that waited.
func (w *writer) close() { w.requests.Close() }

// applyDiff does to an image what a diff says.
func applyDiff(c *call, image *rbd.Image, w *writer, d *stream.DiffReader, progress librbd.Progress) error {
	a := &applying{call: c, image: image, diff: d, w: w, grain: c.sparseSize(), progress: progress}
	if err := w.wait(a.records()); err != nil {
		return err
	}
	if err := image.Flush(); err != nil {
		return err
	}
	if a.to == "" {
		return nil
	}
	snap, err := image.CreateSnapshot(a.to)
	if err == nil && a.protected {
		err = snap.Protect()
	}
	return err
}

// applying is a diff under way.
type applying struct {
	*call
	image     *rbd.Image
	diff      *stream.DiffReader
	w         *writer
	grain     uint64
	progress  librbd.Progress
	to        string
	protected bool
	written   uint64 // where what is on its way ends
	at        uint64 // where the last of it begins
	size      uint64 // of the image
}

// maxPiece is how many bytes of a diff are in one buffer at most, unless one
// is to be of more.
const maxPiece = 4 << 20

// pieceSize is how many bytes of a record of a diff are written at most at a
// time: whole grains, as --sparse-size has them.
func (c *call) pieceSize() uint64 {
	grain := c.sparseSize()
	if grain == 0 {
		return maxPiece
	}
	return min(max(maxPiece/grain, 1)*grain, 32<<20)
}

func (a *applying) records() error {
	for {
		r, err := a.diff.Next()
		switch {
		case err != nil:
			return streamError(err)
		case r.Tag == stream.End:
			return nil
		}
		if err := a.record(r); err != nil {
			return err
		}
		a.progress(a.at, a.size)
	}
}

func (a *applying) record(r stream.Record) error {
	switch r.Tag {
	case stream.FromSnap, stream.ToSnap:
		exists, err := hasSnap(a.image, r.Name)
		switch {
		case err != nil && r.Tag == stream.FromSnap:
			return failedTo(err, "failed to query start snap state")
		case err != nil:
			return failedTo(err, "failed to query end snap state")
		case r.Tag == stream.FromSnap && !exists:
			return &errno.Error{Code: syscall.EINVAL, Bare: true, Line: "start snapshot '" + r.Name + "' does not exist in the image, aborting"}
		case r.Tag == stream.ToSnap && exists:
			return &errno.Error{Code: syscall.EEXIST, Bare: true, Line: "end snapshot '" + r.Name + "' already exists, aborting"}
		}
		if r.Tag == stream.ToSnap {
			a.to = r.Name
		}
	case stream.Protected:
		a.protected = r.Protected
	case stream.Size:
		if err := a.w.wait(nil); err != nil {
			return err
		}
		a.size = r.Size
		size, err := a.image.GetSize()
		if err == nil && size != r.Size {
			err = a.image.Resize(r.Size)
		}
		return err
	case stream.Data, stream.Zero:
		// A diff has no two records for one place; one that has is done in order.
		if r.Offset < a.written {
			if err := a.w.wait(nil); err != nil {
				return err
			}
		}
		a.written = r.Offset + r.Length
		a.at = r.Offset
		if r.Tag == stream.Data {
			return a.data(r)
		}
		return a.w.zero(r.Offset, r.Length)
	default:
		fmt.Fprintf(a.stderr, "unrecognized tag byte %d in stream; skipping\n", r.Tag)
	}
	return nil
}

func (a *applying) data(r stream.Record) error {
	piece := a.pieceSize()
	for at := uint64(0); at < r.Length; {
		n := min(piece, r.Length-at)
		buf, err := a.w.buffer(n)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(a.diff, buf); err != nil {
			return streamError(err)
		}
		a.w.write(len(buf), r.Offset+at, a.grain, true)
		a.at = r.Offset + at
		a.progress(a.at, a.size)
		at += n
	}
	return nil
}

func hasSnap(image *rbd.Image, name string) (bool, error) {
	snaps, err := image.GetSnapshotNames()
	for _, s := range snaps {
		if s.Name == name {
			return true, err
		}
	}
	return false, err
}

func importDiff(c *call) (err error) {
	path, err := c.path()
	if err != nil {
		return err
	}
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	if err := c.streaming(); err != nil {
		return err
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	if err = c.importDiff(image, path); err == nil {
		c.changedUnder(image)
	}
	// So it is called where it is about one diff.
	if errno.Code(err) == syscall.EDOM {
		err = syscall.EBADMSG
	}
	return errno.Wrap(err, "import-diff failed")
}

// openFile opens a file to read from. A failure is told at once.
func (c *call) openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintln(c.stderr, "rbd: error opening "+path)
	}
	return f, err
}

func (c *call) importDiff(image *rbd.Image, path string) error {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = c.openFile(path); err != nil {
			return err
		}
		defer f.Close()
	}
	d, err := stream.NewDiffReader(f, 1)
	if err != nil {
		err = streamError(err)
		printSteps(err, c.stderr)
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// A pipe may stand still where the image is free.
	var awaited *rbd.Image
	if info.Mode().IsRegular() {
		awaited = image
	}
	size := sizeOf(image)
	if path != "-" {
		size = uint64(info.Size())
	}
	return c.withSteps("Importing image diff", size, awaited, func(p librbd.Progress) error {
		if line := p; path != "-" {
			// How much of the file is read, not which part of the image is written.
			p = func(_, _ uint64) {
				if at, err := f.Seek(0, io.SeekCurrent); err == nil {
					line(uint64(at), size)
				}
			}
		}
		if err := checkFile(f); err != nil {
			return streamError(err)
		}
		defer c.onInterrupt("the diff is applied in part: apply it again, or roll back to a snapshot")()
		w, err := c.newWriter(image, c.pieceSize())
		if err != nil {
			return err
		}
		defer w.close()
		return applyDiff(c, image, w, d, p)
	})
}

// checkFile reads the rest of a diff in a file before anything is done of it.
func checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err := stream.Check(f, info.Size()); err != nil {
		return err
	}
	_, err = f.Seek(at, io.SeekStart)
	return err
}

func mergeDiff(c *call) error {
	first, second := c.operand(), c.operand()
	switch {
	case first == "":
		return errno.Errorf(syscall.EINVAL, "first diff was not specified")
	case second == "":
		return errno.Errorf(syscall.EINVAL, "second diff was not specified")
	}
	path, err := c.path()
	if err != nil {
		return err
	}
	err = c.withSteps("Merging image diff", 0, nil, func(p librbd.Progress) error { return c.merge(first, second, path, p) })
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Line: "merge-diff error", Err: err}
	}
	return nil
}

func (c *call) merge(first, second, path string, progress librbd.Progress) error {
	a := os.Stdin
	if first != "-" {
		f, err := c.openFile(first)
		if err != nil {
			return err
		}
		defer f.Close()
		a = f
	}
	b, err := c.openFile(second)
	if err != nil {
		return err
	}
	defer b.Close()
	out, err := c.create(path)
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Line: "error create " + path, Err: err}
	}
	err = streamError(stream.Merge(out, a, b, progress))
	if out != os.Stdout {
		err = errors.Join(err, out.Close())
		if err != nil {
			_ = os.Remove(path)
		}
	}
	return err
}

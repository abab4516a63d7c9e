package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var (
	exportPath       = args.Operand{Name: "path-name", Help: "export file (or '-' for stdout)"}
	exportPathOption = args.Option{Name: "path", Arg: "arg", Help: exportPath.Help}
	// Read as a number of bytes, as the genuine tool does: "1B" is 1.
	exportFormatOption = args.Option{Name: "export-format", Arg: "arg", Help: "format of image file", Check: sizeBetween(1, 2)}
)

var exportCommand = &command{
	Command: args.Command{
		Path:     []string{"export"},
		Operands: []args.Operand{sourceSpec, exportPath},
		Options: []args.Option{
			sourcePoolOption, sourceNamespaceOption, sourceImageOption, sourceSnapOption,
			exportPathOption, noProgress, exportFormatOption,
		},
		Short: "Export image to file.",
	},
	run: export,
}

// path is the value of --path or the next operand.
func (c *call) path() (string, error) {
	path := c.String("path")
	if !c.IsSet("path") {
		path = c.operand()
	}
	if path == "" {
		return "", errno.Errorf(syscall.EINVAL, "path was not specified")
	}
	return path, nil
}

// create makes a file that must not be there yet; "-" is standard output.
func (c *call) create(path string) (*os.File, error) {
	if path == "-" {
		c.stdout.Flush()
		if ceph.Closed(syscall.Stdout) {
			return nil, syscall.EBADF
		}
		return os.Stdout, nil
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// pipeSize is how many bytes fit into a pipe at most without a privilege, by default (pipe(7)).
const pipeSize = 1 << 20

// streaming sets the libraries up for a command that reads or writes much.
// Everything is read or written once: a cache would only copy it, as would
// librbd for callers that change what they write before it is written.
func (c *call) streaming() error {
	librbd.KeepBuffers()
	for _, f := range []*os.File{os.Stdin, os.Stdout} {
		// Fewer turns with who is at the other end of a pipe. What is no pipe, or may not grow, stays as it is.
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	}
	return errors.Join(
		c.cluster.SetConfig("rbd_cache", "false"),
		c.cluster.SetConfig("rbd_disable_zero_copy_writes", "false"),
	)
}

// source opens the image to export and its file.
func (c *call) source() (s spec.Spec, image *rbd.Image, path string, err error) {
	s, err = c.spec(spec.Form{Snap: spec.MaySnap})
	if err != nil {
		return s, nil, "", err
	}
	if path, err = c.path(); err != nil {
		return s, nil, "", err
	}
	if err := c.streaming(); err != nil {
		return s, nil, "", err
	}
	image, err = c.open(s, true)
	return s, image, path, err
}

func export(c *call) error {
	_, image, path, err := c.source()
	if err != nil {
		return err
	}
	info, err := image.Stat()
	if err != nil {
		return errno.Wrap(err, "export error")
	}
	f, err := c.create(path)
	if err != nil {
		return errno.Wrap(err, "export error")
	}
	err = c.withSteps("Exporting image", info.Size, nil, func(p librbd.Progress) error {
		if c.number("export-format", bytes) == 2 {
			err = exportImage(c, image, info, f, p)
		} else {
			err = exportPlain(c, image, info, f, p)
		}
		if f != os.Stdout {
			err = errors.Join(err, f.Close())
		}
		return err
	})
	return errno.Wrap(err, "export error")
}

// printSteps prints the lines that are in an error, not errors of libraries.
func printSteps(err error, stderr io.Writer) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			printSteps(e, stderr)
		}
		return
	}
	if own, ok := err.(*errno.Error); ok { //nolint:errorlint // what it came from has no line to print
		printError(own, stderr)
	}
}

// piece is a part of an image that was read. Its data is nil for zeros.
type piece struct {
	offset, length uint64
	data           []byte
}

// pieces reads parts of an image into buffers that are used again.
type pieces struct {
	image *rbd.Image
	most  uint64 // bytes that a buffer has at least
	free  [][]byte
}

// begin begins to read a part.
func (ps *pieces) begin(offset, length uint64) stream.Pending[piece] {
	var buf []byte
	if last := len(ps.free) - 1; last >= 0 {
		buf, ps.free = ps.free[last], ps.free[:last]
	}
	if uint64(cap(buf)) < length {
		// Of one size, whatever comes first, so that few are made.
		var err error
		if buf, err = librbd.Buffer(max(length, ps.most)); err != nil {
			return func() (piece, error) { return piece{}, err }
		}
	}
	p := piece{offset: offset, length: length, data: buf[:length]}
	read := librbd.Read(ps.image, p.data, offset)
	return func() (piece, error) {
		n, err := read.Wait()
		clear(p.data[n:])
		if err == nil && stream.IsZero(p.data) {
			ps.done(p)
			p.data = nil
		}
		return p, err
	}
}

// done gives the buffer of a piece back.
func (ps *pieces) done(p piece) {
	if p.data != nil {
		ps.free = append(ps.free, p.data)
	}
}

// zero is a part that is known to be zeros.
func zero(offset, length uint64) stream.Pending[piece] {
	return func() (piece, error) { return piece{offset: offset, length: length}, nil }
}

func readError(err error, offset uint64) error {
	if err == nil {
		return nil
	}
	return errno.Wrap(err, fmt.Sprintf("error reading from source image at offset %d", offset))
}

func writeError(err error, offset uint64) error {
	if err == nil {
		return nil
	}
	return &errno.Error{Code: errno.Code(err), Line: fmt.Sprintf("error writing to destination image at offset %d", offset), Err: err}
}

// exportPlain writes the bytes of an image to a pipe, or to a file that can
// have holes. Reads run ahead of writes.
func exportPlain(c *call, image *rbd.Image, info *rbd.ImageInfo, f *os.File, progress librbd.Progress) error {
	period, has, err := layout(c, image, info)
	if err != nil {
		return err
	}
	ps := &pieces{image: image, most: period}
	write := func(p piece) error {
		_, err := f.WriteAt(p.data, int64(p.offset))
		return err
	}
	if f == os.Stdout {
		zeros := make([]byte, period)
		write = func(p piece) error {
			if p.data == nil {
				p.data = zeros[:p.length]
			}
			_, err := f.Write(p.data)
			return err
		}
	}
	err = stream.InOrder(c.concurrency(), func(put func(func() stream.Pending[piece]) error) error {
		for offset := uint64(0); offset < info.Size; offset += period {
			n := min(period, info.Size-offset)
			if err := put(func() stream.Pending[piece] {
				if !has(offset) {
					return zero(offset, n)
				}
				read := ps.begin(offset, n)
				return func() (piece, error) {
					p, err := read()
					return p, readError(err, offset)
				}
			}); err != nil {
				return err
			}
		}
		return nil
	}, func(p piece) error {
		err := write(p)
		ps.done(p)
		progress(p.offset, info.Size)
		return writeError(err, p.offset)
	})
	if err == nil && f != os.Stdout {
		err = f.Truncate(int64(info.Size))
	}
	return err
}

// layout says in which pieces an image is best read, and which of them have
// data as far as is known without reading them.
func layout(c *call, image *rbd.Image, info *rbd.ImageInfo) (period uint64, has func(offset uint64) bool, err error) {
	stripes, err := image.GetStripeCount()
	if err != nil {
		return 0, nil, err
	}
	period = info.Obj_size * stripes
	all := func(uint64) bool { return true }
	features, err := image.GetFeatures()
	if err != nil {
		return 0, nil, err
	}
	flags, err := librbd.Flags(image)
	if err != nil {
		return 0, nil, err
	}
	if stripes > 1 || features&rbd.FeatureFastDiff == 0 || flags&(librbd.FlagFastDiffInvalid|librbd.FlagObjectMapInvalid) != 0 ||
		checkComparable(c, image) != nil {
		return period, all, nil
	}
	// The map of objects tells it in one request.
	bits := make([]uint64, (info.Size/period)/64+1)
	if err := image.DiffIterate(rbd.DiffIterateConfig{
		Length: info.Size, IncludeParent: rbd.IncludeParent, WholeObject: wholeObjects(true, info.Size),
		Callback: func(offset, length uint64, exists int, _ any) int {
			for at := offset / period; exists != 0 && at*period < offset+length; at++ {
				bits[at/64] |= 1 << (at % 64)
			}
			return 0
		},
	}); err != nil {
		return period, all, nil //nolint:nilerr // it is only a help
	}
	return period, func(offset uint64) bool {
		at := offset / period
		return bits[at/64]&(1<<(at%64)) != 0
	}, nil
}

// exportImage writes an image with its properties and snapshots.
func exportImage(c *call, image *rbd.Image, info *rbd.ImageInfo, w io.Writer, progress librbd.Progress) error {
	if err := checkComparable(c, image); err != nil {
		return err
	}
	h := stream.Header{Properties: make(map[stream.Property]uint64)}
	h.Properties[stream.Order] = uint64(info.Order)
	for property, get := range map[stream.Property]func() (uint64, error){
		stream.Features: image.GetFeatures, stream.StripeUnit: image.GetStripeUnit, stream.StripeCount: image.GetStripeCount,
	} {
		n, err := get()
		if err != nil {
			return err
		}
		h.Properties[property] = n
	}
	var err error
	if h.Meta, err = image.ListMetadata(); err != nil {
		return errors.Join(bareError(err, "failed to retrieve metadata of image "), err)
	}
	snaps, err := image.GetSnapshotNames()
	if err != nil {
		return err
	}
	all := uint64(len(snaps)) + 1
	if err := stream.WriteImage(w, h, all); err != nil {
		return err
	}
	bar := output.IsTerminal(c.stderr)
	ps := &pieces{image: image, most: maxPiece}
	last := ""
	for i, name := range append(namesOfSnaps(snaps), rbd.NoSnapshot) {
		if err := image.SetSnapshot(name); err != nil {
			// The content of such a snapshot cannot be had; the line is all
			// that there is of it.
			fmt.Fprintf(c.stderr, "error setting snapshot context: %s\n", errno.Text(errno.Code(err)))
		}
		what := diffOf{version: 2, from: last, to: name}
		out, err := beginDiff(image, w, what)
		if err != nil {
			return err
		}
		if err := writeDiff(c, ps, out, what, func(done, size uint64) {
			// The genuine tool counts whole snapshots alone. A bar moves within them, too.
			if bar && size > 0 {
				progress(uint64(i)*info.Size+uint64(float64(info.Size)*float64(done)/float64(size)), all*info.Size)
			}
		}); err != nil {
			return err
		}
		if !bar {
			progress(uint64(i), all)
		}
		last = name
	}
	return nil
}

func namesOfSnaps(snaps []rbd.SnapInfo) (names []string) {
	for _, s := range snaps {
		names = append(names, s.Name)
	}
	return names
}

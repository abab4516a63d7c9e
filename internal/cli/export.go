package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var (
	exportPath         = args.Operand{Name: "path-name", Help: "export file (or '-' for stdout)"}
	exportPathOption   = args.Option{Name: "path", Arg: "arg", Help: exportPath.Help}
	exportFormatOption = args.Option{Name: "export-format", Arg: "arg", Help: "format of image file", Check: between(1, 2)}
)

var exportCommands = []*command{
	{
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
	},
	{
		Command: args.Command{
			Path:     []string{"export-diff"},
			Operands: []args.Operand{sourceSpec, exportPath},
			Options: []args.Option{
				sourcePoolOption, sourceNamespaceOption, sourceImageOption, sourceSnapOption, exportPathOption,
				{Name: "from-snap", Arg: "arg", Help: "snapshot starting point"},
				{Name: "whole-object", Help: "compare whole object"},
				noProgress,
			},
			Short: "Export incremental diff to file.",
		},
		run: exportDiff,
	},
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
		return os.Stdout, nil
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// streaming sets the libraries up for a command that reads or writes much.
// Everything is read or written once: a cache would only copy it.
func (c *call) streaming() error {
	librbd.KeepBuffers()
	return c.cluster.SetConfig("rbd_cache", "false")
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
	err = c.withSteps("Exporting image", func(p librbd.Progress) error {
		switch {
		case c.number("export-format", unsigned) == 2:
			err = exportImage(c, image, info, f, p)
		case f == os.Stdout:
			err = exportPlain(c, image, info, f, p)
		default:
			err = exportFile(c, image, info, f, p)
		}
		if f != os.Stdout {
			err = errors.Join(err, f.Close())
		}
		return err
	})
	return errno.Wrap(err, "export error")
}

// withSteps is withProgress for an operation whose steps say what went wrong
// with them in lines of their own, before that of the progress ends. The
// error that it gives is for the line on the whole.
func (c *call) withSteps(operation string, run func(librbd.Progress) error) error {
	p := c.progress(operation)
	err := run(p.Update)
	if err != nil {
		printSteps(err, c.stderr)
		p.Fail()
		return err
	}
	p.Finish()
	return nil
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
	pool  sync.Pool
}

func (ps *pieces) read(offset, length uint64) (piece, error) {
	buf, ok := ps.pool.Get().(*[]byte)
	if !ok || uint64(cap(*buf)) < length {
		fresh := make([]byte, length)
		buf = &fresh
	}
	data := (*buf)[:length]
	if _, err := ps.image.ReadAt(data, int64(offset)); err != nil && !errors.Is(err, io.EOF) {
		return piece{}, err
	}
	p := piece{offset: offset, length: length, data: data}
	if stream.IsZero(data) {
		p.data = nil
		ps.pool.Put(buf)
	}
	return p, nil
}

func (ps *pieces) free(p piece) {
	if p.data != nil {
		ps.pool.Put(&p.data)
	}
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

// exportFile writes an image to a file that can have holes, several pieces at
// a time.
func exportFile(c *call, image *rbd.Image, info *rbd.ImageInfo, f *os.File, progress librbd.Progress) error {
	period, has, err := layout(image, info)
	if err != nil {
		return err
	}
	ps := &pieces{image: image}
	group, ctx := errgroup.WithContext(c.Context.Context)
	group.SetLimit(c.concurrency())
	for offset := uint64(0); offset < info.Size && ctx.Err() == nil; offset += period {
		progress(offset, info.Size)
		if !has(offset) {
			continue
		}
		n := min(period, info.Size-offset)
		group.Go(func() error {
			p, err := ps.read(offset, n)
			if err != nil {
				return readError(err, offset)
			}
			if p.data != nil {
				_, err = f.WriteAt(p.data, int64(offset))
			}
			ps.free(p)
			return writeError(err, offset)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return f.Truncate(int64(info.Size))
}

// exportPlain writes an image to a pipe. Reads run ahead of writes.
func exportPlain(c *call, image *rbd.Image, info *rbd.ImageInfo, w io.Writer, progress librbd.Progress) error {
	period, has, err := layout(image, info)
	if err != nil {
		return err
	}
	ps := &pieces{image: image}
	zeros := make([]byte, period)
	return stream.InOrder(c.concurrency(), func(put func(func() (piece, error)) error) error {
		for offset := uint64(0); offset < info.Size; offset += period {
			n := min(period, info.Size-offset)
			if err := put(func() (piece, error) {
				if !has(offset) {
					return piece{offset: offset, length: n}, nil
				}
				p, err := ps.read(offset, n)
				return p, readError(err, offset)
			}); err != nil {
				return err
			}
		}
		return nil
	}, func(p piece) error {
		data := p.data
		if data == nil {
			data = zeros[:p.length]
		}
		_, err := w.Write(data)
		ps.free(p)
		progress(p.offset, info.Size)
		return writeError(err, p.offset)
	})
}

// layout says in which pieces an image is best read, and which of them have
// data as far as is known without reading them.
func layout(image *rbd.Image, info *rbd.ImageInfo) (period uint64, has func(offset uint64) bool, err error) {
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
	if stripes > 1 || features&rbd.FeatureFastDiff == 0 || flags&(librbd.FlagFastDiffInvalid|librbd.FlagObjectMapInvalid) != 0 {
		return period, all, nil
	}
	// The map of objects tells it in one request.
	bits := make([]uint64, (info.Size/period)/64+1)
	if err := image.DiffIterate(rbd.DiffIterateConfig{
		Length: info.Size, IncludeParent: rbd.IncludeParent, WholeObject: rbd.EnableWholeObject,
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
	if err := stream.WriteImage(w, h, uint64(len(snaps))+1); err != nil {
		return err
	}
	last := ""
	for i, name := range append(namesOfSnaps(snaps), rbd.NoSnapshot) {
		if err := image.SetSnapshot(name); err != nil {
			// The content of such a snapshot cannot be had; the line is all
			// that there is of it.
			fmt.Fprintf(c.stderr, "error setting snapshot context: %s\n", errno.Text(errno.Code(err)))
		}
		if err := writeDiff(c, image, w, diffOf{version: 2, from: last, to: name}, func(uint64, uint64) {}); err != nil {
			return err
		}
		progress(uint64(i), uint64(len(snaps))+1)
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

// diffOf is what is in a diff.
type diffOf struct {
	version      int
	from, to     string // names of snapshots, may be empty
	wholeObjects bool
}

// writeDiff writes a diff of an image, which is set to the snapshot where it
// ends. Reads run ahead of writes.
func writeDiff(c *call, image *rbd.Image, w io.Writer, what diffOf, progress librbd.Progress) error {
	size, err := image.GetSize()
	if err != nil {
		return err
	}
	out := stream.NewDiffWriter(w, what.version)
	var header []stream.Record
	if what.from != "" {
		header = append(header, stream.Record{Tag: stream.FromSnap, Name: what.from})
	}
	if what.to != "" {
		header = append(header, stream.Record{Tag: stream.ToSnap, Name: what.to})
		if what.version == 2 {
			protected, err := image.GetSnapshot(what.to).IsProtected()
			if err != nil {
				return err
			}
			header = append(header, stream.Record{Tag: stream.Protected, Protected: protected})
		}
	}
	for _, r := range append(header, stream.Record{Tag: stream.Size, Size: size}) {
		if err := out.Write(r, nil); err != nil {
			return err
		}
	}
	ps := &pieces{image: image}
	whole := rbd.DisableWholeObject
	if what.wholeObjects {
		whole = rbd.EnableWholeObject
	}
	err = stream.InOrder(c.concurrency(), func(put func(func() (piece, error)) error) error {
		var failed error
		err := image.DiffIterate(rbd.DiffIterateConfig{
			SnapName: what.from, Length: size, IncludeParent: rbd.IncludeParent, WholeObject: whole,
			Callback: func(offset, length uint64, exists int, _ any) int {
				failed = put(func() (piece, error) {
					if exists == 0 {
						return piece{offset: offset, length: length}, nil
					}
					return ps.read(offset, length)
				})
				if failed != nil {
					return -int(syscall.ECANCELED)
				}
				return 0
			},
		})
		if failed != nil {
			return failed
		}
		return err
	}, func(p piece) error {
		r := stream.Record{Tag: stream.Zero, Offset: p.offset, Length: p.length}
		if p.data != nil {
			r.Tag = stream.Data
		}
		err := out.Write(r, p.data)
		ps.free(p)
		progress(p.offset, size)
		return err
	})
	if err != nil {
		return err
	}
	if err := out.Write(stream.Record{Tag: stream.End}, nil); err != nil {
		return err
	}
	return out.Flush()
}

func exportDiff(c *call) error {
	s, image, path, err := c.source()
	if err != nil {
		return err
	}
	f, err := c.create(path)
	if err != nil {
		return errno.Wrap(err, "export-diff error")
	}
	what := diffOf{version: 1, from: c.String("from-snap"), to: s.Snap, wholeObjects: c.Bool("whole-object")}
	err = c.withSteps("Exporting image", func(p librbd.Progress) error { return writeDiff(c, image, f, what, p) })
	if f != os.Stdout {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(path)
		}
	}
	return errno.Wrap(err, "export-diff error")
}

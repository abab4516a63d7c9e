package cli

import (
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var exportDiffCommand = &command{
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
}

func exportDiff(c *call) error {
	s, image, path, err := c.source()
	if err != nil {
		return err
	}
	if err := checkComparable(c, image); err != nil {
		return errors.Join(err, errno.Wrap(err, "export-diff error"))
	}
	f, err := c.create(path)
	if err != nil {
		return errno.Wrap(err, "export-diff error")
	}
	what := diffOf{version: 1, from: c.String("from-snap"), to: s.Snap, wholeObjects: c.Bool("whole-object")}
	out, err := beginDiff(image, f, what)
	if err == nil {
		err = out.Flush() // one that fails is no matter of the progress yet
	}
	if err == nil {
		err = c.withSteps("Exporting image", sizeOf(image), nil, func(p librbd.Progress) error {
			return writeDiff(c, &pieces{image: image, most: maxPiece}, out, what, p)
		})
	}
	if f != os.Stdout {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(path)
		}
	}
	return errno.Wrap(err, "export-diff error")
}

// diffOf is what is in a diff.
type diffOf struct {
	version      int
	from, to     string // names of snapshots, may be empty
	wholeObjects bool
}

// beginDiff writes what comes before the data in a diff of an image, which is
// set to the snapshot where it ends.
func beginDiff(image *rbd.Image, w io.Writer, what diffOf) (*stream.DiffWriter, error) {
	size, err := image.GetSize()
	if err != nil {
		return nil, err
	}
	out := stream.NewDiffWriter(w, what.version)
	if librbd.Release >= 18 {
		out.ProtectedLength = 1
	}
	var header []stream.Record
	if what.from != "" {
		header = append(header, stream.Record{Tag: stream.FromSnap, Name: what.from})
	}
	if what.to != "" {
		header = append(header, stream.Record{Tag: stream.ToSnap, Name: what.to})
		if what.version == 2 {
			protected, err := image.GetSnapshot(what.to).IsProtected()
			if err != nil {
				return nil, err
			}
			header = append(header, stream.Record{Tag: stream.Protected, Protected: protected})
		}
	}
	for _, r := range append(header, stream.Record{Tag: stream.Size, Size: size}) {
		if err := out.Write(r, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// writeDiff writes the data of a diff of the image of ps, and the end. Reads
// run ahead of writes.
func writeDiff(c *call, ps *pieces, out *stream.DiffWriter, what diffOf, progress librbd.Progress) error {
	image := ps.image
	size, err := image.GetSize()
	if err != nil {
		return err
	}
	err = stream.InOrder(c.concurrency(), func(put func(func() stream.Pending[piece]) error) error {
		var failed error
		err := image.DiffIterate(rbd.DiffIterateConfig{
			SnapName: what.from, Length: size, IncludeParent: rbd.IncludeParent, WholeObject: wholeObjects(what.wholeObjects, size),
			Callback: func(offset, length uint64, exists int, _ any) int {
				failed = put(func() stream.Pending[piece] {
					if exists == 0 {
						return zero(offset, length)
					}
					return ps.begin(offset, length)
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
		ps.done(p)
		progress(p.offset, size)
		return err
	})
	if err != nil {
		return errors.Join(err, out.Flush()) // whoever reads it from a pipe gets what there is
	}
	if err := out.Write(stream.Record{Tag: stream.End}, nil); err != nil {
		return err
	}
	return out.Flush()
}

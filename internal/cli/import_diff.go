package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/spec"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

var importDiffCommand = &command{
	Command: args.Command{
		Path:     []string{"import-diff"},
		Operands: []args.Operand{importPath, imageSpec},
		Options: []args.Option{
			importPathOption, poolOption, namespaceOption, imageOption, sparseSizeOption, noProgress,
		},
		Short: "Import an incremental diff.",
	},
	run: importDiff,
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

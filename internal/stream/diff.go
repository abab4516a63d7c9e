// Package stream reads and writes the files and pipes of export, import,
// export-diff, import-diff and merge-diff: diffs in both versions of their
// format, and images with their properties and snapshots. What a stream of
// version 1 of an image is, plain bytes, needs nothing of this.
//
// It knows nothing of images in a cluster and links no library of Ceph, so
// that damaged streams can be thrown at it without one. The formats are those
// of doc/dev/rbd-diff.rst and doc/dev/rbd-export.rst in Ceph.
package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// The first bytes of streams.
const (
	bannerDiff1  = "rbd diff v1\n"
	bannerDiff2  = "rbd diff v2\n"
	bannerImage2 = "rbd image v2\n"
	bannerDiffs2 = "rbd image diffs v2\n"
)

// Tag says what a record of a diff is.
type Tag byte

// The records of a diff.
const (
	FromSnap  Tag = 'f' // the snapshot that the diff begins at
	ToSnap    Tag = 't' // the snapshot that the diff ends with
	Protected Tag = 'p' // whether that one is protected; only in version 2
	Size      Tag = 's' // of the image at the end
	Data      Tag = 'w' // bytes that follow
	Zero      Tag = 'z' // a range that is zeros now
	End       Tag = 'e'
)

// Record is one record of a diff.
type Record struct {
	Tag       Tag
	Name      string // of FromSnap and ToSnap
	Protected bool
	Size      uint64
	Offset    uint64 // of Data and Zero
	Length    uint64
	skip      uint64 // of a tag that is not known: what follows it
}

// maxName is how long the name of a snapshot may be.
const maxName = 4096

// Errors that a stream is not what it should be. ErrShort says that it ends
// too soon.
var (
	ErrShort  = errors.New("the stream ends too soon")
	ErrBanner = errors.New("invalid or unexpected diff banner")
	ErrName   = errors.New("a text is longer than it may be")
)

// DecodeError says which part of a stream cannot be read.
type DecodeError struct {
	What string
	Err  error
}

func (e *DecodeError) Error() string { return "failed to decode " + e.What }
func (e *DecodeError) Unwrap() error { return e.Err }

// input is a stream that is read. Only what it says of the first failure counts.
type input struct {
	r    io.Reader
	seek io.Seeker // nil for pipes
}

func newInput(r io.Reader) input {
	in := input{r: r}
	if s, ok := r.(io.Seeker); ok {
		if _, err := s.Seek(0, io.SeekCurrent); err == nil {
			in.seek = s
		}
	}
	return in
}

func (in input) bytes(n int, what string) ([]byte, error) {
	buf := make([]byte, n)
	if _, err := io.ReadFull(in.r, buf); err != nil {
		return nil, &DecodeError{what, short(err)}
	}
	return buf, nil
}

func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrShort
	}
	return err
}

func (in input) byte(what string) (byte, error) {
	b, err := in.bytes(1, what)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (in input) uint64(what string) (uint64, error) {
	b, err := in.bytes(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// text reads a text with its length before it. Memory grows with what is
// there, not with what the length says.
func (in input) text(most uint64, what string) (string, error) {
	b, err := in.bytes(4, what)
	if err != nil {
		return "", err
	}
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > most {
		return "", &DecodeError{what, ErrName}
	}
	var text bytes.Buffer
	if _, err := io.CopyN(&text, in.r, int64(n)); err != nil {
		return "", &DecodeError{what, short(err)}
	}
	return text.String(), nil
}

func (in input) banner(want string) error {
	got, err := in.bytes(len(want), "diff banner")
	if err != nil {
		return err
	}
	if string(got) != want {
		return ErrBanner
	}
	return nil
}

// skip goes over n bytes. Where the stream can seek it may go past the end,
// which the next read finds out.
func (in input) skip(n uint64, what string) error {
	if in.seek != nil && n <= math.MaxInt64 {
		_, err := in.seek.Seek(int64(n), io.SeekCurrent)
		return err
	}
	if _, err := io.CopyN(io.Discard, in.r, int64(min(n, math.MaxInt64))); err != nil {
		return &DecodeError{what, short(err)}
	}
	return nil
}

// DiffReader reads one diff.
type DiffReader struct {
	in      input
	version int
	left    uint64 // bytes of the last Data record that nobody has read yet
}

// NewDiffReader reads the first line of a diff of a version.
func NewDiffReader(r io.Reader, version int) (*DiffReader, error) {
	d := &DiffReader{in: newInput(r), version: version}
	banner := bannerDiff1
	if version == 2 {
		banner = bannerDiff2
	}
	return d, d.in.banner(banner)
}

// Next gives the next record. What was not read of the bytes of the one
// before is skipped. A record whose tag is not one of the above is to be
// ignored.
func (d *DiffReader) Next() (Record, error) {
	if err := d.in.skip(d.left, "write data"); err != nil {
		return Record{}, err
	}
	d.left = 0
	tag, err := d.in.byte("tag")
	if err != nil {
		return Record{}, err
	}
	r := Record{Tag: Tag(tag)}
	if d.version == 2 && r.Tag != End {
		if r.skip, err = d.in.uint64("tag length"); err != nil {
			return r, err
		}
	}
	switch r.Tag {
	case End:
	case FromSnap:
		r.Name, err = d.in.text(maxName, "start snap name")
	case ToSnap:
		r.Name, err = d.in.text(maxName, "end snap name")
	case Protected:
		var b byte
		b, err = d.in.byte("snap protection status")
		r.Protected = b != 0
	case Size:
		r.Size, err = d.in.uint64("image size")
	case Data, Zero:
		if r.Offset, err = d.in.uint64("IO length"); err == nil {
			r.Length, err = d.in.uint64("IO length")
		}
		if r.Tag == Data {
			d.left = r.Length
		}
	default:
		err = d.in.skip(r.skip, "skipped tag data")
	}
	return r, err
}

// Read reads the bytes of the Data record that Next gave last.
func (d *DiffReader) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	n, err := d.in.r.Read(p[:min(uint64(len(p)), d.left)])
	d.left -= uint64(n)
	if err != nil && d.left > 0 {
		err = &DecodeError{"write data", short(err)}
	}
	return n, err
}

// CheckError says why a diff cannot be whole.
type CheckError struct{ Text string }

func (e *CheckError) Error() string { return e.Text }

// Check reads the rest of a diff of version 1 without its data: that all of
// its records are there, up to the last, and that none of them reaches out of
// the image or its bytes out of the file, whose size it takes.
func Check(r io.ReadSeeker, fileSize int64) error {
	d := &DiffReader{in: newInput(r), version: 1}
	size := uint64(math.MaxUint64)
	for {
		rec, err := d.Next()
		if err != nil || rec.Tag == End {
			return err
		}
		switch rec.Tag {
		case Size:
			size = rec.Size
		case Data, Zero:
			if rec.Length > size || rec.Offset > size-rec.Length {
				return &CheckError{fmt.Sprintf("the record at %d of %d bytes lies outside of the image of %d bytes", rec.Offset, rec.Length, size)}
			}
			at, err := r.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			if rec.Tag == Data && rec.Length > uint64(max(fileSize-at, 0)) {
				return &DecodeError{"write data", ErrShort}
			}
		}
	}
}

// DiffWriter writes one diff.
type DiffWriter struct {
	// ProtectedLength is how long a record of type Protected is said to be in
	// version 2. It is one byte, and Ceph 18 says so, but Ceph 16 says 8, the
	// default. Readers go by the type.
	ProtectedLength int

	w       io.Writer
	version int
	err     error
	buf     []byte
}

// NewDiffWriter begins a diff of a version.
func NewDiffWriter(w io.Writer, version int) *DiffWriter {
	d := &DiffWriter{ProtectedLength: 8, w: w, version: version}
	if version == 2 {
		d.buf = append(d.buf, bannerDiff2...)
	} else {
		d.buf = append(d.buf, bannerDiff1...)
	}
	return d
}

// Write writes a record but not the bytes that follow one of type Data: those
// are data, which is not kept.
func (d *DiffWriter) Write(r Record, data []byte) error {
	d.buf = append(d.buf, byte(r.Tag))
	length := func(n int) {
		if d.version == 2 {
			d.buf = binary.LittleEndian.AppendUint64(d.buf, uint64(n))
		}
	}
	switch r.Tag {
	case FromSnap, ToSnap:
		length(4 + len(r.Name))
		d.buf = appendText(d.buf, r.Name)
	case Protected:
		length(d.ProtectedLength)
		d.buf = append(d.buf, 0)
		if r.Protected {
			d.buf[len(d.buf)-1] = 1
		}
	case Size:
		length(8)
		d.buf = binary.LittleEndian.AppendUint64(d.buf, r.Size)
	case Data, Zero:
		length(16 + len(data))
		d.buf = binary.LittleEndian.AppendUint64(d.buf, r.Offset)
		d.buf = binary.LittleEndian.AppendUint64(d.buf, r.Length)
	}
	return d.flush(data)
}

// flush writes headers together with the bytes behind them where those are
// few, so that small records do not cost a system call each.
func (d *DiffWriter) flush(data []byte) error {
	const few = 32 << 10
	if len(data) < few {
		d.buf = append(d.buf, data...)
		data = nil
	}
	if len(d.buf) < few && data == nil {
		return d.err
	}
	d.Flush()
	if d.err == nil && data != nil {
		_, d.err = d.w.Write(data)
	}
	return d.err
}

// Flush writes what is still kept.
func (d *DiffWriter) Flush() error {
	if d.err == nil && len(d.buf) > 0 {
		_, d.err = d.w.Write(d.buf)
		d.buf = d.buf[:0]
	}
	return d.err
}

func appendText(buf []byte, text string) []byte {
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(text)))
	return append(buf, text...)
}

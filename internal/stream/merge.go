package stream

import (
	"errors"
	"fmt"
	"io"
)

// Errors of Merge. ErrGap says that the second diff does not begin where the
// first ends, ErrOrder that ranges do not follow one another, ErrRecord that
// there is something else than ranges of data and zeros.
var (
	ErrGap    = errors.New("The first TO snapshot must be equal with the second FROM snapshot, aborting") //nolint:staticcheck // the genuine line
	ErrOrder  = errors.New("out of order")
	ErrRecord = errors.New("no range")
)

// MergeError says which step of a Merge failed, in a whole line.
type MergeError struct {
	Line string
	Err  error
}

func (e *MergeError) Error() string { return e.Line }
func (e *MergeError) Unwrap() error { return e.Err }

// BannerError says that a diff does not begin as one.
type BannerError struct{ Got string }

func (e *BannerError) Error() string {
	return fmt.Sprintf("invalid banner '%s', expected '%s'", e.Got, bannerDiff1)
}

// merging is one of the two diffs: its header and the range that it is at.
type merging struct {
	name           string // "first" or "second"
	d              *DiffReader
	from, to       string
	size           uint64
	tag            Tag
	offset, length uint64
	next           *Record // read together with the header
	nextErr        error
	ended          bool
}

func beginMerging(name string, r io.Reader) (*merging, error) {
	m := &merging{name: name, d: &DiffReader{in: newInput(r), version: 1}}
	fail := func(err error) error { return &MergeError{"failed to parse " + name + " diff header", err} }
	banner, err := m.d.in.bytes(len(bannerDiff1), "diff banner")
	if err != nil {
		return nil, fail(err)
	}
	if string(banner) != bannerDiff1 {
		return nil, fail(&BannerError{string(banner)})
	}
	for {
		r, err := m.d.Next()
		switch {
		case err != nil && (r.Tag == Data || r.Tag == Zero):
			m.next, m.nextErr = &r, err
			return m, nil
		case err != nil:
			return nil, fail(err)
		case r.Tag == FromSnap:
			m.from = r.Name
		case r.Tag == ToSnap:
			m.to = r.Name
		case r.Tag == Size:
			m.size = r.Size
		default:
			m.next = &r
			return m, nil
		}
	}
}

// advance goes to the next range. At the end that is the range by which the
// image is smaller than other, whose size that is.
func (m *merging) advance(other uint64) error {
	if m.ended || m.length > 0 {
		return nil
	}
	before := m.offset
	var r Record
	var err error
	if m.next != nil {
		r, err, m.next = *m.next, m.nextErr, nil
	} else {
		r, err = m.d.Next()
	}
	if err == nil && r.Tag != End && (r.Tag != Data && r.Tag != Zero || r.Length == 0) {
		err = ErrRecord
	}
	if err != nil {
		return &MergeError{"failed to read " + m.name + " diff data chunk header", err}
	}
	m.tag, m.offset, m.length = r.Tag, r.Offset, r.Length
	if r.Tag == End {
		m.ended = true
		m.offset, m.length = m.size, 0
		if m.size < other {
			m.length = other - m.size
		}
	}
	if before > m.offset {
		return &MergeError{fmt.Sprintf("out-of-order offset from %s diff (%d > %d)", m.name, before, m.offset), ErrOrder}
	}
	return nil
}

// copy writes the next n bytes of the range, drop leaves them out.
func (m *merging) copy(w io.Writer, out *DiffWriter, tag Tag, n uint64) error {
	if tag != End {
		err := out.Write(Record{Tag: tag, Offset: m.offset, Length: n}, nil)
		if err == nil && tag == Data {
			if err = out.Flush(); err == nil {
				_, err = io.CopyN(w, m.d, int64(n))
			}
		}
		if err != nil {
			return &MergeError{"failed to merge diff chunk", short(err)}
		}
	}
	m.take(n)
	return nil
}

func (m *merging) drop(n uint64) error {
	if m.tag == Data {
		if err := m.d.in.skip(n, "write data"); err != nil {
			return &MergeError{"failed to skip first diff data", err}
		}
		m.d.left -= n
	}
	m.take(n)
	return nil
}

func (m *merging) take(n uint64) {
	m.offset += n
	m.length -= n
}

// Merge writes to w the diff that does what the first and then the second do.
// Both have to be of version 1, with ranges in ascending order.
func Merge(w io.Writer, first, second io.Reader, progress func(done, total uint64)) error {
	f, err := beginMerging("first", first)
	if err != nil {
		return err
	}
	s, err := beginMerging("second", second)
	if err != nil {
		return err
	}
	if f.to != s.from {
		return ErrGap
	}
	out := NewDiffWriter(w, 1)
	for _, r := range []Record{{Tag: FromSnap, Name: f.from}, {Tag: ToSnap, Name: s.to}, {Tag: Size, Size: s.size}} {
		if r.Tag != Size && r.Name == "" {
			continue
		}
		if err := out.Write(r, nil); err != nil {
			return &MergeError{"failed to write merged diff header", err}
		}
	}
	if err := out.Flush(); err != nil {
		return &MergeError{"failed to write merged diff header", err}
	}
	total := 2 * max(f.size, s.size)
	for !f.ended || !s.ended || f.length > 0 || s.length > 0 {
		progress(f.offset+s.offset, total)
		if err := f.advance(s.size); err != nil {
			return err
		}
		if err := s.advance(f.size); err != nil {
			return err
		}
		// What the first has before the range of the second stays, what it
		// has within is overwritten.
		if f.length > 0 && f.offset < s.offset {
			tag := f.tag
			if f.ended {
				tag = Zero // the image has grown
			}
			if err := f.copy(w, out, tag, min(f.length, s.offset-f.offset)); err != nil {
				return err
			}
			if f.length == 0 {
				continue
			}
		}
		if f.length > 0 && f.offset < s.offset+s.length {
			if err := f.drop(min(f.length, s.offset+s.length-f.offset)); err != nil {
				return err
			}
			if f.length == 0 {
				continue
			}
		}
		if s.length > 0 {
			if err := s.copy(w, out, s.tag, s.length); err != nil {
				return err
			}
		} else if f.length > 0 && s.ended {
			// Only of a diff whose size is not true: nothing ends it.
			return &MergeError{"failed to merge diff chunk", ErrRecord}
		}
	}
	if err := out.Write(Record{Tag: End}, nil); err != nil {
		return err
	}
	return out.Flush()
}

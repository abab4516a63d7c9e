// Package encoding reads values as Ceph writes them: numbers with their lowest
// byte first, strings after their length, structures after their version and
// length (doc/dev/encoding.rst of Ceph). What they mean is not its business.
package encoding

import (
	"encoding/binary"
	"errors"
)

// ErrEnd says that bytes end before all values are read.
var ErrEnd = errors.New("the bytes end too soon")

// Decoder reads values one after another. The first that is not there fails
// it; what it gives from then on is zero.
type Decoder struct {
	Data []byte // what is not read yet
	Err  error
}

func (d *Decoder) bytes(n uint64) []byte {
	if d.Err == nil && n > uint64(len(d.Data)) {
		d.Err = ErrEnd
	}
	if d.Err != nil {
		return nil
	}
	b := d.Data[:n]
	d.Data = d.Data[n:]
	return b
}

// Uint8 reads a byte.
func (d *Decoder) Uint8() uint8 {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint32 reads a number of four bytes.
func (d *Decoder) Uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a number of eight bytes.
func (d *Decoder) Uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Blob reads bytes that follow their length. They stay part of Data.
func (d *Decoder) Blob() []byte { return d.bytes(uint64(d.Uint32())) }

// Text reads a string.
func (d *Decoder) Text() string { return string(d.Blob()) }

// Section begins a structure that says its version and its length: what is
// behind that length, which later releases may have added to, is not read.
func (d *Decoder) Section() (version uint8, inner *Decoder) {
	version = d.Uint8()
	d.Uint8() // the oldest release that can read it
	return version, &Decoder{Data: d.Blob(), Err: d.Err}
}

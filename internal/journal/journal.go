// Package journal reads and writes what the journal of an image consists of:
// the values of its header and the entries in its data objects, with the events
// in them. The encodings are those that cls/journal, journal and
// librbd/journal of Ceph 16 write; later ones only add to them.
//
// It does not talk to a cluster: it is given the bytes.
package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrFormat says that bytes are not what they should be, ErrEnd that they end
// too soon.
var (
	ErrFormat = errors.New("not in the format of a journal")
	ErrEnd    = errors.New("the bytes end too soon")
)

// decoder reads values one after another. The first that is not there fails
// it; what it gives from then on is zero.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) bytes(n uint64) []byte {
	if d.err == nil && n > uint64(len(d.data)) {
		d.err = ErrEnd
	}
	if d.err != nil {
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) uint8() uint8 {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) blob() []byte   { return d.bytes(uint64(d.uint32())) }
func (d *decoder) string() string { return string(d.blob()) }

// section begins a structure that says its version and its length: what is
// behind that length, which later releases may have added to, is not read.
func (d *decoder) section() (version uint8, inner *decoder) {
	version = d.uint8()
	d.uint8() // the oldest release that can read it
	return version, &decoder{data: d.blob(), err: d.err}
}

// Uint reads a value of a header that is a number of 8, 32 or 64 bits.
func Uint(data []byte) (uint64, error) {
	switch len(data) {
	case 1:
		return uint64(data[0]), nil
	case 8:
		return binary.LittleEndian.Uint64(data), nil
	}
	return 0, ErrFormat
}

// Position is an entry of a journal, and the object that it is in.
type Position struct{ Object, Tag, Entry uint64 }

// Client is a client of a journal: the image itself, whose ID is empty, or a
// peer that copies it.
type Client struct {
	ID        string
	Data      []byte
	Positions []Position // up to where it has seen all, the latest first
	State     uint8
}

// Disconnected is the State of a client that the journal does not wait for.
const Disconnected = 1

// StateName is what a state is called.
func (c Client) StateName() string {
	switch c.State {
	case 0:
		return "connected"
	case Disconnected:
		return "disconnected"
	}
	return fmt.Sprintf("unknown (%d)", c.State)
}

// ReadClient reads the value of a key client_ID.
func ReadClient(data []byte) (Client, error) {
	outer := &decoder{data: data}
	_, d := outer.section()
	c := Client{ID: d.string(), Data: d.blob()}
	_, set := d.section()
	for n := set.uint32(); n > 0 && set.err == nil; n-- {
		_, p := set.section()
		c.Positions = append(c.Positions, Position{p.uint64(), p.uint64(), p.uint64()})
		set.err = cmp.Or(set.err, p.err)
	}
	c.State = d.uint8()
	return c, cmp.Or(outer.err, d.err, set.err)
}

// String is a position as rbd prints it.
func (p Position) String() string {
	return fmt.Sprintf("[object_number=%d, tag_tid=%d, entry_tid=%d]", p.Object, p.Tag, p.Entry)
}

// First gives the position from which a client that registers now is to read:
// that of the client that is furthest behind. Without one it is all.
func First(clients []Client) (Position, bool) {
	var first *Position
	for _, c := range clients {
		if len(c.Positions) == 0 {
			return Position{}, false
		}
		if p := c.Positions[0]; first == nil || p.before(*first) {
			first = &p
		}
	}
	if first == nil {
		return Position{}, false
	}
	return *first, true
}

func (p Position) before(q Position) bool {
	return p.Tag < q.Tag || p.Tag == q.Tag && p.Entry < q.Entry
}

// Entry is an entry of a journal.
type Entry struct {
	Tag, ID uint64
	Data    []byte
}

const preamble = 0x3141592653589793

// fixedSize is what an entry takes besides its data.
const fixedSize = 8 + 1 + 8 + 8 + 4 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C that begins with zero and is not inverted at its end.
func checksum(data []byte) uint32 { return ^crc32.Update(^uint32(0), castagnoli, data) }

// Encode gives the bytes of an entry.
func (e Entry) Encode() []byte {
	b := make([]byte, 0, fixedSize+len(e.Data))
	b = binary.LittleEndian.AppendUint64(b, preamble)
	b = append(b, 1)
	b = binary.LittleEndian.AppendUint64(b, e.ID)
	b = binary.LittleEndian.AppendUint64(b, e.Tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
	b = append(b, e.Data...)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

// ReadEntry reads the first entry of data and gives what is behind it.
func ReadEntry(data []byte) (Entry, []byte, error) {
	d := &decoder{data: data}
	mark, version := d.uint64(), d.uint8()
	e := Entry{ID: d.uint64(), Tag: d.uint64(), Data: d.blob()}
	end := len(data) - len(d.data)
	sum := d.uint32()
	switch {
	case d.err != nil:
		return e, nil, d.err
	case mark != preamble || version != 1:
		return e, nil, fmt.Errorf("%w: an entry does not begin as one", ErrFormat)
	case sum != checksum(data[:end]):
		return e, nil, fmt.Errorf("%w: an entry has a wrong checksum", ErrFormat)
	}
	return e, d.data, nil
}

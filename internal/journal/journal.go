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

	"github.com/opt-rbd/opt-rbd/internal/encoding"
)

// ErrFormat says that bytes are not what they should be; encoding.ErrEnd is
// given where they end too soon.
var ErrFormat = errors.New("not in the format of a journal")

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
	outer := &encoding.Decoder{Data: data}
	_, d := outer.Section()
	c := Client{ID: d.Text(), Data: d.Blob()}
	_, set := d.Section()
	for n := set.Uint32(); n > 0 && set.Err == nil; n-- {
		_, p := set.Section()
		c.Positions = append(c.Positions, Position{p.Uint64(), p.Uint64(), p.Uint64()})
		set.Err = cmp.Or(set.Err, p.Err)
	}
	c.State = d.Uint8()
	return c, cmp.Or(outer.Err, d.Err, set.Err)
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

// checksum is the CRC-32C that begins with zero and is not inverted at its end.
func checksum(data []byte) uint32 {
	return ^crc32.Update(^uint32(0), crc32.MakeTable(crc32.Castagnoli), data) // its table is made once, and only here
}

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
	d := &encoding.Decoder{Data: data}
	mark, version := d.Uint64(), d.Uint8()
	e := Entry{ID: d.Uint64(), Tag: d.Uint64(), Data: d.Blob()}
	end := len(data) - len(d.Data)
	sum := d.Uint32()
	switch {
	case d.Err != nil:
		return e, nil, d.Err
	case mark != preamble || version != 1:
		return e, nil, fmt.Errorf("%w: an entry does not begin as one", ErrFormat)
	case sum != checksum(data[:end]):
		return e, nil, fmt.Errorf("%w: an entry has a wrong checksum", ErrFormat)
	}
	return e, d.Data, nil
}

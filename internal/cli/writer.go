package cli

import (
	"cmp"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/stream"
)

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

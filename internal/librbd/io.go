package librbd

// #include <rbd/librbd.h>
import "C"

import (
	"runtime"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rbd"
)

// IO is a read or a write that was begun. Many of them under way cost no
// thread each, as so many calls of go-ceph's ReadAt and WriteAt would.
type IO struct {
	c   C.rbd_completion_t
	pin runtime.Pinner
	err error
}

// begin starts one on a buffer, which has to be left alone until Wait returns.
func begin(p []byte, start func(data *C.char, c C.rbd_completion_t) C.int) *IO {
	io := new(IO)
	if io.err = result(C.rbd_aio_create_completion(nil, nil, &io.c)); io.err != nil {
		return io
	}
	data := (*C.char)(unsafe.Pointer(unsafe.SliceData(p)))
	if data != nil {
		io.pin.Pin(data)
	}
	if io.err = result(start(data, io.c)); io.err != nil {
		io.release()
	}
	return io
}

func (io *IO) release() {
	C.rbd_aio_release(io.c)
	io.pin.Unpin()
}

// Wait waits until it is done, once, and gives the number of bytes read.
func (io *IO) Wait() (int, error) {
	if io.err != nil {
		return 0, io.err
	}
	defer io.release()
	if err := result(C.rbd_aio_wait_for_complete(io.c)); err != nil {
		return 0, err
	}
	n := C.rbd_aio_get_return_value(io.c)
	if n < 0 {
		return 0, syscall.Errno(-n)
	}
	return int(n), nil
}

// Read begins to read into p, which is not empty.
func Read(image *rbd.Image, p []byte, offset uint64) *IO {
	return begin(p, func(data *C.char, c C.rbd_completion_t) C.int {
		return C.rbd_aio_read(pointer(image), C.uint64_t(offset), C.size_t(len(p)), data, c)
	})
}

// Write begins to write p, which is not empty.
func Write(image *rbd.Image, p []byte, offset uint64) *IO {
	return begin(p, func(data *C.char, c C.rbd_completion_t) C.int {
		return C.rbd_aio_write(pointer(image), C.uint64_t(offset), C.size_t(len(p)), data, c)
	})
}

// zeroesAtOnce is how many bytes one call makes zeros.
const zeroesAtOnce = 1 << 30

// Zeroes begins to make a range of an image zeros, which take up no space
// where that can be had. It may be of any length.
func Zeroes(image *rbd.Image, offset, length uint64) (all []*IO) {
	for length > 0 {
		n := min(length, zeroesAtOnce)
		all = append(all, begin(nil, func(_ *C.char, c C.rbd_completion_t) C.int {
			return C.rbd_aio_write_zeroes(pointer(image), C.uint64_t(offset), C.size_t(n), c, 0, 0)
		}))
		offset += n
		length -= n
	}
	return all
}

// InvalidateCache discards the cache of an image, with what in it was not yet
// written to the cluster.
func InvalidateCache(image *rbd.Image) error { return result(C.rbd_invalidate_cache(pointer(image))) }

package librbd

// #include <rbd/librbd.h>
import "C"

import (
	"syscall"

	"github.com/ceph/go-ceph/rbd"
)

// Reading is a read that was begun. Many of them under way cost no thread
// each, as so many calls of go-ceph's ReadAt would.
type Reading struct {
	c   C.rbd_completion_t
	err error
}

// Read begins to read into p, memory of Buffer that is not empty, which has to
// be left alone until Wait returns.
func Read(image *rbd.Image, p []byte, offset uint64) Reading {
	var r Reading
	if r.err = result(C.rbd_aio_create_completion(nil, nil, &r.c)); r.err != nil {
		return r
	}
	if r.err = result(C.rbd_aio_read(pointer(image), C.uint64_t(offset), C.size_t(len(p)), char(p), r.c)); r.err != nil {
		C.rbd_aio_release(r.c)
	}
	return r
}

// Wait waits until it is done, once, and gives the number of bytes read.
func (r Reading) Wait() (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	defer C.rbd_aio_release(r.c)
	if err := result(C.rbd_aio_wait_for_complete(r.c)); err != nil {
		return 0, err
	}
	n := C.rbd_aio_get_return_value(r.c)
	if n < 0 {
		return 0, syscall.Errno(-n)
	}
	return int(n), nil
}

// InvalidateCache discards the cache of an image, with what in it was not yet
// written to the cluster.
func InvalidateCache(image *rbd.Image) error { return result(C.rbd_invalidate_cache(pointer(image))) }

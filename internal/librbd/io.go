package librbd

// #include <rbd/librbd.h>
import "C"

import (
	"syscall"

	"github.com/ceph/go-ceph/rbd"
)

// Zero makes a range of an image zeros, which take up no space where that can
// be had. It may be of any length.
func Zero(image *rbd.Image, offset, length uint64) error {
	for length > 0 {
		n := min(length, 1<<30)
		if r := C.rbd_write_zeroes(pointer(image), C.uint64_t(offset), C.size_t(n), 0, 0); r < 0 {
			return syscall.Errno(-r)
		}
		offset += n
		length -= n
	}
	return nil
}

// InvalidateCache discards the cache of an image, with what in it was not yet
// written to the cluster.
func InvalidateCache(image *rbd.Image) error { return result(C.rbd_invalidate_cache(pointer(image))) }

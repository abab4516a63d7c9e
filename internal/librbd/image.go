package librbd

/*
#include <stdlib.h>
#include <rbd/librbd.h>

extern int rbdProgress(uint64_t done, uint64_t total, uintptr_t handle);

static int copy_image(rbd_image_t image, rados_ioctx_t io, const char *name, rbd_image_options_t options, uint64_t sparse, uintptr_t handle) {
	return rbd_copy_with_progress4(image, io, name, options, (librbd_progress_fn_t)rbdProgress, (void *)handle, sparse);
}
static int deep_copy_image(rbd_image_t image, rados_ioctx_t io, const char *name, rbd_image_options_t options, uintptr_t handle) {
	return rbd_deep_copy_with_progress(image, io, name, options, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int flatten_image(rbd_image_t image, uintptr_t handle) {
	return rbd_flatten_with_progress(image, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int sparsify_image(rbd_image_t image, uint64_t sparse, uintptr_t handle) {
	return rbd_sparsify_with_progress(image, sparse, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int rollback_snap(rbd_image_t image, const char *snap, uintptr_t handle) {
	return rbd_snap_rollback_with_progress(image, snap, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
*/
import "C"

import (
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

func options(o *rbd.ImageOptions) C.rbd_image_options_t {
	// go-ceph keeps it to itself, as the only field.
	return *(*C.rbd_image_options_t)(unsafe.Pointer(o))
}

// Copy writes what an image holds now, or at its current snapshot, into a new
// image. Runs of sparse zero bytes are left out.
func Copy(image *rbd.Image, ioctx *rados.IOContext, name string, o *rbd.ImageOptions, sparse uint64, progress Progress) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int {
		return C.copy_image(pointer(image), C.rados_ioctx_t(ioctx.Pointer()), cname, options(o), C.uint64_t(sparse), C.uintptr_t(h))
	})
}

// DeepCopy copies an image with its snapshots and its link to a parent.
func DeepCopy(image *rbd.Image, ioctx *rados.IOContext, name string, o *rbd.ImageOptions, progress Progress) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int {
		return C.deep_copy_image(pointer(image), C.rados_ioctx_t(ioctx.Pointer()), cname, options(o), C.uintptr_t(h))
	})
}

// Flatten copies into a clone what it has from its parent, and ends the link.
func Flatten(image *rbd.Image, progress Progress) error {
	return reported(progress, func(h uintptr) C.int { return C.flatten_image(pointer(image), C.uintptr_t(h)) })
}

// Sparsify gives back runs of sparse zero bytes.
func Sparsify(image *rbd.Image, sparse uint64, progress Progress) error {
	return reported(progress, func(h uintptr) C.int { return C.sparsify_image(pointer(image), C.uint64_t(sparse), C.uintptr_t(h)) })
}

// Rollback makes an image what it was at a snapshot.
func Rollback(image *rbd.Image, snap string, progress Progress) error {
	cname := C.CString(snap)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int { return C.rollback_snap(pointer(image), cname, C.uintptr_t(h)) })
}

// SetSnapLimit says how many snapshots an image may have; the largest uint64
// stands for no limit.
func SetSnapLimit(image *rbd.Image, limit uint64) error {
	return result(C.rbd_snap_set_limit(pointer(image), C.uint64_t(limit)))
}

package librbd

/*
#include <rbd/librbd.h>

extern int rbdProgress(uint64_t done, uint64_t total, uintptr_t handle);

static int rebuild_object_map(rbd_image_t image, uintptr_t handle) {
	return rbd_rebuild_object_map(image, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}

// librbd has the check for C++ only:
//     int librbd::Image::check_object_map(librbd::ProgressContext &)
// An Image is nothing but the pointer that C calls rbd_image_t. A
// ProgressContext is a table of its virtual functions: two destructors, which
// are not called, and the one that hears of progress.
extern int check_object_map(rbd_image_t *image, void *progress) __asm__("_ZN6librbd5Image16check_object_mapERNS_15ProgressContextE");

struct progress {
	const void *const *functions;
	uintptr_t handle;
};

static int update_progress(struct progress *p, uint64_t done, uint64_t total) {
	return rbdProgress(done, total, p->handle);
}

static int check_map(rbd_image_t image, uintptr_t handle) {
	static const void *const table[] = {0, 0, 0, 0, (const void *)update_progress};
	struct progress p = {table + 2, handle}; // behind the offset and the type
	return check_object_map(&image, &p);
}
*/
import "C"

import "github.com/ceph/go-ceph/rbd"

// RebuildObjectMap finds out anew which objects of an image there are, at the
// snapshot that it is at.
func RebuildObjectMap(image *rbd.Image, progress Progress) error {
	return reported(progress, func(h uintptr) C.int { return C.rebuild_object_map(pointer(image), C.uintptr_t(h)) })
}

// CheckObjectMap compares the object map of an image, at the snapshot that it
// is at, with the objects that there are. One that is wrong is marked invalid.
func CheckObjectMap(image *rbd.Image, progress Progress) error {
	return reported(progress, func(h uintptr) C.int { return C.check_map(pointer(image), C.uintptr_t(h)) })
}

package librbd

/*
#include <rbd/librbd.h>

extern int rbdProgress(uint64_t done, uint64_t total, uintptr_t handle);

static int rebuild_object_map(rbd_image_t image, uintptr_t handle) {
	return rbd_rebuild_object_map(image, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
*/
import "C"

import "github.com/ceph/go-ceph/rbd"

// RebuildObjectMap finds out anew which objects of an image there are, at the
// snapshot that it is at.
func RebuildObjectMap(image *rbd.Image, progress Progress) error {
	return reported(progress, func(h uintptr) C.int { return C.rebuild_object_map(pointer(image), C.uintptr_t(h)) })
}

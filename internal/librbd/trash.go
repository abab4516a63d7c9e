package librbd

/*
#include <stdbool.h>
#include <errno.h>
#include <stdlib.h>
#include <rbd/librbd.h>

extern int rbdProgress(uint64_t done, uint64_t total, uintptr_t handle);

static int trash_remove(rados_ioctx_t io, const char *id, bool force, uintptr_t handle) {
	return rbd_trash_remove_with_progress(io, id, force, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int trash_purge(rados_ioctx_t io, time_t before, float threshold, uintptr_t handle) {
	return rbd_trash_purge_with_progress(io, before, threshold, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
*/
import "C"

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// Who moved an image to the trash.
const (
	TrashUser      = int(C.RBD_TRASH_IMAGE_SOURCE_USER)
	TrashMirroring = int(C.RBD_TRASH_IMAGE_SOURCE_MIRRORING)
	TrashMigration = int(C.RBD_TRASH_IMAGE_SOURCE_MIGRATION)
	TrashRemoving  = int(C.RBD_TRASH_IMAGE_SOURCE_REMOVING)
	// TrashUserParent is there since Ceph 18: a parent that goes with its last clone.
	TrashUserParent = 4
)

// Trashed is an image in the trash. go-ceph's has no Source.
type Trashed struct {
	ID, Name  string
	Source    int
	Deleted   int64 // seconds since 1970
	Protected int64 // until when
}

// MoveToTrash moves an image to the trash, where it is protected for a time. A
// negative one wraps at 2^32 seconds, as it does for the genuine tool.
func MoveToTrash(ioctx *rados.IOContext, name string, protect time.Duration) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return result(C.rbd_trash_move(C.rados_ioctx_t(ioctx.Pointer()), cname, C.uint64_t(uint32(int64(protect/time.Second)))))
}

// Trash lists the images in the trash of a pool, by their ids.
func Trash(ioctx *rados.IOContext) ([]Trashed, error) {
	for count := C.size_t(1024); ; {
		infos := make([]C.rbd_trash_image_info_t, count)
		r := C.rbd_trash_list(C.rados_ioctx_t(ioctx.Pointer()), &infos[0], &count)
		if r == -C.ERANGE {
			continue
		}
		if r < 0 {
			return nil, syscall.Errno(-r)
		}
		defer C.rbd_trash_list_cleanup(&infos[0], count)
		images := make([]Trashed, count)
		for i, info := range infos[:count] {
			images[i] = Trashed{
				ID: C.GoString(info.id), Name: C.GoString(info.name), Source: int(info.source),
				Deleted: int64(info.deletion_time), Protected: int64(info.deferment_end_time),
			}
		}
		return images, nil
	}
}

// RemoveFromTrash deletes the image of that id.
func RemoveFromTrash(ioctx *rados.IOContext, id string, force bool, progress Progress) error {
	cid := C.CString(id)
	defer C.free(unsafe.Pointer(cid))
	return reported(progress, func(h uintptr) C.int {
		return C.trash_remove(C.rados_ioctx_t(ioctx.Pointer()), cid, C.bool(force), C.uintptr_t(h))
	})
}

// PurgeTrash deletes the images whose protection ended before a time in
// seconds since 1970, 0 for now. With a threshold, not negative, it deletes
// those that have been there longest until the pool is full to that part.
func PurgeTrash(ioctx *rados.IOContext, before int64, threshold float32, progress Progress) error {
	return reported(progress, func(h uintptr) C.int {
		return C.trash_purge(C.rados_ioctx_t(ioctx.Pointer()), C.time_t(before), C.float(threshold), C.uintptr_t(h))
	})
}

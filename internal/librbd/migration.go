package librbd

/*
#include <stdlib.h>
#include <rbd/librbd.h>

extern int rbdProgress(uint64_t done, uint64_t total, uintptr_t handle);

static int migration_execute(rados_ioctx_t io, const char *name, uintptr_t handle) {
	return rbd_migration_execute_with_progress(io, name, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int migration_abort(rados_ioctx_t io, const char *name, uintptr_t handle) {
	return rbd_migration_abort_with_progress(io, name, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int migration_commit(rados_ioctx_t io, const char *name, uintptr_t handle) {
	return rbd_migration_commit_with_progress(io, name, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
*/
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// ExecuteMigration copies the data of an image that is being migrated.
func ExecuteMigration(ioctx *rados.IOContext, name string, progress Progress) error {
	return migrate(ioctx, name, progress, func(io C.rados_ioctx_t, name *C.char, handle C.uintptr_t) C.int {
		return C.migration_execute(io, name, handle)
	})
}

// AbortMigration puts an image back where it was.
func AbortMigration(ioctx *rados.IOContext, name string, progress Progress) error {
	return migrate(ioctx, name, progress, func(io C.rados_ioctx_t, name *C.char, handle C.uintptr_t) C.int {
		return C.migration_abort(io, name, handle)
	})
}

// CommitMigration removes what is left at the place from which an image was migrated.
func CommitMigration(ioctx *rados.IOContext, name string, progress Progress) error {
	return migrate(ioctx, name, progress, func(io C.rados_ioctx_t, name *C.char, handle C.uintptr_t) C.int {
		return C.migration_commit(io, name, handle)
	})
}

func migrate(ioctx *rados.IOContext, name string, progress Progress, do func(C.rados_ioctx_t, *C.char, C.uintptr_t) C.int) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int { return do(C.rados_ioctx_t(ioctx.Pointer()), cname, C.uintptr_t(h)) })
}

// Linked is an image that is linked to another one as its clone.
type Linked struct {
	Pool, Namespace, Name, ID string
	Trash                     bool
}

// Descendants are the clones of an image, the clones of those, and so on.
func Descendants(image *rbd.Image) ([]Linked, error) {
	for size := C.size_t(64); ; {
		list := make([]C.rbd_linked_image_spec_t, size)
		n := size
		err := result(C.rbd_list_descendants(pointer(image), &list[0], &n))
		if err == syscall.ERANGE { //nolint:errorlint // it is that very value
			size = max(n, 2*size)
			continue
		}
		if err != nil {
			return nil, err
		}
		defer C.rbd_linked_image_spec_list_cleanup(&list[0], n)
		linked := make([]Linked, n)
		for i := range linked {
			c := &list[i]
			linked[i] = Linked{
				Pool: C.GoString(c.pool_name), Namespace: C.GoString(c.pool_namespace),
				Name: C.GoString(c.image_name), ID: C.GoString(c.image_id), Trash: bool(c.trash),
			}
		}
		return linked, nil
	}
}

package librbd

// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// CreateGroupSnap takes a snapshot of a group. The flags are those of CreateSnap.
func CreateGroupSnap(ioctx *rados.IOContext, group, snap string, flags uint32) error {
	cgroup, csnap := C.CString(group), C.CString(snap)
	defer C.free(unsafe.Pointer(cgroup))
	defer C.free(unsafe.Pointer(csnap))
	return result(C.rbd_group_snap_create2(C.rados_ioctx_t(ioctx.Pointer()), cgroup, csnap, C.uint32_t(flags)))
}

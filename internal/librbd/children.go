package librbd

/*
#include <errno.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"syscall"

	"github.com/ceph/go-ceph/rbd"
)

// Children lists the clones of an image, or of the snapshot that it is at,
// those in the trash too. With descendants it goes on to the clones of those.
// go-ceph's ListChildrenAttributes has no descendants and ends at 4096 clones.
func Children(image *rbd.Image, descendants bool) ([]rbd.ImageSpec, error) {
	// A list that is too short is made whole again, which asks the cluster for
	// each child: so this one is long at once.
	for count := C.size_t(8192); ; {
		specs := make([]C.rbd_linked_image_spec_t, count)
		var r C.int
		if descendants {
			r = C.rbd_list_descendants(pointer(image), &specs[0], &count)
		} else {
			r = C.rbd_list_children3(pointer(image), &specs[0], &count)
		}
		if r == -C.ERANGE {
			continue
		}
		if r < 0 {
			return nil, syscall.Errno(-r)
		}
		defer C.rbd_linked_image_spec_list_cleanup(&specs[0], count)
		children := make([]rbd.ImageSpec, count)
		for i, s := range specs[:count] {
			children[i] = rbd.ImageSpec{
				PoolName: C.GoString(s.pool_name), PoolNamespace: C.GoString(s.pool_namespace), PoolID: uint64(s.pool_id),
				ImageName: C.GoString(s.image_name), ImageID: C.GoString(s.image_id), Trash: bool(s.trash),
			}
		}
		return children, nil
	}
}

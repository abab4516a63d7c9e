package librbd

// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"encoding/binary"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// GroupImages lists the images of a group. One that is in the trash now, or
// whose pool is gone, ends the list: librbd's C++ interface gives those before
// it, in the order of pools and ids, where the C one gives none. Those are read
// from the group itself then.
func GroupImages(conn *rados.Conn, ioctx *rados.IOContext, group string) ([]rbd.GroupImageInfo, error) {
	images, err := rbd.GroupImageList(ioctx, group)
	if err != nil || len(images) > 0 {
		return images, err
	}
	text := func(in []byte, s string) []byte {
		return append(binary.LittleEndian.AppendUint32(in, uint32(len(s))), s...)
	}
	id, err := ask(ioctx, "rbd_group_directory", "dir_get_id", text(nil, group))
	if err != nil {
		return nil, err
	}
	const atOnce = 1024
	namespace, err := ioctx.GetNamespace()
	if err != nil {
		return nil, err
	}
	header := "rbd_group_header." + id.Text()
	var last []byte // of those that were read: its id and pool
	for last = make([]byte, 4+8); ; {
		in := append([]byte{1, 1}, text(nil, string(last))...)
		list, err := ask(ioctx, header, "group_image_list", binary.LittleEndian.AppendUint64(in, atOnce))
		if err != nil {
			return nil, err
		}
		count := list.Uint32()
		for range count {
			_, status := list.Section()
			_, spec := status.Section()
			image := spec.Text()
			i := rbd.GroupImageInfo{PoolID: int64(spec.Uint64()), State: rbd.GroupImageState(status.Uint8())}
			if spec.Err != nil || status.Err != nil {
				return nil, status.Err
			}
			if i.Name, err = nameInPool(conn, i.PoolID, namespace, image); err != nil || i.Name == "" {
				return images, err
			}
			images = append(images, i)
			last = binary.LittleEndian.AppendUint64(text(nil, image), uint64(i.PoolID))
		}
		if list.Err != nil || count < atOnce {
			return images, list.Err
		}
	}
}

// nameInPool is the name of an image by the ids of it and its pool, or empty
// where there is no such image or pool.
func nameInPool(conn *rados.Conn, pool int64, namespace, id string) (string, error) {
	name, err := conn.GetPoolByID(pool)
	if err != nil {
		return "", nil //nolint:nilerr // the pool is gone
	}
	ioctx, err := conn.OpenIOContext(name)
	if err != nil {
		return "", err
	}
	defer ioctx.Destroy()
	ioctx.SetNamespace(namespace)
	answer, err := ask(ioctx, "rbd_directory", "dir_get_name", append(binary.LittleEndian.AppendUint32(nil, uint32(len(id))), id...))
	if err != nil {
		return "", err
	}
	return answer.Text(), nil
}

// CreateGroupSnap takes a snapshot of a group. The flags are those of CreateSnap.
func CreateGroupSnap(ioctx *rados.IOContext, group, snap string, flags uint32) error {
	cgroup, csnap := C.CString(group), C.CString(snap)
	defer C.free(unsafe.Pointer(cgroup))
	defer C.free(unsafe.Pointer(csnap))
	return result(C.rbd_group_snap_create2(C.rados_ioctx_t(ioctx.Pointer()), cgroup, csnap, C.uint32_t(flags)))
}

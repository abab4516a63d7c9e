package librbd

// #include <rbd/librbd.h>
import "C"

import (
	"time"

	"github.com/ceph/go-ceph/rbd"
)

// CreateMirrorSnap takes a snapshot for the peers of an image that is mirrored
// by snapshots. The flags are those of CreateSnap.
func CreateMirrorSnap(image *rbd.Image, flags uint32) (id uint64, err error) {
	var cid C.uint64_t
	err = result(C.rbd_mirror_image_create_snapshot2(pointer(image), C.uint32_t(flags), &cid))
	return uint64(cid), err
}

// LocalTime is a time in seconds since 1970 as "2006-01-02 15:04:05", in the
// zone of CTime.
func LocalTime(seconds int64) string {
	t, err := time.Parse(time.ANSIC, CTime(seconds))
	if err != nil {
		return CTime(seconds)
	}
	return t.Format(time.DateTime)
}

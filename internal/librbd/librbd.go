// Package librbd has what the commands need of librbd and go-ceph lacks:
// progress callbacks, flags and fields that are not bound, what newer releases
// brought (newer.go), requests that begin and end in C (requests.go), and what
// is read from a pool's objects because librbd takes longer (directory.go,
// header.go, children.go).
//
// It is no second binding: images and pools are opened with go-ceph, and what
// go-ceph can do is done there. A function here goes once go-ceph has it.
//
// Only what librbd 16.2.15 exports is linked, so that a program built against
// it runs with every later librbd; what is newer is looked up (newer.go). Errors are syscall.Errno values.
package librbd

/*
#cgo LDFLAGS: -lrbd
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <rbd/librbd.h>
#include <rbd/features.h>

extern int rbdProgress(uint64_t done, uint64_t total, uintptr_t handle);

// cgo.Handle is an integer; librbd hands it back as the pointer that it takes
// it for.
static int remove_image(rados_ioctx_t io, const char *name, uintptr_t handle) {
	return rbd_remove_with_progress(io, name, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int create_snap(rbd_image_t image, const char *name, uint32_t flags, uintptr_t handle) {
	return rbd_snap_create2(image, name, flags, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
static int remove_snap(rbd_image_t image, const char *name, uint32_t flags, uintptr_t handle) {
	return rbd_snap_remove2(image, name, flags, (librbd_progress_fn_t)rbdProgress, (void *)handle);
}
*/
import "C"

import (
	"bytes"
	"errors"
	"reflect"
	"runtime/cgo"
	"strings"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Flags of CreateSnap.
const (
	SkipQuiesce        = uint32(C.RBD_SNAP_CREATE_SKIP_QUIESCE)
	IgnoreQuiesceError = uint32(C.RBD_SNAP_CREATE_IGNORE_QUIESCE_ERROR)
)

// RemoveForce makes RemoveSnap flatten the clones of a snapshot and take its
// protection away first.
const RemoveForce = uint32(C.RBD_SNAP_REMOVE_FORCE)

// Values that go-ceph has no names for.
const (
	FlagObjectMapInvalid    = uint64(C.RBD_FLAG_OBJECT_MAP_INVALID)
	FlagFastDiffInvalid     = uint64(C.RBD_FLAG_FAST_DIFF_INVALID)
	FeatureNonPrimary       = uint64(C.RBD_FEATURE_NON_PRIMARY)
	FeatureDirtyCache       = uint64(C.RBD_FEATURE_DIRTY_CACHE)
	FeaturesSingleClient    = uint64(C.RBD_FEATURES_SINGLE_CLIENT)
	OperationCloneParent    = uint64(C.RBD_OPERATION_FEATURE_CLONE_PARENT)
	OperationCloneChild     = uint64(C.RBD_OPERATION_FEATURE_CLONE_CHILD)
	OperationGroup          = uint64(C.RBD_OPERATION_FEATURE_GROUP)
	OperationSnapTrash      = uint64(C.RBD_OPERATION_FEATURE_SNAP_TRASH)
	ImageOptionMirrorMode   = rbd.ImageOption(C.RBD_IMAGE_OPTION_MIRROR_IMAGE_MODE)
	ImageOptionFlatten      = rbd.ImageOption(C.RBD_IMAGE_OPTION_FLATTEN)
	SnapNamespaceTypeMirror = rbd.SnapNamespaceType(C.RBD_SNAP_NAMESPACE_TYPE_MIRROR)
)

// Progress hears from an operation how many of its parts are done. It is
// called from librbd's own threads, one call at a time.
type Progress func(done, total uint64)

// reported runs an operation that reports how far it is: librbd gets the
// handle to give to rbdProgress.
func reported(progress Progress, do func(handle uintptr) C.int) error {
	handle := cgo.NewHandle(progress)
	defer handle.Delete()
	return result(do(uintptr(handle)))
}

// Remove deletes the image of that name.
func Remove(ioctx *rados.IOContext, name string, progress Progress) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int {
		return C.remove_image(C.rados_ioctx_t(ioctx.Pointer()), cname, C.uintptr_t(h))
	})
}

// CreateSnap takes a snapshot of an image.
func CreateSnap(image *rbd.Image, name string, flags uint32, progress Progress) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int {
		return C.create_snap(pointer(image), cname, C.uint32_t(flags), C.uintptr_t(h))
	})
}

// RemoveSnap deletes a snapshot of an image.
func RemoveSnap(image *rbd.Image, name string, flags uint32, progress Progress) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return reported(progress, func(h uintptr) C.int {
		return C.remove_snap(pointer(image), cname, C.uint32_t(flags), C.uintptr_t(h))
	})
}

// RemoveSnapByID deletes a snapshot of an image.
func RemoveSnapByID(image *rbd.Image, id uint64) error {
	return result(C.rbd_snap_remove_by_id(pointer(image), C.uint64_t(id)))
}

// WriteZeroes writes zeros that take up space.
func WriteZeroes(image *rbd.Image, offset, length uint64) error {
	n := C.rbd_write_zeroes(pointer(image), C.uint64_t(offset), C.size_t(length), C.RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0)
	if n < 0 {
		return syscall.Errno(-n)
	}
	return nil
}

//export rbdProgress
func rbdProgress(done, total C.uint64_t, handle C.uintptr_t) C.int {
	cgo.Handle(handle).Value().(Progress)(uint64(done), uint64(total))
	return 0
}

// Flags are the Flag... bits of an image at its current snapshot.
func Flags(image *rbd.Image) (uint64, error) {
	var flags C.uint64_t
	err := result(C.rbd_get_flags(pointer(image), &flags))
	return uint64(flags), err
}

// LockIsExclusive says whether the lock that an image has, as go-ceph's
// ListLockers found, is for one client only. The lock's tag does not say: that
// of the exclusive-lock feature has one too.
func LockIsExclusive(image *rbd.Image) (bool, error) {
	var exclusive C.int
	var tag, clients, cookies, addresses C.size_t
	// There is no room for the lists; that they are too long for it is no error.
	r := C.rbd_list_lockers(pointer(image), &exclusive, nil, &tag, nil, &clients, nil, &cookies, nil, &addresses)
	if r < 0 && r != -C.ERANGE {
		return false, syscall.Errno(-r)
	}
	return exclusive != 0, nil
}

// OperationFeatures are the Operation... bits of an image.
func OperationFeatures(image *rbd.Image) (uint64, error) {
	var features C.uint64_t
	err := result(C.rbd_get_op_features(pointer(image), &features))
	return uint64(features), err
}

// SnapLimit is how many snapshots an image may have; the largest uint64 stands
// for no limit.
func SnapLimit(image *rbd.Image) (uint64, error) {
	var limit C.uint64_t
	err := result(C.rbd_snap_get_limit(pointer(image), &limit))
	return uint64(limit), err
}

// Name is an image's name, also where it was opened by its id.
func Name(image *rbd.Image) (string, error) {
	return text(func(buf *C.char, size *C.size_t) C.int { return C.rbd_get_name(pointer(image), buf, size) })
}

// BlockNamePrefix is what the names of an image's data objects begin with.
// The field of that name in go-ceph's ImageInfo is cut off after 23 bytes.
func BlockNamePrefix(image *rbd.Image) (string, error) {
	return text(func(buf *C.char, size *C.size_t) C.int {
		return C.rbd_get_block_name_prefix(pointer(image), buf, *size)
	})
}

// MigrationSource describes, in JSON, from where an image is imported that is
// no copy of another image.
func MigrationSource(image *rbd.Image) (string, error) {
	return text(func(buf *C.char, size *C.size_t) C.int {
		return C.rbd_get_migration_source_spec(pointer(image), buf, size)
	})
}

// text calls get with buffers that grow until the answer fits.
func text(get func(*C.char, *C.size_t) C.int) (string, error) {
	for size := C.size_t(1024); ; size *= 4 {
		buf := make([]byte, size)
		err := result(get((*C.char)(unsafe.Pointer(&buf[0])), &size))
		if errors.Is(err, syscall.ERANGE) && size < 1<<20 {
			continue
		}
		answer, _, _ := bytes.Cut(buf, []byte{0})
		return string(answer), err
	}
}

// MirrorSnapState is what part a mirror snapshot plays.
type MirrorSnapState C.rbd_snap_mirror_state_t

// The states of mirror snapshots.
const (
	MirrorSnapPrimary           = MirrorSnapState(C.RBD_SNAP_MIRROR_STATE_PRIMARY)
	MirrorSnapPrimaryDemoted    = MirrorSnapState(C.RBD_SNAP_MIRROR_STATE_PRIMARY_DEMOTED)
	MirrorSnapNonPrimary        = MirrorSnapState(C.RBD_SNAP_MIRROR_STATE_NON_PRIMARY)
	MirrorSnapNonPrimaryDemoted = MirrorSnapState(C.RBD_SNAP_MIRROR_STATE_NON_PRIMARY_DEMOTED)
)

// MirrorSnap tells of a snapshot that mirroring took.
type MirrorSnap struct {
	State             MirrorSnapState
	PeerUUIDs         []string
	Complete          bool
	PrimaryMirrorUUID string
	PrimarySnapID     uint64
	LastCopiedObject  uint64
}

// GetMirrorSnap reads the mirror namespace of a snapshot.
func GetMirrorSnap(image *rbd.Image, snapID uint64) (MirrorSnap, error) {
	var c C.rbd_snap_mirror_namespace_t
	if err := result(C.rbd_snap_get_mirror_namespace(pointer(image), C.uint64_t(snapID), &c, C.sizeof_rbd_snap_mirror_namespace_t)); err != nil {
		return MirrorSnap{}, err
	}
	defer C.rbd_snap_mirror_namespace_cleanup(&c, C.sizeof_rbd_snap_mirror_namespace_t)
	snap := MirrorSnap{
		State:             MirrorSnapState(c.state),
		Complete:          bool(c.complete),
		PrimaryMirrorUUID: C.GoString(c.primary_mirror_uuid),
		PrimarySnapID:     uint64(c.primary_snap_id),
		LastCopiedObject:  uint64(c.last_copied_object_number),
	}
	// The identifiers stand one after another, each with its terminator.
	next := c.mirror_peer_uuids
	for range c.mirror_peer_uuids_count {
		uuid := C.GoString(next)
		snap.PeerUUIDs = append(snap.PeerUUIDs, uuid)
		next = (*C.char)(unsafe.Add(unsafe.Pointer(next), len(uuid)+1))
	}
	return snap, nil
}

// CTime prints a time in seconds since 1970 as ctime(3) does, in the zone that
// the C library takes from $TZ and /etc/localtime; Go's reading of $TZ does
// not know POSIX rules such as "CET-1CEST".
func CTime(seconds int64) string {
	t := C.time_t(seconds)
	buf := make([]byte, 64)
	text := C.ctime_r(&t, (*C.char)(unsafe.Pointer(&buf[0])))
	return strings.TrimSuffix(C.GoString(text), "\n")
}

// pointer gets at librbd's handle of an image. go-ceph keeps it to itself, in
// a field that reflection may read though not write.
func pointer(image *rbd.Image) C.rbd_image_t {
	return C.rbd_image_t(reflect.ValueOf(image).Elem().FieldByName("image").UnsafePointer())
}

func result(code C.int) error {
	if code < 0 {
		return syscall.Errno(-code)
	}
	return nil
}

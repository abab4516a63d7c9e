package librbd

// What librbd has since 16.2.15 is looked up by name, and its types, which the
// headers of 16.2.15 lack, are declared here.

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <rbd/librbd.h>

static int has(const char *name) { return dlsym(RTLD_DEFAULT, name) != NULL; }

// How an image, or a parent of it, is decrypted. The formats of 16.2.15 have
// options that begin with the cipher, which librbd does not look at here.
struct decryption { int format; void *options; size_t size; };
struct cipher_and_passphrase { int cipher; const char *passphrase; size_t size; };
struct only_passphrase { const char *passphrase; size_t size; };

static int encryption_load(rbd_image_t image, const struct decryption *list, size_t count) {
	int (*load)(rbd_image_t, const struct decryption *, size_t) = dlsym(RTLD_DEFAULT, "rbd_encryption_load2");
	return load ? load(image, list, count) : -ENOSYS;
}

static int clone_by_id(rados_ioctx_t from, const char *image, uint64_t snap, rados_ioctx_t to, const char *name, rbd_image_options_t options) {
	int (*clone)(rados_ioctx_t, const char *, uint64_t, rados_ioctx_t, const char *, rbd_image_options_t) = dlsym(RTLD_DEFAULT, "rbd_clone4");
	return clone ? clone(from, image, snap, to, name, options) : -ENOSYS;
}

static int group_id(rados_ioctx_t io, const char *group, char *id, size_t *size) {
	int (*get)(rados_ioctx_t, const char *, char *, size_t *) = dlsym(RTLD_DEFAULT, "rbd_group_get_id");
	return get ? get(io, group, id, size) : -ENOSYS;
}

struct trash_snap { int kind; char *name; };

static int trash_snap(rbd_image_t image, uint64_t id, struct trash_snap *snap) {
	int (*get)(rbd_image_t, uint64_t, struct trash_snap *, size_t) = dlsym(RTLD_DEFAULT, "rbd_snap_get_trash_namespace2");
	return get ? get(image, id, snap, sizeof *snap) : -ENOSYS;
}

static int remote_namespace(rados_ioctx_t io, char *name, size_t *size) {
	int (*get)(rados_ioctx_t, char *, size_t *) = dlsym(RTLD_DEFAULT, "rbd_mirror_remote_namespace_get");
	return get ? get(io, name, size) : -ENOSYS;
}
static int set_remote_namespace(rados_ioctx_t io, const char *name) {
	int (*set)(rados_ioctx_t, const char *) = dlsym(RTLD_DEFAULT, "rbd_mirror_remote_namespace_set");
	return set ? set(io, name) : -ENOSYS;
}
*/
import "C"

import (
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Release is the Ceph release that this process's librbd is of, as far as it
// counts here: 16, 18 or 20. It is told by what librbd exports.
var Release = release()

func release() int {
	has := func(name string) bool {
		cname := C.CString(name)
		defer C.free(unsafe.Pointer(cname))
		return C.has(cname) != 0
	}
	switch {
	case has("rbd_clone4"):
		return 20
	case has("rbd_encryption_load2"):
		return 18
	}
	return 16
}

// EncryptionFormat is how an image is encrypted.
type EncryptionFormat int

// Formats of encryption. LUKS is any that the image turns out to have.
const (
	LUKS1 EncryptionFormat = C.RBD_ENCRYPTION_FORMAT_LUKS1
	LUKS2 EncryptionFormat = C.RBD_ENCRYPTION_FORMAT_LUKS2
	LUKS  EncryptionFormat = 2
)

// Passphrase unlocks an image of a format.
type Passphrase struct {
	Format EncryptionFormat
	Text   []byte
}

// LoadEncryption unlocks an image, the first passphrase itself and those that
// follow its parents. The last one is for all parents that are left. Since
// Ceph 18.
func LoadEncryption(image *rbd.Image, passphrases []Passphrase) error {
	var free []func()
	defer func() {
		for _, f := range free {
			f()
		}
	}()
	alloc := func(n C.size_t) unsafe.Pointer {
		p := C.calloc(1, n)
		free = append(free, func() { C.memset(p, 0, n); C.free(p) })
		return p
	}
	list := unsafe.Slice((*C.struct_decryption)(alloc(C.size_t(len(passphrases)+1)*C.sizeof_struct_decryption)), len(passphrases))
	for i, p := range passphrases {
		size := C.size_t(len(p.Text))
		text := alloc(size + 1)
		copy(unsafe.Slice((*byte)(text), len(p.Text)), p.Text)
		if p.Format == LUKS {
			options := (*C.struct_only_passphrase)(alloc(C.sizeof_struct_only_passphrase))
			options.passphrase, options.size = (*C.char)(text), size
			list[i].options, list[i].size = unsafe.Pointer(options), C.sizeof_struct_only_passphrase
		} else {
			options := (*C.struct_cipher_and_passphrase)(alloc(C.sizeof_struct_cipher_and_passphrase))
			options.passphrase, options.size = (*C.char)(text), size
			list[i].options, list[i].size = unsafe.Pointer(options), C.sizeof_struct_cipher_and_passphrase
		}
		list[i].format = C.int(p.Format)
	}
	return result(C.encryption_load(pointer(image), unsafe.SliceData(list), C.size_t(len(list))))
}

// CloneSnapID makes a clone of the snapshot with an id, whatever kind of
// snapshot that is. Since Ceph 20.
func CloneSnapID(from *rados.IOContext, image string, snap uint64, to *rados.IOContext, name string, o *rbd.ImageOptions) error {
	cimage, cname := C.CString(image), C.CString(name)
	defer C.free(unsafe.Pointer(cimage))
	defer C.free(unsafe.Pointer(cname))
	return result(C.clone_by_id(C.rados_ioctx_t(from.Pointer()), cimage, C.uint64_t(snap), C.rados_ioctx_t(to.Pointer()), cname, options(o)))
}

// GroupID is the id of a group. Since Ceph 20.
func GroupID(ioctx *rados.IOContext, group string) (string, error) {
	cgroup := C.CString(group)
	defer C.free(unsafe.Pointer(cgroup))
	var id [64]C.char
	size := C.size_t(len(id))
	err := result(C.group_id(C.rados_ioctx_t(ioctx.Pointer()), cgroup, &id[0], &size))
	return C.GoString(&id[0]), err
}

// TrashedSnapKind is what kind of a snapshot one was that is in the trash now.
// Since Ceph 20.
func TrashedSnapKind(image *rbd.Image, snap uint64) (rbd.SnapNamespaceType, error) {
	var c C.struct_trash_snap
	err := result(C.trash_snap(pointer(image), C.uint64_t(snap), &c))
	if err == nil {
		C.free(unsafe.Pointer(c.name))
	}
	return rbd.SnapNamespaceType(c.kind), err
}

// MirrorModeInitOnly is a pool that is made known to others and where nothing
// is mirrored but in namespaces. Since Ceph 20.
const MirrorModeInitOnly = rbd.MirrorMode(3)

// RemoteNamespace is the namespace of the other side with which a pool or a
// namespace is mirrored. Since Ceph 20.
func RemoteNamespace(ioctx *rados.IOContext) (string, error) {
	size := C.size_t(4096) // more than a name can have
	name := (*C.char)(C.calloc(1, size))
	defer C.free(unsafe.Pointer(name))
	err := result(C.remote_namespace(C.rados_ioctx_t(ioctx.Pointer()), name, &size))
	return C.GoString(name), err
}

// SetRemoteNamespace sets what RemoteNamespace reads. Since Ceph 20.
func SetRemoteNamespace(ioctx *rados.IOContext, name string) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return result(C.set_remote_namespace(C.rados_ioctx_t(ioctx.Pointer()), cname))
}

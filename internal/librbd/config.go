package librbd

/*
#include <errno.h>
#include <stdlib.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// ConfigPrefix begins the keys of metadata that override options.
const ConfigPrefix = "conf_"

// ConfigOption is an option of librbd's as it holds for a pool or an image.
type ConfigOption struct {
	Name, Value string
	Source      ConfigSource
}

// ConfigSource is where the value of an option is from.
type ConfigSource int

// The sources of options.
const (
	FromConfig = ConfigSource(C.RBD_CONFIG_SOURCE_CONFIG) // ceph.conf, the monitors, or what is built in
	FromPool   = ConfigSource(C.RBD_CONFIG_SOURCE_POOL)
	FromImage  = ConfigSource(C.RBD_CONFIG_SOURCE_IMAGE)
)

// PoolConfig lists all options as they hold for the images of a pool.
func PoolConfig(ioctx *rados.IOContext) ([]ConfigOption, error) {
	io := C.rados_ioctx_t(ioctx.Pointer())
	return configOptions(func(options *C.rbd_config_option_t, count *C.int) C.int {
		return C.rbd_config_pool_list(io, options, count)
	})
}

// ImageConfig lists all options as they hold for an image.
func ImageConfig(image *rbd.Image) ([]ConfigOption, error) {
	return configOptions(func(options *C.rbd_config_option_t, count *C.int) C.int {
		return C.rbd_config_image_list(pointer(image), options, count)
	})
}

// configOptions calls a function that says how many there are where the room is too small.
func configOptions(list func(*C.rbd_config_option_t, *C.int) C.int) ([]ConfigOption, error) {
	for room := C.int(128); ; {
		raw := make([]C.rbd_config_option_t, room)
		count := room
		r := list(&raw[0], &count)
		if r == -C.ERANGE && count > room {
			room = count
			continue
		}
		if r < 0 {
			return nil, syscall.Errno(-r)
		}
		// One function frees what both give.
		defer C.rbd_config_pool_list_cleanup(&raw[0], count)
		options := make([]ConfigOption, count)
		for i, o := range raw[:count] {
			options[i] = ConfigOption{C.GoString(o.name), C.GoString(o.value), ConfigSource(o.source)}
		}
		return options, nil
	}
}

// PoolMetadata is the value of a key of a pool's metadata, ENOENT if it has none.
func PoolMetadata(ioctx *rados.IOContext, key string) (string, error) {
	ckey := C.CString(key)
	defer C.free(unsafe.Pointer(ckey))
	for room := C.size_t(4096); ; {
		value, length := make([]C.char, room), room
		r := C.rbd_pool_metadata_get(C.rados_ioctx_t(ioctx.Pointer()), ckey, &value[0], &length)
		if r == -C.ERANGE && length > room {
			room = length
			continue
		}
		if r < 0 {
			return "", syscall.Errno(-r)
		}
		return C.GoString(&value[0]), nil
	}
}

// SetPoolMetadata sets a key of a pool's metadata; EINVAL where it overrides an option that cannot have that value.
func SetPoolMetadata(ioctx *rados.IOContext, key, value string) error {
	ckey, cvalue := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(ckey))
	defer C.free(unsafe.Pointer(cvalue))
	return result(C.rbd_pool_metadata_set(C.rados_ioctx_t(ioctx.Pointer()), ckey, cvalue))
}

// RemovePoolMetadata takes a key out of a pool's metadata, ENOENT if it is not there.
func RemovePoolMetadata(ioctx *rados.IOContext, key string) error {
	ckey := C.CString(key)
	defer C.free(unsafe.Pointer(ckey))
	return result(C.rbd_pool_metadata_remove(C.rados_ioctx_t(ioctx.Pointer()), ckey))
}

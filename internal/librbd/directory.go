package librbd

/*
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rados/librados.h>
#include <rbd/librbd.h>

struct names {
	char *text; // each name with a zero byte after it; to be freed
	size_t length;
	unsigned char more; // names come after them
	size_t old;         // bytes of the object's data: images of the old format
	unsigned char trash; // there is something in the trash, which may be half removed
};

// read_names reads the names of a directory that come after one, as many as the
// OSD gives at once. The first time it asks in the same request for the object's
// data, and calls the method that librbd calls: for one name, as it takes twice
// as long for each, but who may not call it may not list.
// Beside that it asks for one image of the trash.
static int read_names(rados_ioctx_t io, const char *name, struct names *names) {
	static const char prefix[] = "name_"; // of keys
	enum { skip = sizeof prefix - 1, most = 1 << 20 };
	static const char after_empty_one[] = {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};

	char *after;
	if (asprintf(&after, "%s%s", prefix, name) < 0)
		return -ENOMEM;
	rados_read_op_t op = rados_create_read_op();
	char data[1], list[4096];
	size_t used;
	int result[3] = {0};
	rados_read_op_t trash_op = NULL;
	rados_completion_t trash = NULL;
	char spec[4096] = {0};
	size_t spec_used;
	int trash_result = 0;
	if (*name == 0) {
		trash_op = rados_create_read_op();
		rados_read_op_exec_user_buf(trash_op, "rbd", "trash_list", after_empty_one, sizeof after_empty_one, spec, sizeof spec, &spec_used, &trash_result);
		rados_aio_create_completion2(NULL, NULL, &trash);
		rados_aio_read_op_operate(trash_op, io, trash, "rbd_trash", 0);
		rados_read_op_read(op, 0, sizeof data, data, &names->old, &result[0]);
		rados_read_op_exec_user_buf(op, "rbd", "dir_list", after_empty_one, sizeof after_empty_one, list, sizeof list, &used, &result[1]);
	}
	rados_omap_iter_t keys;
	rados_read_op_omap_get_keys2(op, after, most, &keys, &names->more, &result[2]);
	int e = rados_read_op_operate(op, io, "rbd_directory", 0);
	rados_release_read_op(op);
	free(after);
	if (trash != NULL) {
		rados_aio_wait_for_complete(trash);
		int r = rados_aio_get_return_value(trash);
		rados_aio_release(trash);
		rados_release_read_op(trash_op);
		// A map: how many there are, and then they, which may be too long.
		if (r == -ERANGE || trash_result == -ERANGE)
			names->trash = 1;
		else if (r >= 0)
			names->trash = spec[0] != 0;
		else if (r != -ENOENT && r != -EOPNOTSUPP && e >= 0)
			e = r;
	}
	for (int i = 0; i < 3 && e >= 0; i++)
		e = result[i];
	FILE *all = NULL;
	if (e >= 0 && (all = open_memstream(&names->text, &names->length)) == NULL)
		e = -errno;
	while (e >= 0) {
		char *key = NULL, *value;
		size_t none;
		e = rados_omap_get_next(keys, &key, &value, &none);
		if (e < 0 || key == NULL)
			break;
		if (strncmp(key, prefix, skip) != 0) {
			names->more = 0;
			break;
		}
		fwrite(key + skip, strlen(key + skip) + 1, 1, all);
	}
	rados_omap_get_end(keys);
	if (all != NULL && fclose(all) != 0)
		e = -errno;
	return e;
}
*/
import "C"

import (
	"errors"
	"strings"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// Entry is the name of an image in its pool's directory, and its id, which is
// empty for an image of the old format.
type Entry struct{ Name, ID string }

// namesAtOnce is how many images a directory is taken to have at most. Where
// it has more it is read a second time.
const namesAtOnce = 1 << 16

// Directory lists the images of a pool in the order of their names. It is go-ceph's
// GetImageNames with the ids, and reads a directory of more than 4096 images
// once only.
func Directory(ioctx *rados.IOContext) ([]Entry, error) {
	for count := C.size_t(namesAtOnce); ; {
		// Memory that is not touched is not there.
		specs := (*C.rbd_image_spec_t)(C.calloc(count, C.sizeof_rbd_image_spec_t))
		if specs == nil {
			return nil, syscall.ENOMEM
		}
		r := C.rbd_list2(C.rados_ioctx_t(ioctx.Pointer()), specs, &count)
		if r == -C.ERANGE {
			C.free(unsafe.Pointer(specs))
			continue
		}
		if r < 0 {
			C.free(unsafe.Pointer(specs))
			return nil, syscall.Errno(-r)
		}
		names := make([]Entry, count)
		for i, s := range unsafe.Slice(specs, count) {
			names[i] = Entry{Name: C.GoString(s.name), ID: C.GoString(s.id)}
		}
		C.rbd_image_spec_list_cleanup(specs, count)
		C.free(unsafe.Pointer(specs))
		return names, nil
	}
}

// errTrash: what is there can be images that are half removed, which are in the
// list until they are gone.
var errOld, errTrash = errors.New("images of the old format"), errors.New("images in the trash")

// Names is Directory without the ids: it reads the keys of a directory, which
// takes half the time. Where it fails, as it does where there are images of the
// old format or there is something in the trash, Directory may do or tell more.
func Names(ioctx *rados.IOContext) (names []string, err error) {
	for last, more := "", true; more; last = names[len(names)-1] {
		var page []string
		page, more, err = namesAfter(ioctx, last)
		if errors.Is(err, syscall.ENOENT) && last == "" {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		names = append(names, page...)
	}
	return names, nil
}

func namesAfter(ioctx *rados.IOContext, name string) (names []string, more bool, err error) {
	after := C.CString(name)
	defer C.free(unsafe.Pointer(after))
	var page C.struct_names
	e := C.read_names(C.rados_ioctx_t(ioctx.Pointer()), after, &page)
	defer C.free(unsafe.Pointer(page.text))
	switch {
	case page.trash != 0:
		return nil, false, errTrash
	case e < 0:
		return nil, false, syscall.Errno(-e)
	case page.old > 0:
		return nil, false, errOld
	case page.length > 0:
		names = strings.Split(C.GoStringN(page.text, C.int(page.length-1)), "\x00")
	}
	return names, page.more != 0 && len(names) > 0, nil
}

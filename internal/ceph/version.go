package ceph

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

// Ceph's libraries have the line, but only for C++: as a std::string, which is
// 32 bytes in the C++ ABI that the function's name says and begins with the
// pointer to its characters (outside of it, for so long a line). A C struct of
// that size is returned in the same way, whichever register that takes.
struct text { const char *chars; size_t length; char space[16]; };

static const char *opt_rbd_version(void) {
	struct text (*pretty)(void) = (struct text (*)(void))dlsym(RTLD_DEFAULT, "_Z21pretty_version_to_strB5cxx11v");
	if (pretty == NULL)
		return NULL;
	return pretty().chars;
}
*/
import "C"

import (
	"fmt"

	"github.com/ceph/go-ceph/rados"
)

// VersionString is the line that Ceph's tools print for --version: the version
// of the libraries that this process runs with.
func VersionString() string {
	if text := C.opt_rbd_version(); text != nil {
		return C.GoString(text)
	}
	major, minor, patch := rados.Version()
	return fmt.Sprintf("ceph version with librados %d.%d.%d", major, minor, patch)
}

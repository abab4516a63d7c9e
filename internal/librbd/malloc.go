package librbd

// #include <malloc.h>
import "C"

// KeepBuffers makes the C library keep the memory of large buffers, for a
// process that gets and frees many of them. By itself glibc maps each buffer
// of an object's size anew and gives it back, and the kernel clears its pages
// every time, which takes longer than all the rest of reading an object.
//
// It is for the beginning of a process that reads or writes much; what such a
// process has in memory at a time does not change.
func KeepBuffers() {
	C.mallopt(C.M_ARENA_MAX, 1)
	C.mallopt(C.M_MMAP_MAX, 0)
	C.mallopt(C.M_TRIM_THRESHOLD, 1<<30)
	C.mallopt(C.M_TOP_PAD, 64<<20)
}

package librbd

/*
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { room = 256 << 20 };

static void keep_buffers(void) {
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_TOP_PAD, room);
	// More than is free now, so that the heap grows by the room.
	void *first = malloc(8 << 20);
	free(first);
	uintptr_t begin = (uintptr_t)first & -(uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t end = (uintptr_t)sbrk(0);
	if (first != NULL && begin < end)
		madvise((void *)begin, end - begin, MADV_HUGEPAGE);
}
*/
import "C"

import "golang.org/x/sys/unix"

// KeepBuffers makes the C library keep the memory of large buffers, for a
// process that gets and frees many of them, and asks the kernel for large
// pages there. By itself glibc maps each buffer of an object's size anew and
// gives it back, and the kernel clears its pages every time, which takes
// longer than all the rest of reading an object.
//
// It is for the beginning of a process that reads or writes much; what such a
// process has in memory at a time does not change.
func KeepBuffers() { C.keep_buffers() }

// Buffer is memory for Read and Write of size bytes, in large pages where the
// kernel has them. It lives as long as the process.
func Buffer(size uint64) ([]byte, error) {
	p, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		_ = unix.Madvise(p, unix.MADV_HUGEPAGE) // without them it is only slower
	}
	return p, err
}

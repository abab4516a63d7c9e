package librbd

/*
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <rbd/librbd.h>

struct request {
	uint64_t offset;
	uint64_t write;
};

struct slot {
	struct requests *all;
	int write, result;
};

// free holds the slots that nothing is under way in.
struct requests {
	pthread_mutex_t lock;
	pthread_cond_t freed;
	rbd_image_t image;
	char *data, *discard; // of writes, and of reads
	size_t size;
	unsigned slots, count;
	struct slot **free, *slot;
};

static struct requests *new_requests(rbd_image_t image, char *data, size_t size, unsigned slots) {
	struct requests *r = calloc(1, sizeof *r);
	if (r == NULL)
		return NULL;
	r->free = calloc(slots, sizeof *r->free);
	r->slot = calloc(slots, sizeof *r->slot);
	if (r->free == NULL || r->slot == NULL) {
		free(r->free);
		free(r->slot);
		free(r);
		return NULL;
	}
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->freed, NULL);
	r->image = image;
	r->data = data;
	r->size = size;
	r->slots = r->count = slots;
	for (unsigned i = 0; i < slots; i++) {
		r->slot[i].all = r;
		r->free[i] = &r->slot[slots - 1 - i];
	}
	return r;
}

static void give(struct slot *slot) {
	struct requests *r = slot->all;
	pthread_mutex_lock(&r->lock);
	r->free[r->count++] = slot;
	pthread_cond_signal(&r->freed);
	pthread_mutex_unlock(&r->lock);
}

static struct slot *take(struct requests *r) {
	pthread_mutex_lock(&r->lock);
	while (r->count == 0)
		pthread_cond_wait(&r->freed, &r->lock);
	struct slot *slot = r->free[--r->count];
	pthread_mutex_unlock(&r->lock);
	return slot;
}

static void ended(rbd_completion_t c, void *arg) {
	struct slot *slot = arg;
	ssize_t n = rbd_aio_get_return_value(c);
	rbd_aio_release(c);
	if (n < 0)
		slot->result = n;
	else if (!slot->write && n != slot->all->size)
		slot->result = -EIO;
	give(slot);
}

static int start(struct slot *slot, uint64_t offset, int write) {
	struct requests *r = slot->all;
	// One place for all reads: nobody looks at it.
	if (!write && r->discard == NULL && (r->discard = malloc(r->size)) == NULL)
		return -ENOMEM;
	rbd_completion_t c;
	int e = rbd_aio_create_completion(slot, ended, &c);
	if (e < 0)
		return e;
	if (write)
		e = rbd_aio_write(r->image, offset, r->size, r->data, c);
	else
		e = rbd_aio_read(r->image, offset, r->size, r->discard, c);
	if (e < 0)
		rbd_aio_release(c);
	return e;
}

static int do_requests(struct requests *r, struct request *list, size_t n, int *write) {
	for (size_t i = 0; i < n; i++) {
		struct slot *slot = take(r);
		int e = slot->result;
		if (e == 0) {
			slot->write = list[i].write;
			e = start(slot, list[i].offset, slot->write);
		}
		if (e < 0) {
			*write = slot->write;
			return e;
		}
	}
	return 0;
}

static int end_requests(struct requests *r, int *write) {
	for (unsigned i = 0; i < r->slots; i++) {
		struct slot *slot = take(r);
		if (slot->result < 0) {
			*write = slot->write;
			return slot->result;
		}
	}
	return 0;
}
*/
import "C"

import (
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rbd"
)

// Request is a read or a write at an offset of an image.
type Request C.struct_request

// NewRequest makes one.
func NewRequest(offset uint64, write bool) Request {
	r := Request{offset: C.uint64_t(offset)}
	if write {
		r.write = 1
	}
	return r
}

// Requests are many reads and writes of one size, of which a number is under
// way. As soon as any ends the next begins, without a call into Go, which
// would take longer than a small request does. What is read is discarded.
//
// They live as long as the process, and are for one goroutine.
type Requests struct{ c *C.struct_requests }

// RequestError is what the first request that failed ended with.
type RequestError struct {
	Write bool
	Errno syscall.Errno // EIO for a read that is too short
}

func (e *RequestError) Error() string { return e.Errno.Error() }
func (e *RequestError) Unwrap() error { return e.Errno }

// NewRequests makes room for n requests, one at least. data is what all of
// them write or the size of what they read: memory of Buffer.
func NewRequests(image *rbd.Image, data []byte, n uint64) (*Requests, error) {
	c := C.new_requests(pointer(image), (*C.char)(unsafe.Pointer(unsafe.SliceData(data))), C.size_t(len(data)), C.uint(n))
	if c == nil {
		return nil, syscall.ENOMEM
	}
	return &Requests{c}, nil
}

// Do begins requests, one after the other, each when there is room. Its error,
// a *RequestError, may be that of one that was begun before.
func (r *Requests) Do(list []Request) error {
	var write C.int
	n := C.do_requests(r.c, (*C.struct_request)(unsafe.SliceData(list)), C.size_t(len(list)), &write)
	return failed(n, write)
}

// End waits for all that were begun.
func (r *Requests) End() error {
	var write C.int
	return failed(C.end_requests(r.c, &write), write)
}

func failed(n, write C.int) error {
	if n == 0 {
		return nil
	}
	return &RequestError{Write: write != 0, Errno: syscall.Errno(-n)}
}

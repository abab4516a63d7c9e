package librbd

/*
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <rbd/librbd.h>

// The slots that nothing is under way in are in free, count of them.
struct requests {
	pthread_mutex_t lock;
	pthread_cond_t freed;
	rbd_image_t image;
	unsigned slots, count, *free;
	atomic_uint *under_way;
	// Of the first that failed: a negative errno, whether it wrote, and where.
	int result, write;
	uint64_t offset;
};

struct request {
	uint64_t offset;
	uint64_t write;
};

// What has to be known of one when it ends.
struct part {
	struct requests *all;
	unsigned slot;
	int write;
	uint64_t offset, least; // bytes that it has to give
};

static void free_requests(struct requests *r) {
	pthread_cond_destroy(&r->freed);
	pthread_mutex_destroy(&r->lock);
	free(r->free);
	free(r->under_way);
	free(r);
}

static struct requests *new_requests(rbd_image_t image, unsigned slots) {
	struct requests *r = calloc(1, sizeof *r);
	if (r == NULL)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->freed, NULL);
	r->image = image;
	r->slots = r->count = slots;
	r->free = calloc(slots, sizeof *r->free);
	r->under_way = calloc(slots, sizeof *r->under_way);
	if (r->free == NULL || r->under_way == NULL) {
		free_requests(r);
		return NULL;
	}
	for (unsigned i = 0; i < slots; i++)
		r->free[i] = slots - 1 - i;
	return r;
}

static void more(struct requests *r, unsigned slot) {
	atomic_fetch_add(&r->under_way[slot], 1);
}

static void less(struct requests *r, unsigned slot) {
	if (atomic_fetch_sub(&r->under_way[slot], 1) > 1)
		return;
	pthread_mutex_lock(&r->lock);
	r->free[r->count++] = slot;
	pthread_cond_signal(&r->freed);
	pthread_mutex_unlock(&r->lock);
}

static void fail(struct requests *r, int result, int write, uint64_t offset) {
	pthread_mutex_lock(&r->lock);
	if (r->result == 0) {
		r->result = result;
		r->write = write;
		r->offset = offset;
	}
	pthread_mutex_unlock(&r->lock);
}

// take waits for a slot, and holds it as one more that is under way in it. After
// a failure it gives -1.
static int take(struct requests *r) {
	pthread_mutex_lock(&r->lock);
	while (r->count == 0)
		pthread_cond_wait(&r->freed, &r->lock);
	int slot = -1;
	if (r->result == 0) {
		slot = r->free[--r->count];
		atomic_store(&r->under_way[slot], 1);
	}
	pthread_mutex_unlock(&r->lock);
	return slot;
}

static int wait_for_all(struct requests *r) {
	pthread_mutex_lock(&r->lock);
	while (r->count < r->slots)
		pthread_cond_wait(&r->freed, &r->lock);
	pthread_mutex_unlock(&r->lock);
	return r->result;
}

static void ended(rbd_completion_t c, void *arg) {
	struct part *part = arg;
	ssize_t n = rbd_aio_get_return_value(c);
	rbd_aio_release(c);
	if (n >= 0 && (uint64_t)n < part->least)
		n = -EIO;
	if (n < 0)
		fail(part->all, n, part->write, part->offset);
	less(part->all, part->slot);
	free(part);
}

enum { to_read, to_write, to_zero };

// begin adds one to what is under way in a slot. One that cannot begin has failed.
static void begin(struct requests *r, unsigned slot, int what, uint64_t offset, uint64_t length, char *data) {
	struct part *part = malloc(sizeof *part);
	rbd_completion_t c;
	int e = -ENOMEM;
	if (part == NULL)
		goto no_part;
	*part = (struct part){r, slot, what != to_read, offset, what == to_read ? length : 0};
	e = rbd_aio_create_completion(part, ended, &c);
	if (e < 0)
		goto no_completion;
	more(r, slot);
	switch (what) {
	case to_read:
		e = rbd_aio_read(r->image, offset, length, data, c);
		break;
	case to_write:
		e = rbd_aio_write(r->image, offset, length, data, c);
		break;
	case to_zero:
		e = rbd_aio_write_zeroes(r->image, offset, length, c, 0, 0);
	}
	if (e >= 0)
		return;
	less(r, slot);
	rbd_aio_release(c);
no_completion:
	free(part);
no_part:
	fail(r, e, what != to_read, offset);
}

static int do_requests(struct requests *r, struct request *list, size_t n, uint64_t size, char *written, char *read) {
	for (size_t i = 0; i < n; i++) {
		int slot = take(r);
		if (slot < 0)
			return r->result;
		if (list[i].write)
			begin(r, slot, to_write, list[i].offset, size, written);
		else
			begin(r, slot, to_read, list[i].offset, size, read);
		less(r, slot);
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

// Requests are reads and writes of an image in a number of slots. As soon as
// what is under way in any slot has ended there is room for more. None of them
// ends by a call into Go, which would take longer than a small request does.
//
// They are for one goroutine. What they read from and write to is memory of
// Buffer, to be left alone until its slot is given out again.
type Requests struct{ c *C.struct_requests }

// RequestError is what the first request that failed ended with. Nothing
// begins after it.
type RequestError struct {
	Write  bool
	Offset uint64
	Errno  syscall.Errno // EIO for a read that is too short
}

func (e *RequestError) Error() string { return e.Errno.Error() }
func (e *RequestError) Unwrap() error { return e.Errno }

// NewRequests makes n slots, one at least.
func NewRequests(image *rbd.Image, n uint64) (*Requests, error) {
	c := C.new_requests(pointer(image), C.uint(n))
	if c == nil {
		return nil, syscall.ENOMEM
	}
	return &Requests{c}, nil
}

// Take waits for a slot to begin requests in, and holds it until Give. Its
// error is that of a request that was begun before.
func (r *Requests) Take() (slot int, err error) {
	if slot = int(C.take(r.c)); slot < 0 {
		return slot, r.failed()
	}
	return slot, nil
}

// Give says that no more begins in a slot. It is free when what was begun has
// ended.
func (r *Requests) Give(slot int) { C.less(r.c, C.uint(slot)) }

// Write begins to write p, which is not empty.
func (r *Requests) Write(slot int, p []byte, offset uint64) {
	C.begin(r.c, C.uint(slot), C.to_write, C.uint64_t(offset), C.uint64_t(len(p)), char(p))
}

// zeroesAtOnce is how many bytes one call makes zeros.
const zeroesAtOnce = 1 << 30

// Zeroes begins to make a range zeros, which take up no space where that can
// be had. It may be of any length.
func (r *Requests) Zeroes(slot int, offset, length uint64) {
	for length > 0 {
		n := min(length, zeroesAtOnce)
		C.begin(r.c, C.uint(slot), C.to_zero, C.uint64_t(offset), C.uint64_t(n), nil)
		offset += n
		length -= n
	}
}

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

// Do begins requests of one size, each in a slot of its own. All write the same
// bytes, and what is read is discarded: the two buffers are as long as a
// request.
func (r *Requests) Do(list []Request, written, read []byte) error {
	if C.do_requests(r.c, (*C.struct_request)(unsafe.SliceData(list)), C.size_t(len(list)), C.uint64_t(len(written)), char(written), char(read)) < 0 {
		return r.failed()
	}
	return nil
}

// Wait waits until all that was begun has ended.
func (r *Requests) Wait() error {
	if C.wait_for_all(r.c) < 0 {
		return r.failed()
	}
	return nil
}

// Close frees what they take up, but not the buffers. It waits too.
func (r *Requests) Close() {
	C.wait_for_all(r.c)
	C.free_requests(r.c)
}

func (r *Requests) failed() error {
	return &RequestError{Write: r.c.write != 0, Offset: uint64(r.c.offset), Errno: syscall.Errno(-r.c.result)}
}

func char(p []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(p))) }

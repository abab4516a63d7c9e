// What runs before anything else of this program or of a shared library:
// functions in .preinit_array come before the constructors of all libraries,
// and long before Go's runtime looks at argv and environment.

#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14; older kernels refuse it and nothing is lost
#endif

// A key on the command line can be read by everyone who may list processes.
// So each one is moved to the heap, where Go finds it, and overwritten where
// the kernel shows it.
//
// Whoever gives a key so has it in no file. Nor is a core to become one, when a
// library aborts: the process is not dumpable then. With a key that is in a
// file of the same user anyway it is.

static void hide(char **word, size_t from) {
	prctl(PR_SET_DUMPABLE, 0);
	char *copy = strdup(*word);
	if (copy == NULL)
		return;
	memset(*word + from, '*', strlen(*word + from));
	*word = copy;
}

static void hide_keys(int argc, char **argv, char **envp) {
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--key=", 6) == 0) {
			hide(&argv[i], 6);
		} else if (strcmp(argv[i], "--key") == 0 && i + 1 < argc) {
			i++;
			hide(&argv[i], 0);
		} else if (strncmp(argv[i], "--keyfile=/proc/self/fd/", 24) == 0) {
			// What the launcher has made of a --key.
			prctl(PR_SET_DUMPABLE, 0);
		}
	}
	for (char **env = envp; *env != NULL; env++) {
		if (strncmp(*env, "CEPH_ARGS=", 10) == 0 && strstr(*env, "--key") != NULL)
			hide(env, 10);
	}
}

// Constructors of libceph-common make a table of all options of Ceph, first on
// the stack and then on the heap, and page by page: every second page fault of
// a short command is theirs. The kernel is asked for these pages at once.
// Sizes are what Ceph 16 touches; a few pages too many or too few matter little.
enum {
	page = 4096,
	stack_pages = 250,
	heap_pages = 500,
};

static void populate(int argc, char **argv) {
	// A benchmark is not about its start, and what is set here is set for good:
	// its requests would queue for the one heap, or get their buffers anew.
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "bench") == 0)
			return;
	// One heap for all of it and for all threads, so that there is a range to
	// ask for. What is larger than an object of an image is still given back
	// when it is freed.
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TOP_PAD, 4 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	void *first = malloc(1);
	if (first != NULL)
		madvise((void *)((uintptr_t)first & -(uintptr_t)page), heap_pages * page, MADV_POPULATE_WRITE);
	free(first);

	// The stack grows down to where it is touched, if it may.
	struct rlimit limit;
	if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur < 2 * stack_pages * page)
		return;
	char here;
	volatile char *low = (char *)((uintptr_t)&here & -(uintptr_t)page) - stack_pages * page;
	*low = 0;
	madvise((void *)low, stack_pages * page, MADV_POPULATE_WRITE);
}

// What this process was started with: bit N-1 of a signal N that is ignored,
// bit N of a descriptor of the first three that is closed. Go's runtime has
// handlers for all signals, whatever was there, and /dev/null in those places.
uint64_t opt_rbd_ignored;
unsigned opt_rbd_closed;

static void look_around(void) {
	for (int n = 1; n <= 64; n++) {
		struct sigaction now;
		if (sigaction(n, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
			opt_rbd_ignored |= UINT64_C(1) << (n - 1);
	}
	for (int n = 0; n < 3; n++)
		if (fcntl(n, F_GETFD) < 0)
			opt_rbd_closed |= 1u << n;
}

// What a signal does to a program that knows nothing of it.
void opt_rbd_default_signal(int n) {
	struct sigaction standard = {.sa_handler = SIG_DFL};
	sigaction(n, &standard, NULL);
}

static void start(int argc, char **argv, char **envp) {
	look_around();
	populate(argc, argv);
	hide_keys(argc, argv, envp);
}

__attribute__((section(".preinit_array"), used)) static void (*const entry)(int, char **, char **) = start;

package ceph

// A key on the command line can be read by everyone who may list processes.
// So each one is moved to the heap and overwritten where the kernel shows it,
// before anything else of this program or of a shared library runs: functions
// in .preinit_array come before the constructors of all libraries, and long
// before Go's runtime looks at argv and environment, where it finds what was
// moved.

/*
#include <stdlib.h>
#include <string.h>

static void opt_rbd_hide(char **word, size_t from) {
	char *copy = strdup(*word);
	if (copy == NULL)
		return;
	memset(*word + from, '*', strlen(*word + from));
	*word = copy;
}

static void opt_rbd_hide_keys(int argc, char **argv, char **envp) {
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--key=", 6) == 0) {
			opt_rbd_hide(&argv[i], 6);
		} else if (strcmp(argv[i], "--key") == 0 && i + 1 < argc) {
			i++;
			opt_rbd_hide(&argv[i], 0);
		}
	}
	for (char **env = envp; *env != NULL; env++) {
		if (strncmp(*env, "CEPH_ARGS=", 10) == 0 && strstr(*env, "--key") != NULL)
			opt_rbd_hide(env, 10);
	}
}

__attribute__((section(".preinit_array"), used))
static void (*opt_rbd_preinit)(int, char **, char **) = opt_rbd_hide_keys;
*/
import "C"

package ceph

/*
#include <stdint.h>

extern uint64_t opt_rbd_ignored;
extern unsigned opt_rbd_closed;
void opt_rbd_default_signal(int);
*/
import "C"

import (
	"os/signal"
	"syscall"
)

// killing are signals that end a program that knows nothing of them, where Go's
// runtime does nothing, or tells of all goroutines and ends with exit code 2.
var killing = []syscall.Signal{
	syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGVTALRM,
	syscall.SIGPROF, syscall.SIGIO, syscall.SIGPWR, syscall.SIGXCPU, syscall.SIGSTKFLT,
}

// Signals has signals do what they do to a program in C: one that was ignored
// when this one started, as nohup(1) has it, is ignored, and the others end it.
// To be called before any of them is notified of.
func Signals() {
	ignored := func(s syscall.Signal) bool { return C.opt_rbd_ignored&(1<<(s-1)) != 0 }
	for _, s := range killing {
		if !ignored(s) {
			C.opt_rbd_default_signal(C.int(s))
		}
	}
	for s := syscall.Signal(1); s <= 64; s++ {
		if ignored(s) {
			signal.Ignore(s)
		}
	}
}

// Closed says whether a descriptor of the first three was closed when this
// program started. Go's runtime has /dev/null there then.
func Closed(fd int) bool { return C.opt_rbd_closed&(1<<fd) != 0 }

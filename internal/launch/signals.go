package launch

import (
	"syscall"
	"unsafe"
)

// inherited has bit N-1 set for each signal N that the process was started with ignored. It is written by the
// assembler in entry_ARCH.s, which runs before Go's runtime; 0 in programs linked without -E opt_rbd_entry.
//
// Go's runtime installs its handlers without regard to what was there (but for SIGHUP and SIGINT), and a handled signal
// is back at its default after execve(2). So a service with IgnoreSIGPIPE=, systemd's default, or a command under
// trap ” TERM would run its rbd with other signals than without the launcher.
var inherited uint64

// closed has bit N set for each of the descriptors 0 to 2 that was closed at the start; it is written as inherited is.
// Go's runtime opens /dev/null in its place, and an export to it would seem to have been written.
var closed uint64

// restoreClosed has these descriptors closed again by execve(2).
func restoreClosed() {
	for fd := range 3 {
		if closed&(1<<fd) != 0 {
			syscall.CloseOnExec(fd)
		}
	}
}

// restoreIgnored ignores the signals again that were ignored at the start.
func restoreIgnored() {
	// sigaction(2) as the kernel has it: handler, flags, restorer, mask. All zero but the handler fits every order.
	const sigIgn = 1
	act := [4]uint64{sigIgn}
	for sig := range 64 {
		if inherited&(1<<sig) != 0 {
			// It fails only for signals that cannot be ignored, and they were.
			_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig+1), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
		}
	}
}

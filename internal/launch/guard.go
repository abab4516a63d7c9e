package launch

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A client that is killed by SIGKILL takes neither its container nor the key with it. A second process of the
// launcher waits for the client's end, however that comes, and removes both.

// guardName is the name that it is started by, and guardClient the descriptor that stands for the client.
const (
	guardName   = "opt-rbd-guard"
	guardClient = 3
)

// startGuard starts it for the calling process, which is going to be the client.
func startGuard(client, container, dir string, environ []string) error {
	fail := func(err error) error {
		return &Error{exitCannot, "cannot start the process that cleans up after " + client, err}
	}
	// Linux 5.3. A descriptor and not a number: that could be another process by the time it is looked at.
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fail(os.NewSyscallError("pidfd_open", err))
	}
	self := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = self.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = null.Close() }()
	// A session of its own: what the terminal sends is not for it.
	_, err = os.StartProcess("/proc/self/exe", []string{guardName, client, container, dir},
		&os.ProcAttr{Dir: "/", Env: environ, Files: []*os.File{null, null, null, self}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return fail(err)
	}
	return nil
}

// guard is that process. argv is as startGuard makes it.
func guard(argv []string) {
	if len(argv) != 4 {
		os.Exit(exitCannot)
	}
	client, container, dir := argv[1], argv[2], argv[3]
	// What the caller left open: a reader of a pipe would wait for this process, too.
	_ = unix.CloseRange(guardClient+1, 1<<32-1, 0)
	fds := []unix.PollFd{{Fd: guardClient, Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			break
		}
	}
	// Only what this program has made is removed.
	if strings.Contains(dir, "/opt-rbd/opt-rbd-") {
		_ = os.RemoveAll(dir)
	}
	remove := []string{client, "rm", "--force", container}
	if strings.HasSuffix(client, "/podman") {
		remove = append(remove, "--time=0") // it waits ten seconds before it kills
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		os.Exit(exitCannot)
	}
	p, err := os.StartProcess(client, remove, &os.ProcAttr{Dir: "/", Files: []*os.File{null, null, null}})
	if err != nil {
		os.Exit(exitMissing)
	}
	// That the container is gone already, as it is after every ordinary end, is the failure to be expected.
	_, _ = p.Wait()
	os.Exit(0)
}

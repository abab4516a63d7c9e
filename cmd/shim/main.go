// One goroutine fewer at the start: none is needed that follows changes of the cgroup.
//
//go:debug updatemaxprocs=0

// Command shim is what a node has as /opt/bin/rbd: a static program that runs the rbd of the payload beside it.
//
// It answers by itself what needs neither a cluster nor the payload: unmap, device list, and the names that udev asks
// of it as ceph-rbdnamer. Where the host's settings say so, it also maps by itself. As rbdmap it maps at boot and gives back at shutdown.
package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opt-rbd/opt-rbd/cmd/shim/first"
	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/device"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
	"github.com/opt-rbd/opt-rbd/internal/launch"
	"github.com/opt-rbd/opt-rbd/internal/rbdmap"
)

// What first left to be read whole: see there why this is an init.
func init() {
	if !first.Own() && local() == nil {
		direct()
		launch.Main()
	}
}

// direct maps an image without the payload, where the launcher's settings ask for that and the line is such a one. It
// ends the process if it has, and comes back if the payload's rbd is to do it.
func direct() {
	// One that cannot be read is for launch.Main to complain about.
	if config, err := launch.ReadConfig(launch.ConfigFile); err != nil || !config.Direct || config.Runtime != "" {
		return
	}
	launch.HideKey()
	ceph, rest := args.Split(args.Environ(os.Args[1:], os.Getenv("CEPH_ARGS")))
	line, err := args.Read([]*args.Command{device.Map}, rest)
	if err != nil || line.Help || line.Command != device.Map {
		return
	}
	done, err := device.Direct(context.Background(), ceph, line, os.Getenv, device.IO{Stdout: stdout, Stderr: stderr})
	if done {
		end(err)
	}
}

func main() {
	switch filepath.Base(os.Args[0]) {
	case first.Namer:
		os.Exit(name("/sys", os.Args[1:]))
	case first.Mapper:
		os.Exit((&rbdmap.Command{Stdout: stdout, Stderr: stderr}).Run(os.Args[1:]))
	}
	out := bufio.NewWriter(stdout)
	err := device.Run(context.Background(), local(), device.IO{Stdout: out, Stderr: stderr, Host: krbd.Host{Stderr: stderr}})
	_ = out.Flush() // a closed pipe is no failure, see descriptor
	end(err)
}

// end ends the process as rbd does, with what went wrong on standard error.
func end(err error) {
	if err == nil {
		os.Exit(0)
	}
	var failure *errno.Error
	if !errors.As(err, &failure) || !failure.Bare {
		stderr.print("rbd: ")
	}
	stderr.print(err.Error() + "\n")
	var kernel *krbd.Error
	if errors.As(err, &kernel) && kernel.Hint != "" {
		stderr.print("hint: " + kernel.Hint + "\n")
	}
	os.Exit(int(errno.Code(err)))
}

// local gives the command line where it is one to be answered here, and nil where there is the least doubt: every line
// that the payload's rbd would refuse or read otherwise is left to that.
func local() *args.Line {
	if filepath.Base(os.Args[0]) == "rbd-nbd" {
		return nil
	}
	ceph, rest := args.Split(args.Environ(os.Args[1:], os.Getenv("CEPH_ARGS")))
	for len(ceph) > 0 {
		// Whom to ask, as which user, makes no difference. Other options may be wrong, as a file that is not there.
		_, _, n := args.CephOption(ceph, "--id", "-m", "--mon_host", "-k", "--keyring", "-K", "--keyfile", "--key")
		if n == 0 || n > len(ceph) {
			return nil
		}
		ceph = ceph[n:]
	}
	line, err := args.Read([]*args.Command{device.Unmap, device.List}, rest)
	if err != nil || !device.Local(line) {
		return nil
	}
	return line
}

// A descriptor is written to as it is. With os.File a closed pipe would end the process by SIGPIPE, which rbd ignores.
type descriptor int

const (
	stdout = descriptor(1)
	stderr = descriptor(2)
)

func (d descriptor) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := syscall.Write(int(d), b[n:])
		if err != nil && err != syscall.EINTR {
			return n, err
		}
		n += max(m, 0)
	}
	return n, nil
}

// print is for last words: there is nobody left to tell that they were not heard.
func (d descriptor) print(s string) { _, _ = d.Write([]byte(s)) }

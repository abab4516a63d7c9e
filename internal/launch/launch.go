// Package launch runs a program of a payload (internal/payload) in place of the calling process: same pid, argv,
// environment, working folder, file descriptors, limits and signals, with the payload's /usr instead of the host's.
//
// As root the process gets its own mount namespace, in which the payload's usr is bound over /usr. Without the
// privilege to mount, the payload's dynamic loader is run by its path. Both end in one execve(2), so that exit status
// and signals are the program's own.
//
// It is not a sandbox: /etc, /dev, /sys, /run, /var, the network and all privileges stay the host's, since mapping a
// disk needs them. It is linked into the static launcher, where every imported package costs start-up time.
package launch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// The launcher's own failures end with the codes that shells use: the program is there but cannot be run, or is not
// there. The payload's programs end with an errno or 1, far below.
const (
	exitCannot  = 126
	exitMissing = 127
)

// Programs are what the launcher runs by the name that it is called by. Any other name runs the first.
var Programs = []string{"rbd", "rbd-nbd"}

// Error is a failure of the launcher itself.
type Error struct {
	Code int    // exit code: 126 or 127, or 125 for a container runtime's failure
	Text string // one line: what is wrong and what to do
	Err  error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	// Without the path that os puts in front: the text has it already.
	var path *fs.PathError
	if errors.As(e.Err, &path) {
		return e.Text + ": " + path.Err.Error()
	}
	return e.Text + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Main runs the program that the command line asks for, out of the payload that belongs to the executable or, where
// ConfigFile says so, in a container. It does not return, and has to be called where Exec may be.
func Main() {
	if os.Args[0] == guardName {
		guard(os.Args)
	}
	config, err := ReadConfig(ConfigFile)
	switch {
	case err != nil:
	case config.Runtime != "":
		err = config.exec(os.Args, os.Environ())
	default:
		var payload string
		if payload, err = Find(); err == nil {
			err = Exec(payload, os.Args, os.Environ())
		}
	}
	code := exitCannot
	var failure *Error
	if errors.As(err, &failure) {
		code = failure.Code
	}
	_, _ = os.Stderr.WriteString("rbd: " + err.Error() + "\n")
	os.Exit(code)
}

const installAgain = "; run the installer again"

// Find gives the folder of the payload that belongs to the running executable: DIR/../rbd/current for DIR/rbd, with
// that link followed, so that a version switched in meanwhile is not mixed with this one.
func Find() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", &Error{exitCannot, "cannot tell where this program is; is /proc mounted?", err}
	}
	current := filepath.Join(filepath.Dir(filepath.Dir(exe)), "rbd", "current")
	target, err := os.Readlink(current)
	switch {
	case errors.Is(err, syscall.EINVAL): // not a link
		return current, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", &Error{exitMissing, "nothing is installed at " + current + installAgain, nil}
	case err != nil:
		return "", &Error{exitCannot, "cannot read " + current, err}
	case filepath.IsAbs(target):
		return target, nil
	}
	return filepath.Join(filepath.Dir(current), target), nil
}

// Exec replaces the process by the program of the payload that argv[0] names. It comes back only with an *Error.
//
// It has to be called on the main goroutine while that is locked to its thread: a mount namespace
// belongs to a thread, and execve(2) keeps the signal mask of the thread that calls it, which is untouched only there.
func Exec(payload string, argv, environ []string) error {
	argv, err := hideKey(argv, os.Getenv("CEPH_ARGS"))
	if err != nil {
		return &Error{exitCannot, "cannot keep the key off the command line", err}
	}
	name := filepath.Base(argv[0])
	if !slices.Contains(Programs, name) {
		name = Programs[0]
	}
	file := payload + "/usr/bin/" + name
	interpreter, err := readInterpreter(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(payload); err != nil {
			return &Error{exitMissing, "the payload " + payload + " is gone" + installAgain, nil}
		}
		return &Error{exitMissing, "the payload " + payload + " has no usr/bin/" + name + "; install one that has it", nil}
	} else if err != nil {
		return &Error{exitCannot, "cannot read " + file, err}
	}

	environ = Environ(environ)
	err = enter(payload, interpreter)
	if err == nil {
		return run("/usr/bin/"+name, argv, environ)
	}
	if !errors.Is(err, errPrivilege) {
		return err
	}
	if interpreter == "" {
		return run(file, argv, environ)
	}
	loader := payload + inUsr(interpreter)
	argv, err = loaderArgv(payload, loader, file, argv)
	if err != nil {
		return err
	}
	return run(loader, argv, environ)
}

func run(file string, argv, environ []string) error {
	restoreIgnored()
	restoreClosed()
	err := syscall.Exec(file, argv, environ)
	code, hint := exitCannot, ""
	switch err {
	case syscall.ENOENT:
		code, hint = exitMissing, installAgain
	case syscall.ENOEXEC:
		hint = "; install the payload made for this architecture"
	case syscall.EACCES:
		hint = "; is the payload on a file system mounted noexec, or is its security label wrong?"
	}
	return &Error{code, "cannot run " + file + ": " + err.Error() + hint, nil}
}

// loaderArgv is the command line that runs file through the payload's dynamic loader, with libraries of the payload
// alone: neither the host's cache nor, where the payload has the library, a path compiled into a program.
func loaderArgv(payload, loader, file string, argv []string) ([]string, error) {
	list := payload + "/usr/lib/opt-rbd/library-path"
	b, err := os.ReadFile(list)
	if err != nil {
		return nil, &Error{exitCannot, "cannot read " + list + installAgain, err}
	}
	// One folder a line, relative to the payload.
	var path []byte
	for line := range lines(b) {
		if len(path) > 0 {
			path = append(path, ':')
		}
		path = append(path, payload...)
		path = append(path, '/')
		path = append(path, line...)
	}
	return append([]string{loader, "--inhibit-cache", "--library-path", string(path), "--argv0", argv[0], file}, argv[1:]...), nil
}

// lines gives the lines of b that are not empty.
func lines(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		start := 0
		for i, c := range b {
			if c != '\n' {
				continue
			}
			if i > start && !yield(b[start:i]) {
				return
			}
			start = i + 1
		}
	}
}

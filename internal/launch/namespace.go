package launch

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
)

// kept are folders of the host that programs of the payload need as the host has them: the modules of its kernel and
// their settings for modprobe, the zones that /etc/localtime and TZ name. A payload has them empty.
var kept = []string{"/usr/lib/modules", "/usr/lib/modprobe.d", "/usr/share/zoneinfo"}

// hidden are files of the host that tell its dynamic loader where the host's libraries are. The payload's loader
// reads them too, and would load a library of another distribution, or fail to. Without them it looks only into its
// own folders below /usr, where the payload has everything.
var hidden = []string{"/etc/ld.so.cache", "/etc/ld.so.preload"}

// errPrivilege says that the process may not make a mount namespace or mount in it.
var errPrivilege = errors.New("no privilege to mount")

// enter gives the calling thread a mount namespace of its own in which /usr is the payload's. interpreter is the
// dynamic loader that the program to be run names; "" if it needs none.
func enter(payload, interpreter string) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return mountError("cannot make a mount namespace", err)
	}
	// Slave, not private: a long-lived rbd-nbd would otherwise hold every file system that the host unmounts. Nothing
	// mounted here gets out.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
		return mountError("cannot cut / off from the host's mounts", err)
	}
	// The host's folders go into the payload first and over /usr along with it: once /usr is covered, they are out
	// of reach by name.
	usr := payload + "/usr"
	for _, dir := range kept {
		err := syscall.Mount(dir, payload+dir, "", syscall.MS_BIND|syscall.MS_REC, "")
		// The host, or this payload, does without the folder.
		if err != nil && err != syscall.ENOENT && err != syscall.ENOTDIR {
			return mountError("cannot bind "+dir+" into "+usr, err)
		}
	}
	if err := syscall.Mount(usr, "/usr", "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return mountError("cannot bind "+usr+" over /usr", err)
	}
	for _, file := range hidden {
		// The loader takes a file without a length for none.
		if err := syscall.Mount("/dev/null", file, "", syscall.MS_BIND, ""); err != nil && err != syscall.ENOENT {
			return mountError("cannot hide "+file, err)
		}
	}
	return checkMerged(interpreter)
}

// checkMerged says whether the kernel, given the path of the dynamic loader, finds the payload's. It does so where
// /lib, /lib64 and the like are links into /usr, as they are on hosts with a merged /usr.
func checkMerged(interpreter string) error {
	if interpreter == "" {
		return nil
	}
	var named, ours syscall.Stat_t
	if err := syscall.Stat(inUsr(interpreter), &ours); err != nil {
		return &Error{exitMissing, "the payload has no " + inUsr(interpreter) + installAgain, nil}
	}
	err := syscall.Stat(interpreter, &named)
	if err == nil && named.Dev == ours.Dev && named.Ino == ours.Ino {
		return nil
	}
	dir := interpreter[:strings.LastIndexByte(interpreter, '/')]
	return &Error{exitCannot, dir + " of this host is not a link to " + inUsr(dir) + ", which the payload needs; merge /usr (package usrmerge)", nil}
}

// inUsr is a path such as /lib64/x as it is called with a merged /usr.
func inUsr(path string) string {
	if strings.HasPrefix(path, "/usr/") {
		return path
	}
	return "/usr" + path
}

func mountError(text string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return errPrivilege
	case errors.Is(err, syscall.ENOSPC):
		text += "; raise the sysctl user.max_mnt_namespaces or fs.mount-max"
	case errors.Is(err, syscall.EINVAL):
		text += "; in a chroot / has to be a mount point"
	}
	return &Error{exitCannot, text, err}
}

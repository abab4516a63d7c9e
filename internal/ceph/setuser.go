package ceph

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// dropPrivileges does what the options setuser and setgroup ask for, as Ceph's
// programs do (ceph(8), --setuser): root becomes another user, by name or
// number, before anything is done. Others are told on stderr that they cannot.
func (c *Cluster) dropPrivileges(stderr io.Writer) error {
	setuser, setgroup := c.Config("setuser"), c.Config("setgroup")
	if setuser == "" && setgroup == "" {
		return nil
	}
	if os.Getuid() != 0 {
		for _, option := range []string{"setuser", "setgroup"} {
			if value := c.Config(option); value != "" {
				fmt.Fprintf(stderr, "ignoring --%s %s since I am not root\n", option, value)
			}
		}
		return nil
	}
	fail := func(format string, a ...any) error {
		return &errno.Error{Code: 1, Bare: true, Line: fmt.Sprintf(format, a...)}
	}
	uid, gid := leadingNumber(setuser), 0
	if setuser != "" && uid == 0 {
		u, err := user.Lookup(setuser)
		if err != nil {
			return fail("unable to look up user '%s'", setuser)
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
	}
	if setgroup != "" {
		if gid = leadingNumber(setgroup); gid == 0 {
			g, err := user.LookupGroup(setgroup)
			if err != nil {
				return fail("unable to look up group '%s': (0) Success", setgroup)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	if path := c.Config("setuser_match_path"); path != "" && (uid != 0 || gid != 0) {
		var info unix.Stat_t
		if err := unix.Stat(path, &info); err != nil {
			return fail("unable to stat setuser_match_path %s: %s", path, errno.Text(errno.Code(err)))
		}
		if uid != 0 && uint32(uid) != info.Uid || gid != 0 && uint32(gid) != info.Gid {
			fmt.Fprintf(stderr, "WARNING: will not setuid/gid: %s owned by %d:%d and not requested %d:%d\n", path, info.Uid, info.Gid, uid, gid)
			return nil
		}
	}
	// Of all threads.
	if err := syscall.Setgid(gid); err != nil {
		return fail("unable to setgid %d: %s", gid, errno.Text(errno.Code(err)))
	}
	if err := syscall.Setuid(uid); err != nil {
		return fail("unable to setuid %d: %s", uid, errno.Text(errno.Code(err)))
	}
	return nil
}

// leadingNumber is what atoi(3) makes of a text: 0 of a name.
func leadingNumber(text string) int {
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(text[:end], 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}
